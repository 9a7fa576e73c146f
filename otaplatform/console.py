"""The frame of the console: navigation, what the header shows, and the dashboard."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy
from redis.exceptions import RedisError

from devices import fleet
from otaplatform.accounts.models import Account
from otaplatform.accounts.scope import account_scope
from otaplatform.models import Heartbeat

logger = logging.getLogger(__name__)

T = TypeVar("T")
ONLINE_SECONDS = 10
ACCOUNTS_SHOWN = 200
# A gateway that is silent for so long receives nothing that could be counted.
GATEWAY_SILENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Item:
    """A page of the side navigation. `view` is a URL name; shown if it resolves and the user may see it."""

    key: str
    label: str | Promise
    view: str
    permission: str = ""
    superuser: bool = False


# Heading (may be empty) -> items, in their order.
NAVIGATION: list[tuple[str | Promise, list[Item]]] = [
    ("", [Item("dashboard", _("Dashboard"), "admin:index")]),
    (
        pgettext_lazy("navigation", "Devices"),
        [
            Item("products", _("Products"), "admin:devices_product_changelist", "devices.view_product"),
            Item("devices", _("Devices"), "admin:devices_device_changelist", "devices.view_device"),
        ],
    ),
    (
        _("Maintenance"),
        [
            Item("firmware", _("Firmware Update"), "firmware:list", "firmware.view_firmware"),
            Item("versions", _("Versions"), "campaigns:versions", "devices.view_device"),
            Item("batches", _("Update batches"), "campaigns:list", "campaigns.view_campaign"),
        ],
    ),
    (
        _("System"),
        [
            Item("accounts", _("Accounts"), "admin:accounts_account_changelist", superuser=True),
            Item("users", _("Users"), "admin:accounts_user_changelist", "accounts.view_user"),
            Item("groups", _("Groups"), "admin:auth_group_changelist", "auth.view_group"),
            Item(
                "accesskeys",
                _("Access keys"),
                "admin:accounts_accesskey_changelist",
                "accounts.view_accesskey",
            ),
            Item(
                "periodic",
                _("Periodic tasks"),
                "admin:django_celery_beat_periodictask_changelist",
                superuser=True,
            ),
            Item("webhooks", _("Webhooks"), "webhooks:list", "api.view_webhook"),
            Item("tokens", _("API tokens"), "tokens:list"),
            Item(
                "logins",
                _("Failed log-ins"),
                "admin:accounts_logincounter_changelist",
                "accounts.view_logincounter",
            ),
            Item("audit", _("Audit log"), "admin:accounts_auditentry_changelist", "accounts.view_auditentry"),
        ],
    ),
]


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups of the side navigation that this user may see; `here` marks the item of this address."""
    groups: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    for heading, items in NAVIGATION:
        shown = []
        for item in items:
            if (item.superuser and not request.user.is_superuser) or (
                item.permission and not request.user.has_perm(item.permission)
            ):
                continue
            try:
                url = reverse(item.view)
            except NoReverseMatch:
                continue
            entry: dict[str, Any] = {"key": item.key, "label": item.label, "url": url, "here": False}
            shown.append(entry)
            fits = request.path == url if item.key == "dashboard" else request.path.startswith(url)
            if fits and (best is None or len(url) > len(best["url"])):
                best = entry
        if shown:
            groups.append({"heading": heading, "items": shown})
    if best:
        best["here"] = True
    return groups


def scope_or_nothing(request: HttpRequest) -> tuple[Account | None, bool]:
    """(account, may see anything): for the frame, which is drawn even for somebody without an account."""
    try:
        return account_scope(request), True
    except PermissionDenied:
        return None, False


def cached(key: str, seconds: int, compute: Callable[[], T]) -> T:
    """A value that may be some seconds old. A cache that is down costs time, never a page."""
    try:
        found: T | None = cache.get(key)
        if found is not None:
            return found
        value = compute()
        cache.set(key, value, seconds)
    except (RedisError, OSError):
        logger.warning("The cache does not answer; computing %s anew.", key)
        return compute()
    return value


def online_count(account: Account | None) -> int:
    """Connected devices of an account (None: of all), at most some seconds old."""
    return cached(f"online:{account.pk if account else 0}", ONLINE_SECONDS, lambda: fleet.online(account))


def frame(request: HttpRequest) -> dict[str, Any]:
    """The header: the account that is looked at, those to choose from, devices online, the time zone."""
    account, sees = scope_or_nothing(request)
    return {
        "account": account,
        "accounts": Account.objects.all()[:ACCOUNTS_SHOWN] if request.user.is_superuser else [],
        "online": online_count(account) if sees and request.user.has_perm("devices.view_device") else None,
        "zone": timezone.get_current_timezone_name(),
    }


def context(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page; what the frame alone needs is computed when it asks."""
    return {
        "platform_version": settings.OTA_VERSION,
        "navigation": functools.partial(navigation, request),
        "frame": functools.partial(frame, request),
    }


def dashboard(request: HttpRequest) -> dict[str, Any]:
    """What the dashboard shows of the fleet; the updates' part is `campaigns/dashboard.html`'s own."""
    account, sees = scope_or_nothing(request)
    if not sees or not request.user.has_perm("devices.view_device"):
        return {"fleet": None}
    shown = {
        "totals": fleet.totals(account),
        "online": online_count(account),
        "reports": reports_per_minute(account),
    }
    return {"fleet": shown, "account": account}


def reports_per_minute(account: Account | None, now: datetime | None = None) -> int | None:
    """What the gateway received in the last minute; None where it is down, or where it would tell of others.

    The gateway counts the messages of all accounts together, so a tenant among several is not shown them.
    """
    if account is not None and Account.objects.exclude(pk=account.pk).exists():
        return None
    recent = (now or timezone.now()) - GATEWAY_SILENCE
    detail = Heartbeat.objects.filter(name="gateway", at__gte=recent).values_list("detail", flat=True).first()
    return None if detail is None else int(detail.get("last_minute", 0))
