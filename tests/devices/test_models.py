"""Rules of products and devices that the models hold themselves."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from devices.models import BrokerEpoch, Channel, Device, DevicePresence
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db


def test_a_name_is_free_again_once_its_device_is_removed() -> None:
    device = DeviceFactory(name="gw-0001")
    with pytest.raises(IntegrityError), transaction.atomic():
        DeviceFactory(product=device.product, name="gw-0001")
    Device.objects.filter(pk=device.pk).update(removed_at=timezone.now())
    assert DeviceFactory(product=device.product, name="gw-0001")


def test_a_new_life_of_the_broker_leaves_nobody_online() -> None:
    DeviceFactory(online=True)
    assert DevicePresence.objects.online().count() == 1
    BrokerEpoch.objects.update(epoch="another")
    assert DevicePresence.objects.online().count() == 0


def test_a_device_without_connection_is_online_for_some_minutes_after_its_last_request() -> None:
    device, now = DeviceFactory(), timezone.now()
    DevicePresence.objects.filter(device=device).update(is_up=True, channel=Channel.COAP, changed_at=now)
    minutes = timedelta(minutes=10)
    assert device.presence.is_online(now + minutes)
    assert not device.presence.is_online(now + minutes + timedelta(seconds=1))


def test_a_prefix_finds_names_by_code_point_order() -> None:
    product = DeviceFactory(name="Gw-1").product
    for name in ("gw-1", "gw-", "gw.1", "gx-1"):
        DeviceFactory(product=product, name=name)
    assert set(Device.objects.named_from("gw-").values_list("name", flat=True)) == {"gw-", "gw-1"}


def test_secrets_are_encrypted_in_their_columns() -> None:
    device = DeviceFactory(secret="plain-text-secret")
    row = Device.objects.values_list("secret_encrypted", flat=True).get(pk=device.pk)
    assert "plain-text-secret" not in row
    assert Device.objects.get(pk=device.pk).secret == "plain-text-secret"
