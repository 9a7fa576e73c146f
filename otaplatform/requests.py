"""Requests whose length is that of the body which arrived.

Django and Django REST framework take a request without Content-Length for one without a body. A body that is
sent in chunks (RFC 9112, 7.1) has no such header, so it would be read over.
"""

import io
from typing import IO, Any

import django
from django.core.handlers.asgi import ASGIHandler, ASGIRequest


class MeasuredRequest(ASGIRequest):
    """CONTENT_LENGTH is measured: Django has the whole body before it makes the request."""

    def __init__(self, scope: dict[str, Any], body_file: IO[bytes]) -> None:
        super().__init__(scope, body_file)
        length = body_file.seek(0, io.SEEK_END)
        body_file.seek(0)
        if length or {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & set(self.META):
            self.META["CONTENT_LENGTH"] = str(length)


class Handler(ASGIHandler):
    """Django's handler, making measured requests."""

    request_class = MeasuredRequest


def application() -> Handler:
    """What `django.core.asgi.get_asgi_application` makes, with our requests."""
    django.setup(set_prefix=False)
    return Handler()
