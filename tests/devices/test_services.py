"""What can be done to products and devices."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from devices import fleet, services
from devices.models import Device, DevicePresence, DeviceVersion, Product, ProductCounter, VersionCounter
from otaplatform.accounts.models import AuditEntry
from tests.factories import AccountFactory, DeviceFactory, FirmwareFactory, UserFactory

pytestmark = pytest.mark.django_db

CommitCallbacks = Callable[..., Any]


@pytest.fixture
def product() -> Product:
    return services.create_product(AccountFactory(), "gateway")


@pytest.fixture
def kicks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The devices whose connection the broker was asked to end."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("devices.mqtt.kick", lambda *device: asked.append(device))
    return asked


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))


def test_a_product_gets_a_key_and_a_secret_of_its_own(product: Product) -> None:
    other = services.create_product(product.account, "sensor")
    assert product.product_key.startswith("a1")
    assert (len(product.product_key), len(product.secret)) == (11, 16)
    assert (product.product_key, product.secret) != (other.product_key, other.secret)
    assert product.secret not in product.secret_encrypted


@pytest.mark.parametrize("name", ["abc", "x" * 31, "two words", "name\n", "名称!!"])
def test_a_product_of_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        services.create_product(AccountFactory(), name)
    assert not Product.objects.exists()


def test_a_product_name_is_unique_within_its_account_only(product: Product) -> None:
    with pytest.raises(ValidationError):
        services.create_product(product.account, product.name)
    assert services.create_product(AccountFactory(), product.name)


def test_a_registered_device_has_a_presence_row_and_is_counted(product: Product) -> None:
    device = services.register_device(product, "gw-0001")
    assert not device.presence.is_up
    assert len(device.secret) == 32
    assert fleet.totals(product.account) == fleet.Totals(registered=1, activated=0)


def test_a_batch_answers_row_by_row_and_registers_what_it_can(product: Product) -> None:
    services.register_device(product, "taken")
    results = services.register_devices(product, ["gw-1", "taken", "g w", "gw-1", "gw\0x", "gw-2"])
    assert [bool(result.device) for result in results] == [True, False, False, False, False, True]
    assert [bool(result.error) for result in results] == [False, True, True, True, True, False]
    assert results[0].secret == Device.objects.get(name="gw-1").secret
    assert DevicePresence.objects.filter(device__product=product).count() == 3
    assert fleet.registered([product]) == {product.pk: 3}


def test_a_batch_by_count_makes_names_up(product: Product) -> None:
    results = services.register_devices(product, count=1500)
    assert len({result.name for result in results}) == 1500
    assert product.devices.count() == 1500


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_of_no_or_too_many_devices_is_refused(product: Product, count: int) -> None:
    with pytest.raises(ValidationError):
        services.register_devices(product, count=count)


def test_a_removed_device_counts_nowhere_and_frees_its_name(
    product: Product, kicks: list[tuple[str, ...]], django_capture_on_commit_callbacks: CommitCallbacks
) -> None:
    (result,) = services.register_devices(product, ["gw-0001"])
    device = result.device
    assert device is not None
    now = device.created_at
    Device.objects.filter(pk=device.pk).update(activated_at=now)
    ProductCounter.objects.create(product=product, kind="activated", slot=0, count=1)
    DeviceVersion.objects.create(device=device, product=product, version="1.0", reported_at=now)
    VersionCounter.objects.create(product=product, module="default", version="1.0", slot=0, count=1)
    with django_capture_on_commit_callbacks(execute=True):
        assert services.remove_device(device, now=now)
    assert not services.remove_device(device)
    assert fleet.totals(product.account) == fleet.Totals(0, 0)
    assert VersionCounter.objects.distribution(product) == []
    assert services.register_device(product, "gw-0001").pk != device.pk
    assert [kick[:2] for kick in kicks] == [(product.product_key, "gw-0001")]


def test_disabling_disconnects_and_is_done_once(
    product: Product, kicks: list[tuple[str, ...]], django_capture_on_commit_callbacks: CommitCallbacks
) -> None:
    device = services.register_device(product, "gw-0001")
    with django_capture_on_commit_callbacks(execute=True):
        assert services.set_disabled(device, True)
        assert not services.set_disabled(device, True)
        assert services.set_disabled(device, False)
    assert len(kicks) == 1
    assert actions()[-2:] == ["device.disabled", "device.enabled"]


def test_a_new_secret_replaces_the_old_one(product: Product) -> None:
    device = services.register_device(product, "gw-0001")
    old = device.secret
    new = services.reset_secret(device)
    assert new != old
    assert Device.objects.get(pk=device.pk).secret == new


def test_showing_secrets_goes_into_the_audit_log_without_them(product: Product) -> None:
    actor = UserFactory(account=product.account)
    device = services.register_device(product, "gw-0001")
    shown = services.show_credentials(device, actor)
    assert (shown.product_key, shown.device_name) == (product.product_key, "gw-0001")
    assert shown.device_secret == device.secret
    assert services.show_product_secret(product, actor) == product.secret
    entries = list(AuditEntry.objects.filter(actor=actor))
    assert {entry.action for entry in entries} == {"device.secret_shown", "product.secret_shown"}
    assert not any(
        secret in str(vars(entry)) for entry in entries for secret in (device.secret, product.secret)
    )


def test_a_product_with_devices_or_firmware_cannot_be_removed() -> None:
    for owned in (DeviceFactory(), FirmwareFactory()):
        with pytest.raises(ValidationError):
            services.remove_product(owned.product)
        assert Product.objects.filter(pk=owned.product.pk).exists()


def test_a_product_whose_devices_are_removed_can_be_removed(product: Product) -> None:
    services.remove_device(services.register_device(product, "gw-0001"))
    services.remove_product(product)
    assert not Product.objects.exists()
    assert not Device.objects.exists()
    assert actions()[-1] == "product.removed"
