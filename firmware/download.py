"""Serving a firmware file to devices: ranges, never chunked, never compressed, one block of memory each.

Django's FileResponse answers 200 with the whole length to a Range request, and under ASGI it would read the
whole file first; so the streaming is ours.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from firmware.models import FirmwareFile
from firmware.storage import BLOCK, Blocks, object_storage, open_range

logger = logging.getLogger(__name__)

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
# nginx follows a redirect to the store at once; a moment more than that is plenty.
_ACCEL_LIFETIME = timedelta(minutes=5)


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
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0:
            raise UnsatisfiableRangeError(header)
        return ByteRange(max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError(header)
    return ByteRange(int(first), min(int(last), size - 1) if last else size - 1)


def _asked(request: HttpRequest, file: FirmwareFile) -> ByteRange | None:
    """The range asked for; If-Range with anything but our ETag asks for the whole file."""
    if request.headers.get("If-Range", etag(file)) != etag(file):
        return None
    return parse_range(request.headers.get("Range", ""), file.size)


def etag(file: FirmwareFile) -> str:
    """Strong, because a file never changes."""
    return f'"{file.sha256}"'


def is_continuation(request: HttpRequest, file: FirmwareFile) -> bool:
    """Whether a request goes on with a download that was begun before, or only asks about the file."""
    if request.method == "HEAD":
        return True
    try:
        asked = _asked(request, file)
    except UnsatisfiableRangeError:
        return True
    return asked is not None and asked.start > 0


async def _blocks(stored: Blocks, length: int) -> AsyncIterator[bytes]:
    left = length
    while left > 0 and (block := await asyncio.to_thread(stored.read, min(BLOCK, left))):
        left -= len(block)
        yield block


def _accelerated(file: FirmwareFile) -> str:
    """Where nginx takes the file that it sends itself: from the folder, or from the object store."""
    target = quote(file.file.name)
    if store := object_storage():
        address = urlsplit(store.presigned(file.file.name, _ACCEL_LIFETIME, public=False))
        target = f"{address.path.lstrip('/')}?{address.query}"
    return f"{settings.OTA_X_ACCEL_PREFIX}{target}"


async def stream_file(request: HttpRequest, file: FirmwareFile) -> HttpResponseBase:
    """Answer a GET or HEAD for a stored file: 200, 206, 416, or 404 when the storage has lost it.

    The caller has decided that the file may be had. Content-Length is always there, and nothing is
    compressed: the C SDKs need both.
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
    try:
        asked = _asked(request, file)
    except UnsatisfiableRangeError:
        refusal = {"Content-Range": f"bytes */{file.size}", "Content-Length": "0"}
        return HttpResponse(status=416, headers={**headers, **refusal})
    part = asked or ByteRange(0, file.size - 1)
    headers["Content-Length"] = str(part.length)
    if asked:
        headers["Content-Range"] = f"bytes {part.start}-{part.last}/{file.size}"
    status = 206 if asked else 200
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    try:
        stored = await asyncio.to_thread(open_range, file.file.name, part.start, part.length)
    except OSError:
        logger.exception("the file %s of firmware %s cannot be opened", file.file.name, file.firmware_id)
        return HttpResponse(status=404)
    response: Any = StreamingHttpResponse(_blocks(stored, part.length), status=status, headers=headers)
    # Closed with the response, also when the client goes away before the first byte.
    response._resource_closers.append(stored.close)
    return cast("HttpResponseBase", response)
