"""Retiring an encryption key."""

from io import StringIO

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.apps import apps
from django.core.management import CommandError, call_command
from pytest_django import Settings

from devices.models import Device, Product
from otaplatform import secret_rotation
from otaplatform.accounts.secret import encrypt
from otaplatform.api.models import IdempotencyKey, Webhook
from tests.factories import AccountFactory, DeviceFactory, ProductFactory, UserFactory

pytestmark = pytest.mark.django_db
OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def run() -> str:
    output = StringIO()
    call_command("rotate_secrets", stdout=output, stderr=output)
    return output.getvalue()


@pytest.fixture
def fleet(settings: Settings) -> list[Device]:
    """Secrets of every kind under the old key, one of them written after the new key came."""
    settings.OTA_ENCRYPTION_KEYS = [OLD]
    product = ProductFactory.create(secret="of-the-product", signing_key="of-the-signer")
    devices = [DeviceFactory.create(product=product, secret=f"secret-{number}") for number in range(7)]
    Webhook.objects.create(account=AccountFactory.create(), url="https://a.example", secret="of-the-webhook")
    IdempotencyKey.objects.create(user=UserFactory.create(), key="k", fingerprint="f", answer="of-the-answer")
    IdempotencyKey.objects.create(user=UserFactory.create(), key="k", fingerprint="f")
    settings.OTA_ENCRYPTION_KEYS = [NEW, OLD]
    devices.append(DeviceFactory.create(product=product, secret="secret-7"))
    return devices


def everything_reads() -> bool:
    return (
        [device.secret for device in Device.objects.order_by("pk")] == [f"secret-{n}" for n in range(8)]
        and Product.objects.get().secret == "of-the-product"
        and Product.objects.get().signing_key == "of-the-signer"
        and Webhook.objects.get().secret == "of-the-webhook"
        and IdempotencyKey.objects.exclude(answer_encrypted="").get().answer == "of-the-answer"
    )


def test_a_key_can_be_retired_after_the_rotation_and_not_before(
    settings: Settings, fleet: list[Device]
) -> None:
    settings.OTA_ENCRYPTION_KEYS = [NEW]
    with pytest.raises(InvalidToken):
        everything_reads()
    settings.OTA_ENCRYPTION_KEYS = [NEW, OLD]
    assert "devices.Device.secret_encrypted: 7 re-encrypted" in run()
    settings.OTA_ENCRYPTION_KEYS = [NEW]
    assert everything_reads()


def test_a_run_that_was_cut_off_is_repeated_and_does_the_rest(
    settings: Settings, fleet: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_rotation, "CHUNK", 3)
    chunks = iter(range(100))

    def cut_off() -> None:
        if next(chunks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        secret_rotation.rotate_all(cut_off)
    assert everything_reads()
    run()
    assert sum(done.changed for done in secret_rotation.rotate_all()) == 0
    settings.OTA_ENCRYPTION_KEYS = [NEW]
    assert everything_reads()


def test_a_secret_that_is_replaced_meanwhile_keeps_its_replacement(fleet: list[Device]) -> None:
    device = fleet[0]
    stale = device.secret_encrypted
    Device.objects.filter(pk=device.pk).update(secret_encrypted=encrypt("replaced"))
    assert secret_rotation._store(Device, "secret_encrypted", [(device.pk, stale, encrypt("stale"))]) == 0
    device.refresh_from_db()
    assert device.secret == "replaced"


def test_what_no_key_reads_is_named_and_no_key_may_be_retired(
    settings: Settings, fleet: list[Device]
) -> None:
    settings.OTA_ENCRYPTION_KEYS = [OTHER]
    Device.objects.filter(pk=fleet[3].pk).update(secret_encrypted=encrypt("lost"))
    settings.OTA_ENCRYPTION_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match="1 secrets cannot be read"):
        run()


def test_every_encrypted_column_is_known() -> None:
    columns = {
        (model._meta.label, field.attname)
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.attname.endswith("_encrypted")
    }
    known = {(model._meta.label, column) for model, column in secret_rotation.encrypted_columns()}
    assert known == columns
