"""Download links for devices: unguessable, expiring, and short enough for the 256-byte buffers of the C SDKs.

A link names one update task and one file. It carries no port and no query of its own; the whole address
stays under 255 characters as long as OTA_PUBLIC_URL does its part (`firmware.checks`).
"""

import base64
import hmac
import re
import struct
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from firmware.models import FirmwareFile
from firmware.storage import object_storage

PATH = "f"
# Link SDK keeps the length of an address in eight bits, the others keep 256 bytes with their NUL.
MAX_URL = 254
_CLAIMS = struct.Struct(">QQI")
_MAC_BYTES = 16
TOKEN_CHARS = 4 * (_CLAIMS.size + _MAC_BYTES) // 3
# One spelling per link: Python's decoder takes the ordinary alphabet's + and / for - and _ as well.
_TOKEN = re.compile(f"[A-Za-z0-9_-]{{{TOKEN_CHARS}}}")


class LinkClaims(NamedTuple):
    """What a valid link says: this file may be fetched for this update task."""

    task_id: int
    file_id: int


def _mac(claims: bytes, secret: str | bytes) -> bytes:
    return salted_hmac("firmware.links", claims, secret=secret, algorithm="sha256").digest()[:_MAC_BYTES]


def make_token(task_id: int, file_id: int, expires: datetime) -> str:
    """The last part of a link: base64url of (task, file, expiry in epoch seconds) and a 128-bit HMAC."""
    claims = _CLAIMS.pack(task_id, file_id, int(expires.timestamp()))
    return base64.urlsafe_b64encode(claims + _mac(claims, settings.SECRET_KEY)).decode()


def read_link(token: str, now: datetime | None = None) -> LinkClaims | None:
    """The claims of a token that we made and that has not expired, else None."""
    if not _TOKEN.fullmatch(token):
        return None
    raw = base64.urlsafe_b64decode(token)
    claims, mac = raw[: _CLAIMS.size], raw[_CLAIMS.size :]
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if not any(hmac.compare_digest(mac, _mac(claims, secret)) for secret in secrets):
        return None
    task_id, file_id, expires = _CLAIMS.unpack(claims)
    if expires < (now or timezone.now()).timestamp():
        return None
    return LinkClaims(task_id, file_id)


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
    token = make_token(task_id, file.pk, (now or timezone.now()) + lifetime)
    return f"{settings.OTA_PUBLIC_URL}/{PATH}/{token}"
