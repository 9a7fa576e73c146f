"""System checks of the settings that this app reads, each with what to do."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.apps.config import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from firmware.links import MAX_URL, PATH, TOKEN_CHARS

_STORES = ("folder", "s3")


@register
def firmware_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that is wrong with the settings of links, storage and limits."""
    return [*_links(), *_storage(), *_limits()]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _links() -> Iterator[CheckMessage]:
    address = urlsplit(settings.OTA_DOWNLOAD_URL)
    if address.scheme not in ("http", "https") or not address.hostname:
        yield Error(
            "OTA_DOWNLOAD_URL is not the address of a website.",
            hint="Write it like https://ota.example.com",
            id="firmware.E001",
        )
        return
    if address.port and not _is_loopback(address.hostname):
        yield checks.Warning(
            "OTA_DOWNLOAD_URL names a port.",
            hint="Link SDK up to 4.1 and iotkit take host:port for a name and cannot download. "
            "Let a proxy listen on port 80 or 443 and leave the port out.",
            id="firmware.W002",
        )
    room = MAX_URL - len(f"/{PATH}/") - TOKEN_CHARS
    if len(settings.OTA_DOWNLOAD_URL) > room:
        yield Error(
            "OTA_DOWNLOAD_URL is too long: devices keep the address of a download in 255 bytes.",
            hint=f"Use at most {room} characters.",
            id="firmware.E003",
        )


def _storage() -> Iterator[CheckMessage]:
    if settings.OTA_STORAGE not in _STORES:
        yield Error(
            f"OTA_STORAGE is {settings.OTA_STORAGE!r}.",
            hint=f"Use one of: {', '.join(_STORES)}.",
            id="firmware.E004",
        )
    if settings.OTA_STORAGE == "s3" and len(settings.OTA_S3_BUCKET) < 3:
        yield Error(
            "OTA_STORAGE is s3, but OTA_S3_BUCKET names no bucket.",
            hint="Set OTA_S3_BUCKET, and OTA_S3_ENDPOINT unless the bucket is at Amazon.",
            id="firmware.E005",
        )
    prefix = settings.OTA_X_ACCEL_PREFIX
    if prefix and not (prefix.startswith("/") and prefix.endswith("/")):
        yield Error(
            "OTA_X_ACCEL_PREFIX must begin and end with a slash.",
            hint="It is the internal location in nginx's configuration, for example /_firmware/",
            id="firmware.E006",
        )


def _limits() -> Iterator[CheckMessage]:
    for name in ("OTA_MAX_FIRMWARE_MB", "OTA_MAX_FIRMWARE_FILES", "OTA_LINK_HOURS"):
        if getattr(settings, name) < 1:
            yield Error(f"{name} must be at least 1.", id="firmware.E007")
