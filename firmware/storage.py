"""Reading stored files piece by piece, from a folder or from an object store."""

from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol, cast

from django.core.files.storage import default_storage
from storages.backends.s3 import S3Storage

BLOCK = 128 * 1024


class Blocks(Protocol):
    """The bytes of a stored file; an empty block is the end."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class ObjectStorage(S3Storage):  # type: ignore[misc]  # django-storages is untyped
    """A bucket of an S3 API. Devices reach it, if at all, under another address than we do."""

    def __init__(self, public_endpoint: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.public_endpoint = public_endpoint
        self._options = options

    @cached_property
    def _outside(self) -> S3Storage:
        """The same bucket as devices see it: a signature covers the host name."""
        return S3Storage(**{**self._options, "endpoint_url": self.public_endpoint})

    def presigned(self, name: str, lifetime: timedelta, *, public: bool) -> str:
        """An address that opens this object alone for a time; made without asking the store."""
        storage = self._outside if public else self
        return cast("str", storage.url(name, expire=int(lifetime.total_seconds())))

    def open_range(self, name: str, start: int, length: int) -> Blocks:
        """Only the bytes asked for: S3Storage.open would fetch the whole object first."""
        client = self.connection.meta.client
        try:
            answer = client.get_object(
                Bucket=self.bucket_name,
                Key=self._normalize_name(name),
                Range=f"bytes={start}-{start + length - 1}",
            )
        except client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(name) from error
        return cast("Blocks", answer["Body"])


def object_storage() -> ObjectStorage | None:
    """The object store, if files are kept in one."""
    storage: object = default_storage
    return storage if isinstance(storage, ObjectStorage) else None


def open_range(name: str, start: int, length: int, size: int) -> Blocks:
    """The bytes of a stored file of `size` bytes from `start`; the reader stops after `length`.

    FileNotFoundError if the file is gone, or is not of that size any more.
    """
    if store := object_storage():
        return store.open_range(name, start, length)
    stored = default_storage.open(name, "rb")
    if stored.size != size:
        stored.close()
        raise FileNotFoundError(f"{name} has {stored.size} bytes instead of {size}")
    stored.seek(start)
    return cast("Blocks", stored)
