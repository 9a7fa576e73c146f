"""Who may connect, judged on real rows."""

import json
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from devices import credentials, identity
from devices.brokers.contract import INTERNAL, Identity, Refusal
from devices.models import Device, ProductCounter
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db


def connect(device: Device, secret: str = "") -> Identity | Refusal:
    login = credentials.mqtt_login(device.product.product_key, device.name, secret or device.secret)
    return identity.authenticate(login.client_id, login.username, login.password)


def register(device: Device, product_secret: str = "") -> Identity | Refusal:
    login = credentials.mqtt_registration(
        device.product.product_key, device.name, product_secret or device.product.secret, random="r1"
    )
    return identity.authenticate(login.client_id, login.username, login.password.encode())


def test_only_the_first_success_activates_and_is_counted() -> None:
    device = DeviceFactory.create(activated_at=None)
    assert connect(device, "0" * 32) is Refusal.BAD_CREDENTIALS
    assert not ProductCounter.objects.exists()
    assert connect(device) == connect(device) == Identity(device.product.product_key, device.name)
    assert ProductCounter.objects.get(product=device.product, kind="activated").count == 1


def test_two_connections_at_once_activate_a_device_once() -> None:
    device = DeviceFactory.create(activated_at=None)
    now = timezone.now()
    assert [identity.activate(device, now), identity.activate(device, now)] == [True, False]
    assert ProductCounter.objects.get(product=device.product).count == 1


def test_a_disabled_device_is_told_so_only_if_it_knows_its_secret() -> None:
    device = DeviceFactory.create(is_disabled=True)
    assert connect(device) is Refusal.DISABLED
    assert connect(device, "0" * 32) is Refusal.BAD_CREDENTIALS


def test_a_name_used_again_after_removal_belongs_to_the_new_device() -> None:
    old = DeviceFactory.create(removed_at=timezone.now())
    new = DeviceFactory.create(product=old.product, name=old.name)
    assert connect(old) is Refusal.BAD_CREDENTIALS
    assert isinstance(connect(new), Identity)


def test_an_unknown_device_does_not_get_in_with_the_secret_it_is_compared_to() -> None:
    unknown = Device(product=DeviceFactory.create().product, name="nobody-here")
    assert connect(unknown, "0" * 32) is Refusal.BAD_CREDENTIALS
    assert register(unknown, "0" * 32) is Refusal.BAD_CREDENTIALS


def test_a_registered_device_is_given_its_secret_and_nothing_else() -> None:
    device = DeviceFactory.create(activated_at=None)
    answer = register(device)
    assert isinstance(answer, Identity)
    assert answer.registration_only
    ((topic, payload),) = answer.welcome
    assert topic == "/ext/register"
    assert b" " not in payload
    assert json.loads(payload) == {
        "productKey": device.product.product_key,
        "deviceName": device.name,
        "deviceSecret": device.secret,
    }
    device.refresh_from_db()
    assert device.activated_at is None, "it has only asked"


@pytest.mark.parametrize(
    "state", [{"activated_at": timezone.now()}, {"activated_at": None, "is_disabled": True}]
)
def test_the_secret_is_given_to_no_activated_or_disabled_device(state: dict[str, Any]) -> None:
    assert register(DeviceFactory.create(**state)) is Refusal.NOT_AUTHORIZED


def test_the_secret_is_not_given_for_another_products_secret() -> None:
    device, other = DeviceFactory.create(activated_at=None), DeviceFactory.create()
    assert register(device, other.product.secret) is Refusal.BAD_CREDENTIALS


@pytest.mark.parametrize("auth_type", ["regnwl", "connwl"])
def test_registration_without_a_registered_name_is_refused(auth_type: str) -> None:
    device = DeviceFactory.create()
    client_id = f"x|random=1,authType={auth_type},securemode=-2|"
    username = f"{device.name}&{device.product.product_key}"
    assert identity.authenticate(client_id, username, "") is Refusal.NOT_AUTHORIZED


def test_nonsense_is_refused() -> None:
    assert identity.authenticate("x|authType=what|", "a&b", b"\xff") is Refusal.BAD_IDENTIFIER
    assert identity.authenticate("", "", "") is Refusal.BAD_IDENTIFIER


def test_the_platform_itself_gets_in_with_its_own_password_only() -> None:
    assert identity.authenticate("gateway", "internal", settings.OTA_MQTT_PASSWORD) is INTERNAL
    assert identity.authenticate("gateway", "internal", "") is Refusal.BAD_CREDENTIALS
    assert identity.authenticate("gateway", "internal", "\udcff") is Refusal.BAD_CREDENTIALS
