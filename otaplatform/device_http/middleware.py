"""Answers devices before any middleware of the console sees the request.

Link SDK C 4.x reads each header line into 128 bytes, and AliOS Things 3.x wants the whole header within 512:
one header of the console's (its Content-Security-Policy has 147) and no download ever starts.
"""

import logging
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, cast

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.decorators import sync_and_async_middleware

from firmware.download import bare
from firmware.links import PATH

logger = logging.getLogger(__name__)

_URLS = "otaplatform.device_http.urls"
# The console has pages below /auth/.
_EXACT = frozenset({f"/{PATH}", "/auth", "/topic"})
_BELOW = (f"/{PATH}/", "/topic/")


def is_device_path(path: str) -> bool:
    """Whether an address belongs to devices, so that nothing of the console may answer it."""
    return path in _EXACT or path.startswith(_BELOW)


@sync_and_async_middleware
def device_requests(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Device paths get what their view says and nothing else: no redirect, no HTML, no console header."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponseBase:
            if is_device_path(request.path_info):
                return await _answer(request)
            return cast("HttpResponseBase", await get_response(request))

        return middleware

    def sync_middleware(request: HttpRequest) -> HttpResponseBase:
        if is_device_path(request.path_info):
            return async_to_sync(_answer)(request)
        return cast("HttpResponseBase", get_response(request))

    return sync_middleware


async def _answer(request: HttpRequest) -> HttpResponseBase:
    try:
        view, arguments, named = resolve(request.path_info, _URLS)
        called = view if iscoroutinefunction(view) else sync_to_async(view)
        response = cast("HttpResponseBase", await called(request, *arguments, **named))
    except Resolver404:
        response = bare(404)
    except Exception:
        # The address may hold the token of a download, so it is not logged.
        logger.exception("a device's request to /%s could not be answered", request.path_info.split("/")[1])
        response = bare(500)
    if isinstance(response, HttpResponse) and "Content-Length" not in response:
        response["Content-Length"] = str(len(response.content))
    # Django would log the address of what is refused.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
