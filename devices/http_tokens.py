"""Tokens that a device gets for its login over HTTPS and sends with each request, instead of a connection.

A token is bound to the device's secret and to the platform's: it dies when it expires, when the secret is
reset, and when the device is disabled or removed.
"""

import base64
import hmac
import re
import struct
from datetime import datetime, timedelta
from enum import Enum

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from devices.identity import nobody
from devices.models import Device

_CLAIMS = struct.Struct(">QI")  # device id, expiry in epoch seconds
_MAC_BYTES = 24
# iotkit-embedded keeps 192 bytes.
TOKEN_CHARS = 4 * (_CLAIMS.size + _MAC_BYTES) // 3
_TOKEN = re.compile(f"[A-Za-z0-9_-]{{{TOKEN_CHARS}}}")


class BadToken(Enum):
    """Why a token is worth nothing; EXPIRED is said only of one that would hold otherwise."""

    EXPIRED = "expired"
    WRONG = "wrong"


def _mac(claims: bytes, device: Device, key: str | bytes) -> bytes:
    text = claims + device.secret.encode()
    return salted_hmac("devices.http_tokens", text, secret=key, algorithm="sha256").digest()[:_MAC_BYTES]


def make_token(device: Device, now: datetime | None = None) -> str:
    """A token of OTA_HTTP_TOKEN_DAYS: base64url of (device id, expiry) and a MAC."""
    expires = (now or timezone.now()) + timedelta(days=settings.OTA_HTTP_TOKEN_DAYS)
    claims = _CLAIMS.pack(device.pk, int(expires.timestamp()))
    return base64.urlsafe_b64encode(claims + _mac(claims, device, settings.SECRET_KEY)).decode()


def read_token(token: str, now: datetime | None = None) -> Device | BadToken:
    """The device that a token stands for, with its product; one query."""
    if not _TOKEN.fullmatch(token):
        return BadToken.WRONG
    raw = base64.urlsafe_b64decode(token)
    claims, mac = raw[: _CLAIMS.size], raw[_CLAIMS.size :]
    device_id, expires = _CLAIMS.unpack(claims)
    rows = Device.objects.usable().filter(pk=device_id) if device_id < 2**63 else Device.objects.none()
    device = rows.select_related("product").first()
    # Checked against nobody's secret too, so that timing does not tell which devices there are.
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    known = [hmac.compare_digest(mac, _mac(claims, device or nobody(), key)) for key in keys]
    if device is None or not any(known):
        return BadToken.WRONG
    if expires < (now or timezone.now()).timestamp():
        return BadToken.EXPIRED
    return device
