"""Two people upload the hundredth file at once: one of them gets in."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from devices.models import Product
from firmware import services, signing
from firmware.errors import FirmwareRefusedError
from firmware.models import Firmware
from otaplatform.accounts.models import AuditEntry
from tests.factories import FirmwareFactory, ProductFactory
from tests.firmware.samples import upload

pytestmark = pytest.mark.django_db(transaction=True)

LIMIT = 3
# Long enough for the other upload to arrive; in a sound run it cannot, and the wait runs out.
PATIENCE = 0.5


@pytest.fixture
def product(settings: Settings) -> Product:
    """A product of an account that has room for one more file."""
    settings.OTA_MAX_FIRMWARE_FILES = LIMIT
    product = ProductFactory.create()
    for number in range(LIMIT - 1):
        FirmwareFactory.create(product=product, version=str(number))
    return product


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each upload, having counted within its transaction, waits for the other to have counted too."""
    barrier = threading.Barrier(2)
    count = services._problems

    def count_and_wait(*args: Any, **options: Any) -> Any:
        problems = count(*args, **options)
        if connection.in_atomic_block:
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(PATIENCE)
        return problems

    monkeypatch.setattr(services, "_problems", count_and_wait)


def upload_two_at_once(product: Product) -> list[str]:
    def one(number: int) -> str:
        try:
            services.upload_firmware(
                product.account,
                name=f"racing_{number}",
                version=f"race.{number}",
                product=product,
                sign_method="MD5",
                upload=upload(),
                actor=None,
            )
        except FirmwareRefusedError as refusal:
            return str(refusal.codes)
        finally:
            connection.close()
        return "stored"

    with ThreadPoolExecutor(2) as pool:
        return sorted(pool.map(one, range(2)))


@pytest.mark.usefixtures("meeting")
def test_two_uploads_of_the_last_free_place_end_with_exactly_one(product: Product, stored: Path) -> None:
    assert upload_two_at_once(product) == ["stored", "{'upload': ['quota']}"]
    assert Firmware.objects.count() == LIMIT
    assert len(list(stored.iterdir())) == LIMIT


@pytest.mark.postgres
@pytest.mark.usefixtures("meeting")
def test_without_the_lock_both_would_get_in(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it shows that the test above would notice."""
    monkeypatch.setattr(services, "_lock", lambda account: None)
    assert upload_two_at_once(product) == ["stored", "stored"]
    assert Firmware.objects.count() == LIMIT + 1


def test_two_who_switch_secure_update_on_at_once_keep_one_key(product: Product) -> None:
    barrier = threading.Barrier(2)

    def switch_on(_: int) -> str:
        mine = Product.objects.get(pk=product.pk)
        barrier.wait(10)
        try:
            signing.set_secure_update(mine, True, None)
        finally:
            connection.close()
        return mine.signing_key_encrypted

    with ThreadPoolExecutor(2) as pool:
        keys = set(pool.map(switch_on, range(2)))
    product.refresh_from_db()
    assert keys == {product.signing_key_encrypted}
    assert AuditEntry.objects.filter(action="secure_update.switched_on").count() == 1
