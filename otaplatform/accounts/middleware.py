"""Each person's own language and time zone, on every page."""

from collections.abc import Callable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation

ZONE_COOKIE = "time_zone"


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def preferences(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The user's stored language and zone; before login the browser's (its zone comes as a cookie)."""

    def middleware(request: HttpRequest) -> HttpResponse:
        user = request.user
        language = getattr(user, "language", "")
        if language:
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language() or language
        zone = _zone(getattr(user, "time_zone", "")) or _zone(request.COOKIES.get(ZONE_COOKIE, ""))
        with timezone.override(zone):
            return get_response(request)

    return middleware
