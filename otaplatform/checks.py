"""System checks: wrong combinations of settings are said at start, with what to do."""

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  (Django's own name)
from django.core.management.base import BaseCommand, SystemCheckError
from django.db import connection
from django.utils.translation import gettext as _

PARTS_WITH_DATABASE = ("web", "gateway", "worker", "beat")
_DATABASES = ("django.db.backends.sqlite3", "django.db.backends.postgresql")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@register
def platform_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that is wrong with the settings of addresses, keys, data and devices."""
    return [*_addresses(), *_keys(), *_data(), *_devices()]


@register(Tags.database)
def database_connections(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether the pools of the parts fit into what PostgreSQL admits; asked by `migrate` and the doctor."""
    if "default" not in (databases or ()) or connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
        )
        [[admitted]] = cursor.fetchall()
    each = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    if len(PARTS_WITH_DATABASE) * each <= admitted:
        return []
    return [
        Warning(
            _("PostgreSQL admits %(admitted)d connections; %(count)d parts with %(each)d each may want more.")
            % {"admitted": admitted, "count": len(PARTS_WITH_DATABASE), "each": each},
            hint=_("Raise max_connections of PostgreSQL, or lower OTA_DATABASE_POOL."),
            id="otaplatform.W011",
        )
    ]


def refuse_wrong_settings() -> None:
    """End a start that is not a management command (those check by themselves): SystemExit."""
    try:
        BaseCommand().check()
    except SystemCheckError as error:
        raise SystemExit(str(error)) from None


def _addresses() -> Iterator[CheckMessage]:
    public_host = urlsplit(settings.OTA_PUBLIC_URL).hostname or ""
    if not is_loopback(settings.OTA_BIND) and is_loopback(public_host):
        yield Error(
            _("OTA_BIND lets other machines in, but OTA_PUBLIC_URL does not say how they reach this one."),
            hint=_("Set OTA_PUBLIC_URL to the address that browsers and devices use: http://192.0.2.10"),
            id="otaplatform.E001",
        )
    address = urlsplit(settings.OTA_PUBLIC_URL)
    if address.path or address.query or address.fragment or address.username:
        yield Error(
            _("OTA_PUBLIC_URL has more than a scheme and a host."),
            hint=_("The console always lives at the root of its address: https://ota.example.com"),
            id="otaplatform.E002",
        )
    if settings.SECURE_SSL_REDIRECT and (address.scheme != "https" or not settings.SECURE_PROXY_SSL_HEADER):
        yield Error(
            _("OTA_SSL_REDIRECT would send every request in a circle."),
            hint=_("It needs a proxy that speaks HTTPS: OTA_PUBLIC_URL=https://… and OTA_BEHIND_PROXY=1."),
            id="otaplatform.E010",
        )


def _keys() -> Iterator[CheckMessage]:
    for number, key in enumerate(settings.OTA_ENCRYPTION_KEYS, start=1):
        try:
            Fernet(key)
        except ValueError:
            yield Error(
                _("Key %(number)d of OTA_ENCRYPTION_KEYS is not a Fernet key.") % {"number": number},
                hint=_(
                    "A key is 32 bytes in URL-safe base64. Without the key that encrypted them, "
                    "the secrets of products and devices cannot be read."
                ),
                id="otaplatform.E003",
            )
    keys_dir: Path = settings.KEYS_DIR
    for path in sorted(keys_dir.glob("*")) if keys_dir.is_dir() else []:
        if path.stat().st_mode & 0o077:
            yield Warning(
                _("Other users of this machine can read %(path)s.") % {"path": path},
                hint=_("chmod 600 %(path)s") % {"path": path},
                id="otaplatform.W004",
            )


def _data() -> Iterator[CheckMessage]:
    engine = settings.DATABASES["default"]["ENGINE"]
    if engine not in _DATABASES:
        yield Error(
            _("DATABASE_URL names a database that is not supported."),
            hint=_("Use postgres://… for production, or leave it empty for SQLite."),
            id="otaplatform.E005",
        )
    redis_host = urlsplit(settings.REDIS_URL).hostname or "localhost"
    broker_host = urlsplit(settings.MQTT_URL).hostname or "localhost"
    if engine == _DATABASES[0] and not (is_loopback(redis_host) and is_loopback(broker_host)):
        yield Warning(
            _("SQLite is for one machine, but Redis or the MQTT broker is on another."),
            hint=_("If parts of the platform run on several machines, set DATABASE_URL to PostgreSQL."),
            id="otaplatform.W006",
        )


def _devices() -> Iterator[CheckMessage]:
    for name in (
        "OTA_LOGIN_WAIT_MINUTES",
        "SESSION_COOKIE_AGE",
        "OTA_TOKEN_MAX_DAYS",
    ):
        if getattr(settings, name) < 1:
            shown = {"SESSION_COOKIE_AGE": "OTA_SESSION_HOURS"}.get(name, name)
            yield Error(
                _("%(name)s must be at least 1.") % {"name": shown},
                hint=_("Unset it for the usual value; at 0 nobody could log in."),
                id="otaplatform.E011",
            )
    for name in ("OTA_HTTP_ONLINE_MINUTES", "OTA_HTTP_TOKEN_DAYS"):
        if getattr(settings, name) < 1:
            yield Error(
                _("%(name)s must be at least 1.") % {"name": name},
                hint=_("Unset it for the usual value; at 0 no device on HTTPS would get anywhere."),
                id="otaplatform.E009",
            )
    if settings.MQTT_URL and urlsplit(settings.MQTT_URL).scheme not in ("mqtt", "mqtts"):
        yield Error(
            _("MQTT_URL must begin with mqtt:// or mqtts://"),
            hint=_("For example mqtt://user:password@broker.example.com:1883"),
            id="otaplatform.E007",
        )
    elif settings.MQTT_URL:
        yield Error(
            _("MQTT_URL names a broker that cannot authenticate devices with this platform."),
            hint=_(
                "Such a broker reports no connections, and would accept anybody's report for any device. "
                "Unset MQTT_URL: the gateway then runs its own broker."
            ),
            id="otaplatform.E010",
        )
    if settings.OTA_MQTT_TLS_PORT and not settings.MQTT_URL:
        for name in ("OTA_MQTT_TLS_CERT", "OTA_MQTT_TLS_KEY"):
            if not os.access(getattr(settings, name), os.R_OK):
                yield Error(
                    _("OTA_MQTT_TLS_PORT is set, but %(name)s names no readable file.") % {"name": name},
                    hint=_("Give the paths of a certificate chain and of its key, both in PEM."),
                    id="otaplatform.E008",
                )
