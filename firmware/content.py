"""What a firmware file may be: which endings are taken, and whether the bytes are what the ending says.

Nothing here unpacks more than the first kilobytes, so an archive bomb costs nothing.
"""

import struct
import tarfile
import zipfile
import zlib
from typing import IO

SUFFIXES = (".tar.gz", ".bin", ".tar", ".gz", ".zip")
_HEAD = 64 * 1024
_TAR_BLOCK = 512
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def suffix_of(filename: str) -> str | None:
    """The accepted ending of a file name in lower case (`.tar.gz` before `.gz`), or None."""
    lowered = filename.lower()
    return next((suffix for suffix in SUFFIXES if lowered.endswith(suffix) and lowered != suffix), None)


def _gzip_head(head: bytes) -> bytes | None:
    """What the beginning of a gzip stream unpacks to, at most `_HEAD` bytes; None if it is not gzip."""
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = stream.decompress(head, _HEAD)
    except zlib.error:
        return None
    return unpacked if unpacked or stream.eof else None


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_zip(file: IO[bytes], head: bytes) -> bool:
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return bool(archive.infolist())
    # zipfile lets some parse errors of a damaged directory through as they are.
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OverflowError, OSError):
        return False


def matches(file: IO[bytes], suffix: str) -> bool:
    """Whether a seekable file is what its ending says; a .bin may be anything but empty."""
    file.seek(0)
    head = file.read(_HEAD)
    if suffix == ".bin":
        return bool(head)
    if suffix == ".zip":
        return _is_zip(file, head)
    if suffix == ".tar":
        return _is_tar(head)
    unpacked = _gzip_head(head)
    return unpacked is not None and (suffix == ".gz" or _is_tar(unpacked))
