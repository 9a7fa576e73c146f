"""The largest request body that is taken, refused while it arrives.

Django puts a whole body on disk before any view sees it, so this stands in front of Django.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_SENTENCE = b"The request is larger than this server takes.\n"


class _TooLargeError(Exception):
    """More arrived than is taken."""


class BodyLimit:
    """An ASGI application in front of another: bodies of more than `limit` bytes are answered with 413.

    `limits` says of paths where less is taken.
    """

    def __init__(
        self, application: Application, limit: int, limits: Callable[[str], int | None] = lambda path: None
    ) -> None:
        self.application = application
        self.limit = limit
        self.limits = limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        limit = self.limits(scope.get("path", "")) or self.limit
        left = limit

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLargeError
            return message

        try:
            if _declared(scope) > limit:
                raise _TooLargeError
            await self.application(scope, limited, send)
        except _TooLargeError:
            await _refuse(send)


def _declared(scope: Message) -> int:
    text: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(_SENTENCE)).encode()),
        # What is still under way is not read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": _SENTENCE})
