"""Serving a firmware file to devices: ranges, never chunked, never compressed, one block of memory each.

Django's FileResponse answers 200 with the whole length to a Range request, and under ASGI it would read the
whole file first; so the streaming is ours.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from firmware.models import FirmwareFile
from firmware.storage import BLOCK, Blocks, object_storage, open_range

logger = logging.getLogger(__name__)

# Some modems write the unit in upper case, or leave an empty element of the list behind (RFC 9110, 5.6.1).
_ONE_RANGE = re.compile(r"bytes=[,\s]*([0-9]*)-([0-9]*)[,\s]*", re.ASCII | re.IGNORECASE)
# More digits than any file has bytes; Python refuses to read a number of thousands of them.
_DIGITS = 18
# nginx follows a redirect to the store at once; a moment more than that is plenty.
_ACCEL_LIFETIME = timedelta(minutes=5)
# Sent by the kernel in one go; how far a download got is known after each.
SLICE = 1024 * 1024
# Seconds between two words of how far a download got.
TELL_EVERY = 30

# Told the position in the file behind the last byte that was sent.
Reached = Callable[[int], Awaitable[None]]
# Told that the storage has no such file.
Lost = Callable[[], Awaitable[None]]


class ByteRange(NamedTuple):
    """Bytes `start` up to and including `last`."""

    start: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.start + 1


class UnsatisfiableRangeError(ValueError):
    """A well-formed range that has no byte in the file."""


def parse_range(header: str, size: int) -> ByteRange | None:
    """The one range that a Range header asks of `size` bytes (RFC 9110 14.1.2).

    None for what may be ignored: no header, several ranges, another unit, nonsense.
    Raises UnsatisfiableRangeError.
    """
    match = _ONE_RANGE.fullmatch(header.strip())
    if not match:
        return None
    first, last = map(_position, match.groups())
    if first is None:
        if last is None:
            return None
        if last == 0:
            raise UnsatisfiableRangeError(header)
        return ByteRange(max(0, size - last), size - 1)
    if last is not None and last < first:
        return None
    if first >= size:
        raise UnsatisfiableRangeError(header)
    return ByteRange(first, size - 1 if last is None else min(last, size - 1))


def _position(digits: str) -> int | None:
    """A number of a range; one that is longer than any file counts as the largest."""
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _DIGITS else 10**_DIGITS


def bare(status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    """A status that says everything: no body, and so no type of one."""
    response = HttpResponse(status=status, headers={"Content-Length": "0", **(headers or {})})
    del response["Content-Type"]
    return response


def _asked(request: HttpRequest, file: FirmwareFile) -> ByteRange | None:
    """The range asked for; If-Range with anything but our ETag asks for the whole file.

    nginx has an ETag of its own and settles If-Range itself.
    """
    theirs = request.headers.get("If-Range", etag(file))
    if theirs != etag(file) and not settings.OTA_X_ACCEL_PREFIX:
        return None
    return parse_range(request.headers.get("Range", ""), file.size)


def etag(file: FirmwareFile) -> str:
    """Strong, because a file never changes."""
    return f'"{file.sha256}"'


def _has_it(request: HttpRequest, file: FirmwareFile) -> bool:
    """Whether the client says that it has this very file (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    return etag(file) in tags or tags == ["*"]


def is_continuation(request: HttpRequest, file: FirmwareFile) -> bool:
    """Whether a request goes on with a download that was begun before, or only asks about the file."""
    if request.method == "HEAD" or _has_it(request, file):
        return True
    try:
        asked = _asked(request, file)
    except UnsatisfiableRangeError:
        return True
    return asked is not None and asked.start > 0


class FileResponse(StreamingHttpResponse):
    """A range of a stored file: as blocks, or as slices that a server can send without reading them."""

    is_sliced = False

    def __init__(self, stored: Blocks, part: ByteRange, reached: Reached, **options: Any) -> None:
        super().__init__(self._blocks(), **options)
        self.stored, self.part, self.reached = stored, part, reached
        self._told_at = time.monotonic()
        # Closed with the response, also when the client goes away before the first byte.
        self._resource_closers.append(stored.close)  # type: ignore[attr-defined]

    async def _blocks(self) -> AsyncIterator[bytes]:
        position = self.part.start
        while position <= self.part.last:
            block = await asyncio.to_thread(self.stored.read, min(BLOCK, self.part.last + 1 - position))
            if not block:
                # Content-Length was promised: the server closes the connection, and the device sees it.
                break
            position += len(block)
            yield block
            await self._tell(position)

    @property
    def file(self) -> Any:
        """The file of this machine that the bytes are in, or None."""
        return getattr(self.stored, "file", None)

    async def slices(self) -> AsyncIterator[tuple[int, int]]:
        """(offset, count) of `file`, one after the other as they are sent."""
        position = self.part.start
        while position <= self.part.last:
            count = min(SLICE, self.part.last + 1 - position)
            yield position, count
            position += count
            await self._tell(position)

    async def _tell(self, position: int) -> None:
        now = time.monotonic()
        if position > self.part.last or now >= self._told_at + TELL_EVERY:
            self._told_at = now
            await self.reached(position)


def _accelerated(file: FirmwareFile) -> str:
    """Where nginx takes the file that it sends itself: from the folder, or from the object store."""
    target = quote(file.file.name)
    if store := object_storage():
        address = urlsplit(store.presigned(file.file.name, _ACCEL_LIFETIME, public=False))
        target = f"{address.path.lstrip('/')}?{address.query}"
    return f"{settings.OTA_X_ACCEL_PREFIX}{target}"


async def _nothing(*args: object) -> None:
    """For who has nothing to be told."""


async def stream_file(
    request: HttpRequest, file: FirmwareFile, reached: Reached = _nothing, lost: Lost = _nothing
) -> HttpResponseBase:
    """Answer a GET or HEAD for a stored file: 200, 206, 304, 416, or 404 when the storage has lost it.

    The caller has decided that the file may be had. Content-Length is always there, and nothing is
    compressed: the C SDKs need both. `reached` is told from time to time how far the sending got, `lost` that
    the file is not there, or not of its size. Nothing of the database is held meanwhile.
    """
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": etag(file),
        # no-transform keeps proxies from compressing.
        "Cache-Control": "private, no-transform",
    }
    if settings.OTA_X_ACCEL_PREFIX:
        return HttpResponse(headers={**headers, "X-Accel-Redirect": _accelerated(file)})
    if _has_it(request, file):
        return bare(304, {"ETag": etag(file)})
    try:
        asked = _asked(request, file)
    except UnsatisfiableRangeError:
        return bare(416, {**headers, "Content-Range": f"bytes */{file.size}"})
    part = asked or ByteRange(0, file.size - 1)
    headers["Content-Length"] = str(part.length)
    if asked:
        headers["Content-Range"] = f"bytes {part.start}-{part.last}/{file.size}"
    status = 206 if asked else 200
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    try:
        stored = await asyncio.to_thread(open_range, file.file.name, part.start, part.length, file.size)
    except FileNotFoundError as error:
        logger.error("a file of firmware %s is lost: %s", file.firmware_id, error)
        await lost()
        return bare(404)
    except OSError:
        logger.exception("the file %s of firmware %s cannot be opened", file.file.name, file.firmware_id)
        return bare(503)
    return FileResponse(stored, part, reached, status=status, headers=headers)
