"""Downloads as device SDKs make them: HTTP/1.1 with Range, no redirects, one request a connection."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import urlsplit

BLOCK = 64 * 1024
TIMEOUT = 30.0  # to connect, and for each piece
RESUMES = 3  # attempts in a row that brought nothing new
RESUME_PAUSE = 1.0
_HEAD_LIMIT = 64 * 1024
_PORTS = {"http": 80, "https": 443}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


class DownloadFailed(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """The file cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Downloader:
    """`chunk`: bytes asked for at once; None asks for all that is left (`bytes=0-`), as the C SDKs do.

    With `exact_headers`, `Content-Length` must be spelled so: Link SDK compares it character by character.
    `pause` waits the given seconds before a broken download is resumed.
    """

    chunk: int | None = None
    exact_headers: bool = False
    tls: ssl.SSLContext | None = None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def blocks(self, url: str, size: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file announced with `size` bytes; more may come. Raises DownloadFailed."""
        offset = fruitless = 0
        while offset < size:
            last = None if self.chunk is None else min(offset + self.chunk, size) - 1
            before = offset
            try:
                async with aclosing(self._request(url, offset, last)) as blocks:
                    async for block in blocks:
                        offset += len(block)
                        yield block
            except OSError as error:  # also a time-out and a failed TLS handshake
                fruitless = 0 if offset > before else fruitless + 1
                if fruitless >= RESUMES:
                    raise DownloadFailed(str(error) or type(error).__name__) from None
                await self.pause(RESUME_PAUSE)
            else:
                if offset == before:
                    raise DownloadFailed("the answer is empty")

    async def _request(self, url: str, start: int, last: int | None) -> AsyncGenerator[bytes, None]:
        host, port, secure, target = _address(url)
        tls = (self.tls or ssl.create_default_context()) if secure else None
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_HEAD_LIMIT)
        try:
            wanted = f"bytes={start}-{'' if last is None else last}"
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: {host}\r\nRange: {wanted}\r\nAccept: */*\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            left = await self._read_head(reader, start)
            while left:
                async with asyncio.timeout(TIMEOUT):
                    block = await reader.read(min(left, BLOCK))
                if not block:
                    raise ConnectionError("the connection ended in the middle of the file")
                left -= len(block)
                yield block
        finally:
            writer.close()

    async def _read_head(self, reader: asyncio.StreamReader, start: int) -> int:
        """The length of the body that follows."""
        try:
            async with asyncio.timeout(TIMEOUT):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            raise ConnectionError("the connection ended before an answer") from None
        except asyncio.LimitOverrunError:
            raise DownloadFailed("the answer's head is too long") from None
        status_line, *lines = head.rstrip().split("\r\n")
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        spelled, fields = "Content-Length" in fields, {name.lower(): value for name, value in fields.items()}
        status = status_line.split(" ")[1:2]
        if status == ["206"]:
            matched = _CONTENT_RANGE.fullmatch(fields.get("content-range", ""))
            if matched is None or int(matched[1]) != start:
                raise DownloadFailed("the answer is for another range")
        elif status != ["200"] or start:
            raise DownloadFailed(f"the server answered {' '.join(status_line.split(' ')[1:])}"[:100])
        if "transfer-encoding" in fields or "content-encoding" in fields:
            raise DownloadFailed("the answer is encoded")
        length = fields.get("content-length", "")
        if not _LENGTH.fullmatch(length) or (self.exact_headers and not spelled):
            raise DownloadFailed("the answer has no Content-Length")
        return int(length)


def _address(url: str) -> tuple[str, int, bool, str]:
    """Host, port, whether TLS, and the request's target. Raises DownloadFailed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        (host or "").encode("ascii"), target.encode("ascii")
    except (ValueError, KeyError):
        host = None
    if not host or not target.isprintable() or " " in target:
        raise DownloadFailed("the address of the file cannot be used")
    return host, port, parts.scheme == "https", target
