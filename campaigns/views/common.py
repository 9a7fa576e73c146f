"""What the pages of campaigns share: rows inside the account, and rendering in the console's frame."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.translation import gettext as _

from campaigns.models import Campaign
from firmware.models import Firmware
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import account_scope


def page(
    request: HttpRequest, template: str, title: str, *, nav: str, status: int = 200, **context: Any
) -> HttpResponse:
    """A page in the frame; `nav` is the key of the navigation item to mark."""
    return render(
        request, f"campaigns/{template}", page_context(request, title, nav=nav, **context), status=status
    )


def the_firmware(request: HttpRequest, pk: int) -> Firmware:
    """A firmware of the request's account, or 404."""
    rows = Firmware.objects.of(account_scope(request)).select_related("product")
    return get_object_or_404(rows, pk=pk)


def the_campaign(request: HttpRequest, pk: int) -> Campaign:
    """A campaign of the request's account, or 404."""
    rows = Campaign.objects.of(account_scope(request)).select_related(
        "firmware", "firmware__product", "product", "created_by"
    )
    return get_object_or_404(rows, pk=pk)


def live_config(
    socket: str, tabs: Mapping[int, Mapping[str, int]], *, watched: Sequence[str] = ()
) -> dict[str, Any]:
    """What live.js needs: where to listen, the counts {campaign: {tab: tasks}} it starts from, its words.

    `watched` are the tabs of which the page shows more than counts: it is fetched anew when one changes.
    """
    return {
        "socket": socket,
        "campaigns": {str(pk): counts for pk, counts in tabs.items()},
        "watched": watched,
        "zone": timezone.get_current_timezone_name(),
        "words": {
            "downloading": _("Downloading, reported just now."),
            "restart": _("Written; waiting for the restart and the report of the new version."),
            "connected": _("Live"),
            "lost": _("Connection lost; trying again"),
        },
    }


def whole_numbers(texts: Sequence[str]) -> list[int]:
    """Those of these texts that are ids."""
    return [int(text) for text in texts if text.isascii() and text.isdecimal() and len(text) < 19]


def sentences(error: ValidationError) -> str:
    return " ".join(str(message) for message in error.messages)
