"""The push as a device reads it, and the checks it makes on what it has downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

DEFAULT_MODULE = "default"
_HASHES = {"Md5": "md5", "SHA256": "sha256"}  # spelled exactly so: the SDKs know no other spelling


@dataclass(frozen=True, slots=True)
class RemoteFile:
    url: str
    size: int  # bytes
    digest: str  # hex


@dataclass(frozen=True, slots=True)
class Package:
    """`hash_name` is hashlib's name of the digests' method; `digestsign` is base64, or empty."""

    version: str
    module: str
    hash_name: str
    files: tuple[RemoteFile, ...]
    digestsign: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def read_push(payload: bytes, md5_only: bool = False) -> Package | None:
    """The package of a push, or of an answer to a pull; None for what the SDKs would ignore.

    `md5_only`: as iotkit-embedded, which reads `md5` whatever `signMethod` says.
    """
    try:
        data = json.loads(payload)["data"]
        hash_name = "md5" if md5_only else _HASHES[data["signMethod"]]
        files = tuple(_read_files(data, "md5" if md5_only else "sign"))
        module = _text(data.get("module", DEFAULT_MODULE))
        package = Package(_text(data["version"]), module, hash_name, files, str(data.get("digestsign", "")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return package if files else None


def _read_files(data: Any, digest: str) -> list[RemoteFile]:
    if "files" not in data:
        return [RemoteFile(_text(data["url"]), _size(data["size"]), _text(data[digest]))]
    name = f"file{digest.capitalize()}"
    return [
        RemoteFile(_text(each["fileUrl"]), _size(each["fileSize"]), _text(each[name]))
        for each in data["files"]
    ]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    value.encode()  # a lone surrogate raises ValueError
    return value


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("not a size")
    return value


class Check:
    """Takes a file's bytes as they come and says at the end whether it is the announced one."""

    def __init__(self, package: Package, file: RemoteFile) -> None:
        self._file = file
        self._digestsign = package.digestsign
        self._hash = hashlib.new(package.hash_name, usedforsecurity=False)
        self._size = 0

    def feed(self, block: bytes) -> None:
        self._size += len(block)
        self._hash.update(block)

    def fault(self, public_key: RSAPublicKey | None = None) -> str | None:
        """What is wrong with the file, in a few words; None if nothing is."""
        if self._size != self._file.size:
            return f"{self._size} bytes instead of {self._file.size}"
        if self._hash.hexdigest() != self._file.digest:
            return f"the {self._hash.name} digest differs"
        if public_key is not None and not self._is_signed(public_key):
            return "OTA verify RSA failed"
        return None

    def _is_signed(self, public_key: RSAPublicKey) -> bool:
        """As AliOS Things: over SHA-256 of the raw digest, whichever method made that."""
        try:
            signature = base64.b64decode(self._digestsign, validate=True)
            public_key.verify(signature, self._hash.digest(), PKCS1v15(), SHA256())
        except (ValueError, InvalidSignature):
            return False
        return True
