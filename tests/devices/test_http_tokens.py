"""Tokens of devices on HTTPS."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devices.http_tokens import BadToken, make_token, read_token
from devices.models import Device
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def device() -> Device:
    return DeviceFactory.create()


def test_a_token_stands_for_its_device_until_it_expires(device: Device) -> None:
    now = timezone.now()
    token = make_token(device, now)
    assert len(token) <= 192
    assert read_token(token, now + timedelta(days=7) - timedelta(seconds=2)) == device
    assert read_token(token, now + timedelta(days=7, seconds=2)) is BadToken.EXPIRED


@pytest.mark.parametrize("change", [{"is_disabled": True}, {"removed_at": timezone.now()}])
def test_a_token_dies_with_its_device(device: Device, change: dict[str, Any]) -> None:
    token = make_token(device)
    Device.objects.update(**change)
    assert read_token(token) is BadToken.WRONG


def test_a_token_does_not_outlive_the_secret_it_was_given_for(device: Device) -> None:
    token = make_token(device)
    device.secret = "f" * 32
    device.save()
    assert read_token(token) is BadToken.WRONG


def test_no_token_is_another_devices_or_made_without_the_platforms_secret(
    device: Device, settings: Any
) -> None:
    other = DeviceFactory.create(secret=device.secret)
    token = make_token(device)
    assert read_token(make_token(other)[:16] + token[16:]) is BadToken.WRONG
    assert read_token("_" * 48) is BadToken.WRONG
    settings.SECRET_KEY, old = "another", settings.SECRET_KEY
    assert read_token(token) is BadToken.WRONG
    settings.SECRET_KEY_FALLBACKS = [old]
    assert read_token(token) == device
