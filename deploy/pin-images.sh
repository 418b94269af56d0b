#!/usr/bin/env bash
# Prints the third-party images of docker-compose.yml and the Dockerfile, each with the current digest of its tag, as lines
# for .env. Run it where the registries can be reached, and again for each upgrade:
#
#   deploy/pin-images.sh >> .env
#
# Needs docker with buildx.
set -euo pipefail
cd "$(dirname "$0")/.."

sed -nE 's/.*\$\{(ROSTER_[A-Z]+_IMAGE):-([^}]+)\}.*/\1 \2/p' docker-compose.yml | sort -u |
    while read -r variable image; do
        digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}' < /dev/null)
        if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
            printf 'pin-images: %s has no digest: %s\n' "$image" "$digest" >&2
            exit 1
        fi
        printf '%s=%s@%s\n' "$variable" "$image" "$digest"
    done
