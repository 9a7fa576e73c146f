"""Who a connection belongs to: one function for the embedded broker, broker hooks and other channels."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from django.db import transaction
from django.utils import timezone

from devices import counters, credentials, topics
from devices.brokers.contract import INTERNAL, Identity, Refusal, dumps
from devices.models import Device, Product, ProductCounter
from devices.mqtt import address


@lru_cache(maxsize=1)
def nobody() -> Device:
    """Checked in place of an unknown device, with the same decryption and HMAC: timing tells nothing."""
    device = Device(product=Product())
    device.secret = device.product.secret = "0" * 32
    return device


def authenticate(
    client_id: str, username: str, password: str | bytes, peer: str = "", now: datetime | None = None
) -> Identity | Refusal:
    """Check an MQTT login; the first success activates the device.

    A device proves itself with its DeviceSecret (device-side HMAC over clientId and names), or asks for that
    secret with its ProductSecret (dynamic registration of a registered, not yet activated device).
    """
    given = password.encode(errors="replace") if isinstance(password, str) else password
    platform = address()
    if username == platform.username:
        matches = hmac.compare_digest(given, platform.password.encode()) and platform.password
        return INTERNAL if matches else Refusal.BAD_CREDENTIALS
    try:
        claimed = credentials.parse(client_id, username)
    except credentials.BadCredentials:
        return Refusal.BAD_IDENTIFIER
    device = _find(claimed.product_key, claimed.device_name)
    if claimed.kind is credentials.Kind.SECRET:
        proven = _prove(device, claimed, given, now or timezone.now())
        if isinstance(proven, Refusal):
            return proven
        return Identity(claimed.product_key, claimed.device_name)
    if claimed.kind is credentials.Kind.REGISTER:
        return _register(device, claimed, given)
    return Refusal.NOT_AUTHORIZED


def authenticate_request(body: Mapping[str, object], now: datetime | None = None) -> Device | Refusal:
    """Check the body of a `POST /auth` (HTTPS, CoAP); the first success activates the device.

    A timestamp, unlike that of an MQTT login, must be within 15 minutes; none at all is fine.
    """
    now = now or timezone.now()
    try:
        claimed, sign = credentials.parse_auth(body)
    except credentials.BadCredentials:
        return Refusal.BAD_IDENTIFIER
    device = _find(claimed.product_key, claimed.device_name)
    if not credentials.is_fresh(claimed.timestamp, int(now.timestamp() * 1000)):
        device = None  # and the same work is done as for a wrong signature
    return _prove(device, claimed, sign.encode(), now)


def _find(product_key: str, name: str) -> Device | None:
    rows = Device.objects.present().filter(product__product_key=product_key, name=name)
    return rows.select_related("product").first()


def _prove(
    device: Device | None, claimed: credentials.Credentials, password: bytes, now: datetime
) -> Device | Refusal:
    """The device, if the password proves that it has its DeviceSecret; activates it the first time."""
    secret = (device or nobody()).secret
    if not credentials.password_matches(secret, claimed, password) or device is None:
        return Refusal.BAD_CREDENTIALS
    if device.is_disabled:
        return Refusal.DISABLED
    if device.activated_at is None:
        activate(device, now)
    return device


def activate(device: Device, now: datetime) -> bool:
    """Mark the first authentication; True for the one caller that did it."""
    with transaction.atomic():
        first = Device.objects.filter(pk=device.pk, activated_at__isnull=True).update(activated_at=now) == 1
        if first:
            counters.add_products({(device.product_id, ProductCounter.Kind.ACTIVATED.value): 1})
    return first


def _register(device: Device | None, claimed: credentials.Credentials, password: bytes) -> Identity | Refusal:
    secret = (device or nobody()).product.secret
    if not credentials.password_matches(secret, claimed, password) or device is None:
        return Refusal.BAD_CREDENTIALS
    if device.is_disabled or device.activated_at is not None:
        return Refusal.NOT_AUTHORIZED
    answer = {
        "productKey": claimed.product_key,
        "deviceName": claimed.device_name,
        "deviceSecret": device.secret,
    }
    return Identity(
        claimed.product_key,
        claimed.device_name,
        welcome=((topics.REGISTER_REPLY, dumps(answer)),),
        registration_only=True,
    )
