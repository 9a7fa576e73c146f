"""Requests as Django would not take them: bodies in chunks, and addresses that name the host.

Django and Django REST framework take a request without Content-Length for one without a body. A body that is
sent in chunks (RFC 9112, 7.1) has no such header, so it would be read over. Gateways of mobile networks send
the absolute form of an address to servers too (RFC 9112, 3.2.2).
"""

import io
import re
from collections.abc import Awaitable, Callable
from typing import IO, Any
from urllib.parse import unquote

import django
from django.core.handlers.asgi import ASGIHandler, ASGIRequest

# The extension of ASGI by which a server sends a file that it is only told of.
ZERO_COPY = "http.response.zerocopysend"


class MeasuredRequest(ASGIRequest):
    """CONTENT_LENGTH is measured: Django has the whole body before it makes the request."""

    def __init__(self, scope: dict[str, Any], body_file: IO[bytes]) -> None:
        super().__init__(scope, body_file)
        length = body_file.seek(0, io.SEEK_END)
        body_file.seek(0)
        if length or {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & set(self.META):
            self.META["CONTENT_LENGTH"] = str(length)


class Handler(ASGIHandler):
    """Django's handler, making measured requests; leaves files to a server that can send them itself."""

    request_class = MeasuredRequest

    async def run_get_response(self, request: Any) -> Any:
        response: Any = await super().run_get_response(request)
        # `firmware.download.FileResponse`, which cannot be imported before the app registry is there.
        if ZERO_COPY in request.scope.get("extensions", {}) and getattr(response, "file", None) is not None:
            response.is_sliced = True
        return response

    async def send_response(self, response: Any, send: Any) -> None:
        if not getattr(response, "is_sliced", False):
            await super().send_response(response, send)
            return
        headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for offset, count in response.slices():
            await send({"type": ZERO_COPY, "file": response.file, "offset": offset, "count": count})
        await send({"type": "http.response.body", "body": b""})


def application() -> Handler:
    """What `django.core.asgi.get_asgi_application` makes, with our requests."""
    django.setup(set_prefix=False)
    return Handler()


_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class OriginForm:
    """An ASGI application in front of another, which sees `/path` where `http://host/path` was asked for."""

    def __init__(self, application: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if absolute := _ABSOLUTE.fullmatch(scope.get("raw_path") or b""):
            host, path = absolute.groups()
            path = path or b"/"
            # The host of the address counts, whatever the header says.
            headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {
                **scope,
                "raw_path": path,
                "path": unquote(path.decode("ascii")),
                "headers": [(b"host", host), *headers],
            }
        await self.application(scope, receive, send)
