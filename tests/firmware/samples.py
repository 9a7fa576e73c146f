"""Small files of every accepted form."""

import gzip
import io
import tarfile
import zipfile

from django.core.files.uploadedfile import SimpleUploadedFile

BIN = b"\x7fimage" * 100


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.bin", BIN)
    return buffer.getvalue()


def tarred(mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("image.bin")
        entry.size = len(BIN)
        archive.addfile(entry, io.BytesIO(BIN))
    return buffer.getvalue()


CONTENT = {
    ".bin": BIN,
    ".zip": zipped(),
    ".gz": gzip.compress(BIN),
    ".tar": tarred(),
    ".tar.gz": tarred("w:gz"),
}


def upload(content: bytes = BIN, name: str = "image.bin") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)
