"""Download links for devices: unguessable, expiring, and short enough for the 256-byte buffers of the C SDKs.

A link names one update task and one file. It carries no port and no query of its own; the whole address
stays under 255 characters as long as OTA_DOWNLOAD_URL does its part (`firmware.checks`).
"""

import base64
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from firmware.models import FirmwareFile
from firmware.storage import object_storage

PATH = "f"
# Link SDK keeps the length of an address in eight bits, the others keep 256 bytes with their NUL.
MAX_URL = 254
# Big-endian: the task, the file, and when the link was made, in microseconds since 1970.
_TASK_BYTES, _FILE_BYTES, _TIME_BYTES = 8, 5, 7
_CLAIMS_BYTES = _TASK_BYTES + _FILE_BYTES + _TIME_BYTES
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAC_BYTES = 16
TOKEN_CHARS = 4 * (_CLAIMS_BYTES + _MAC_BYTES) // 3
# One spelling per link: Python's decoder takes the ordinary alphabet's + and / for - and _ as well.
_TOKEN = re.compile(f"[A-Za-z0-9_-]{{{TOKEN_CHARS}}}")


class LinkClaims(NamedTuple):
    """What a valid link says: this file may be fetched for this update task, pushed at this time."""

    task_id: int
    file_id: int
    issued_at: datetime


def _mac(claims: bytes, secret: str | bytes) -> bytes:
    return salted_hmac("firmware.links", claims, secret=secret, algorithm="sha256").digest()[:_MAC_BYTES]


def make_token(task_id: int, file_id: int, issued_at: datetime) -> str:
    """The last part of a link: base64url of (task, file, time of issue) and a 128-bit HMAC."""
    claims = (
        task_id.to_bytes(_TASK_BYTES, "big")
        + file_id.to_bytes(_FILE_BYTES, "big")
        + ((issued_at - _EPOCH) // _MICROSECOND).to_bytes(_TIME_BYTES, "big")
    )
    return base64.urlsafe_b64encode(claims + _mac(claims, settings.SECRET_KEY)).decode()


def read_link(token: str, now: datetime | None = None) -> LinkClaims | None:
    """The claims of a token that we made at most OTA_LINK_HOURS ago, else None."""
    if not _TOKEN.fullmatch(token):
        return None
    raw = base64.urlsafe_b64decode(token)
    claims, mac = raw[:_CLAIMS_BYTES], raw[_CLAIMS_BYTES:]
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if not any(hmac.compare_digest(mac, _mac(claims, secret)) for secret in secrets):
        return None
    task_id, file_id, issued = (
        int.from_bytes(claims[start:end], "big")
        for start, end in (
            (0, _TASK_BYTES),
            (_TASK_BYTES, _TASK_BYTES + _FILE_BYTES),
            (_TASK_BYTES + _FILE_BYTES, _CLAIMS_BYTES),
        )
    )
    issued_at = _EPOCH + issued * _MICROSECOND
    if issued_at + timedelta(hours=settings.OTA_LINK_HOURS) < (now or timezone.now()):
        return None
    return LinkClaims(task_id, file_id, issued_at)


def names_port() -> bool:
    """Whether links name a port: Link SDK up to 4.1 and iotkit take `host:port` for a name, and find none."""
    return urlsplit(settings.OTA_DOWNLOAD_URL).port is not None


def make_link(task_id: int, file: FirmwareFile, now: datetime | None = None) -> str:
    """The address that goes into a push; valid for OTA_LINK_HOURS. No database or network is touched.

    With an object store whose public endpoint is set, a pre-signed address of the store itself, where that is
    short enough for the devices; otherwise ours.
    """
    lifetime = timedelta(hours=settings.OTA_LINK_HOURS)
    store = object_storage()
    if store and store.public_endpoint:
        address = store.presigned(file.file.name, lifetime, public=True)
        if len(address) <= MAX_URL:
            return address
    token = make_token(task_id, file.pk, now or timezone.now())
    return f"{settings.OTA_DOWNLOAD_URL}/{PATH}/{token}"
