"""Each person's own language and time zone on every page, and the password that must be changed first."""

from collections.abc import Callable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import resolve
from django.utils import timezone, translation

from otaplatform.accounts.models import User

ZONE_COOKIE = "time_zone"


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def preferences(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The user's stored language and zone; before login the browser's (its zone comes as a cookie).

    A user who has no zone yet takes the browser's for good.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        user = request.user
        language = getattr(user, "language", "")
        if language:
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language() or language
        zone = _zone(getattr(user, "time_zone", ""))
        if zone is None:
            zone = _zone(request.COOKIES.get(ZONE_COOKIE, ""))
            if zone and isinstance(user, User):
                User.objects.filter(pk=user.pk, time_zone="").update(time_zone=zone.key)
        with timezone.override(zone):
            return get_response(request)

    return middleware


# What somebody may still do who has to change the password first.
_FREE = {"password_change", "password_change_done", "logout", "login", "jsi18n", "set_language"}


def password_first(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """A user whose password was set by somebody else opens no page before changing it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if (
            getattr(request.user, "must_change_password", False)
            and resolve(request.path).url_name not in _FREE
        ):
            return redirect("admin:password_change")
        return get_response(request)

    return middleware
