# syntax=docker/dockerfile:1

# Images by tag, for builds from source; deploy/pin-images.sh pins them by digest.
ARG BUILD_IMAGE=rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-20260803-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# rust-toolchain.toml also requires clippy and rustfmt, which this image would have to download.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# The caches belong to the builder and are not part of a layer, so the program is copied out of them here.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p roster \
    && install -D target/release/roster /out/roster

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Roster" \
      org.opencontainers.image.description="Event-driven user and authentication service" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# For servers with a certificate of a public authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/roster /usr/local/bin/roster
# A number, so that an orchestrator can verify that it is not root. The files of `roster init` must belong to the same
# user.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/roster"]
