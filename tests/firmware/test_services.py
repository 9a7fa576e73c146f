"""The verbs of firmware: upload, associate, verify, delete, sweep."""

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone, translation
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks, Settings

from firmware import services
from firmware.errors import FileUnavailableError, FirmwareInUseError, FirmwareRefusedError
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import AuditEntry
from tests.factories import (
    AccountFactory,
    CampaignFactory,
    FirmwareFactory,
    ProductFactory,
    UserFactory,
)
from tests.firmware.samples import BIN, CONTENT, upload

pytestmark = pytest.mark.django_db


def take_in(product: Any, **changes: Any) -> Firmware:
    fields: dict[str, Any] = {
        "name": "gateway_fw",
        "version": "2.0.0",
        "product": product,
        "sign_method": "MD5",
        "upload": upload(),
        "actor": None,
    }
    return services.upload_firmware(product.account, **{**fields, **changes})


def refused(product: Any, **changes: Any) -> dict[str, list[str]]:
    """The codes of what an upload is refused for, by field; nothing of it may be left behind."""
    before = Firmware.objects.count()
    with pytest.raises(FirmwareRefusedError) as refusal:
        take_in(product, **changes)
    assert Firmware.objects.count() == before
    return refusal.value.codes


def old_firmware(account: Any, name: str = "old_firmware", version: str = "1.0") -> Firmware:
    return services.import_firmware(
        account, name=name, version=version, sign_method="MD5", upload=upload(), actor=None
    )


# ---- upload ------------------------------------------------------------------------------------------


def test_an_upload_is_stored_with_both_digests_its_size_and_who_did_it(stored: Path) -> None:
    user = UserFactory.create()
    product = ProductFactory.create(account=user.account)
    firmware = take_in(product, actor=user, sign_method="SHA256")
    file = firmware.files.get()
    assert (file.md5, file.sha256) == (
        hashlib.md5(BIN, usedforsecurity=False).hexdigest(),
        hashlib.sha256(BIN).hexdigest(),
    )
    assert (file.size, file.name, file.suffix) == (len(BIN), "image.bin", ".bin")
    assert file.digest == file.sha256
    assert [path.read_bytes() for path in stored.iterdir()] == [BIN]
    assert (firmware.status, firmware.created_by) == (FirmwareStatus.UNVERIFIED, user)
    entry = AuditEntry.objects.get(action="firmware.uploaded")
    assert (entry.actor, entry.object_id, entry.account) == (user, str(firmware.pk), user.account)
    assert entry.detail["sha256"] == file.sha256


@pytest.mark.parametrize("suffix", CONTENT)
def test_every_form_of_the_product_page_is_taken(suffix: str) -> None:
    firmware = take_in(ProductFactory.create(), upload=upload(CONTENT[suffix], f"image{suffix}"))
    assert firmware.files.get().file.name.endswith(suffix)


@pytest.mark.parametrize(
    "name", ["abc", "a" * 33, "_gateway", "gate way", "gateway\n", "gateway_fw\x00", "gate-way", ""]
)
def test_a_name_against_the_rules_is_refused(name: str, stored: Path) -> None:
    assert list(refused(ProductFactory.create(), name=name)) == ["name"]
    assert not list(stored.iterdir())


@pytest.mark.parametrize("name", ["abcd", "a" * 32, "固件升级", "fw_2", "1234"])
def test_a_name_within_the_rules_is_taken(name: str) -> None:
    assert take_in(ProductFactory.create(), name=name).name == name


@pytest.mark.parametrize("version", ["", "v" * 65, "1.0\n", "1 0", "1.0+b", "版本"])
def test_a_version_against_the_rules_is_refused(version: str) -> None:
    assert list(refused(ProductFactory.create(), version=version)) == ["version"]


def test_an_unknown_signature_algorithm_is_refused() -> None:
    assert refused(ProductFactory.create(), sign_method="CRC") == {"sign_method": ["invalid_choice"]}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    codes = refused(ProductFactory.create(), name="x", version="", upload=upload(b"", "image.exe"))
    assert set(codes) == {"name", "version", "upload"}


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "image.bin", "empty"),
        (BIN, "image.exe", "ending"),
        (BIN, "image.zip", "content"),
        (BIN, "image.tar.gz", "content"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    content: bytes, name: str, code: str, stored: Path
) -> None:
    assert refused(ProductFactory.create(), upload=upload(content, name)) == {"upload": [code]}
    assert not list(stored.iterdir())


def test_reading_stops_at_the_first_chunk_over_the_limit(settings: Settings, stored: Path) -> None:
    settings.OTA_MAX_FIRMWARE_MB = 1
    read = 0

    class Endless(SimpleUploadedFile):
        def chunks(self, chunk_size: int | None = None) -> Any:
            nonlocal read
            while True:
                read += services.CHUNK
                yield b"x" * services.CHUNK

    assert refused(ProductFactory.create(), upload=Endless("image.bin", b"x")) == {"upload": ["too_large"]}
    assert read == 1024 * 1024 + services.CHUNK
    assert not list(stored.iterdir())


def test_a_file_of_exactly_the_limit_is_taken(settings: Settings) -> None:
    settings.OTA_MAX_FIRMWARE_MB = 1
    assert take_in(ProductFactory.create(), upload=upload(b"x" * 1024 * 1024)).files.get().size == 1024 * 1024


def test_a_name_is_taken_once_per_account_and_a_version_once_per_product() -> None:
    product = ProductFactory.create()
    take_in(product)
    assert refused(product, version="3.0.0") == {"name": ["name_taken"]}
    assert refused(product, name="another_fw") == {"version": ["version_taken"]}
    take_in(ProductFactory.create(account=product.account), name="another_fw")
    take_in(ProductFactory.create())


def test_a_product_of_another_account_is_refused() -> None:
    stranger = ProductFactory.create()
    with pytest.raises(FirmwareRefusedError) as refusal:
        services.upload_firmware(
            AccountFactory.create(),
            name="gateway_fw",
            version="2.0.0",
            product=stranger,
            sign_method="MD5",
            upload=upload(),
            actor=None,
        )
    assert refusal.value.codes == {"product": ["foreign"]}


def test_the_quota_of_the_account_is_held(settings: Settings) -> None:
    settings.OTA_MAX_FIRMWARE_FILES = 2
    product = ProductFactory.create()
    take_in(product, name="first", version="1")
    take_in(product, name="second", version="2")
    assert services.quota(product.account) == services.Quota(used=2, limit=2)
    assert refused(product, name="third", version="3") == {"upload": ["quota"]}
    take_in(ProductFactory.create(), name="third", version="3")


def test_new_firmware_is_closed_until_every_old_file_has_a_product() -> None:
    product = ProductFactory.create()
    old = old_firmware(product.account)
    assert refused(product) == {"__all__": ["unassociated"]}
    services.associate({old: product}, None)
    take_in(product)


def test_a_row_that_cannot_be_written_leaves_no_file(stored: Path) -> None:
    with (
        mock.patch("otaplatform.accounts.audit.record", side_effect=OSError("disk full")),
        pytest.raises(OSError),
    ):
        take_in(ProductFactory.create())
    assert not list(stored.iterdir())
    assert not Firmware.objects.exists()


def test_a_file_name_keeps_no_path_and_no_control_characters() -> None:
    file: Any = upload()
    file._name = "../../etc/ima\x00ge.bin"
    assert take_in(ProductFactory.create(), upload=file).files.get().name == "image.bin"


def test_refusals_speak_the_language_of_the_page_that_shows_them(settings: Settings) -> None:
    settings.OTA_MAX_FIRMWARE_MB = 1
    with pytest.raises(FirmwareRefusedError) as refusal:
        take_in(ProductFactory.create(), upload=upload(b"x" * 1024 * 1025))
    with translation.override("en"):
        assert refusal.value.message_dict["upload"] == ["The file is larger than 1 MB."]


# ---- associate ---------------------------------------------------------------------------------------


def test_old_files_are_associated_once_and_for_all() -> None:
    product = ProductFactory.create()
    first, second = old_firmware(product.account), old_firmware(product.account, "second_old", "1.1")
    user = UserFactory.create(account=product.account)
    assert {row.product for row in services.associate({first: product, second: product}, user)} == {product}
    assert AuditEntry.objects.filter(action="firmware.associated", actor=user).count() == 2
    other = ProductFactory.create(account=product.account)
    with pytest.raises(FirmwareRefusedError) as refusal:
        services.associate({first: other}, user)
    assert refusal.value.codes == {f"product_{first.pk}": ["associated"]}
    first.refresh_from_db()
    assert first.product == product


def test_an_association_that_breaks_a_rule_changes_nothing_at_all() -> None:
    product = ProductFactory.create()
    take = FirmwareFactory.create(product=product, version="1.1")
    fine, clash = old_firmware(product.account), old_firmware(product.account, "second_old", take.version)
    stranger = old_firmware(product.account, "third_old", "9")
    with pytest.raises(FirmwareRefusedError) as refusal:
        services.associate({fine: product, clash: product, stranger: ProductFactory.create()}, None)
    assert refusal.value.codes == {
        f"product_{clash.pk}": ["version_taken"],
        f"product_{stranger.pk}": ["foreign"],
    }
    assert Firmware.objects.unassociated().count() == 3
    assert not AuditEntry.objects.filter(action="firmware.associated").exists()


def test_two_old_files_of_one_version_cannot_go_to_one_product() -> None:
    product = ProductFactory.create()
    first, second = old_firmware(product.account), old_firmware(product.account, "second_old")
    with pytest.raises(FirmwareRefusedError):
        services.associate({first: product, second: product}, None)
    assert Firmware.objects.unassociated().count() == 2


# ---- verify ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "moved", "after"),
    [
        (FirmwareStatus.UNVERIFIED, True, FirmwareStatus.VERIFIED),
        (FirmwareStatus.VERIFICATION_FAILED, True, FirmwareStatus.VERIFIED),
        (FirmwareStatus.VERIFIED, False, FirmwareStatus.VERIFIED),
        (FirmwareStatus.NOT_NEEDED, False, FirmwareStatus.NOT_NEEDED),
    ],
)
def test_a_performed_validation_verifies(before: int, moved: bool, after: int) -> None:
    firmware = FirmwareFactory.create(status=before)
    assert services.mark_verified(firmware) is moved
    assert firmware.status == after


def test_files_are_digested_again_from_storage(stored: Path) -> None:
    firmware = take_in(ProductFactory.create())
    services.verify_files(firmware)
    (path,) = stored.iterdir()
    path.write_bytes(BIN[:-1] + b"?")
    with pytest.raises(FileUnavailableError, match="not the file"):
        services.verify_files(firmware)
    path.unlink()
    with pytest.raises(FileUnavailableError, match="cannot be read"):
        services.verify_files(firmware)


# ---- delete and sweep --------------------------------------------------------------------------------


def test_an_unused_firmware_is_deleted_and_its_file_once_that_is_committed(
    stored: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    firmware = take_in(ProductFactory.create())
    with django_capture_on_commit_callbacks() as callbacks:
        services.delete_firmware(firmware, None)
    assert not Firmware.objects.exists()
    assert len(list(stored.iterdir())) == 1
    for callback in callbacks:
        callback()
    assert not list(stored.iterdir())
    assert AuditEntry.objects.get(action="firmware.deleted").object_name == "gateway_fw 2.0.0"


def test_a_firmware_in_use_stays_and_the_campaigns_are_named(stored: Path) -> None:
    firmware = take_in(ProductFactory.create())
    campaign = CampaignFactory.create(firmware=firmware)
    with pytest.raises(FirmwareInUseError) as refusal:
        services.delete_firmware(firmware, None)
    assert str(refusal.value) == f"gateway_fw cannot be deleted: the update batch #{campaign.pk} uses it."
    assert refusal.value.campaigns == [campaign]
    assert Firmware.objects.filter(pk=firmware.pk).exists()
    assert len(list(stored.iterdir())) == 1
    assert not AuditEntry.objects.filter(action="firmware.deleted").exists()


def test_many_campaigns_are_named_by_the_first_five_and_a_number() -> None:
    firmware = FirmwareFactory.create()
    campaigns = CampaignFactory.create_batch(7, firmware=firmware)
    with pytest.raises(FirmwareInUseError) as refusal:
        services.delete_firmware(firmware, None)
    named = ", ".join(f"#{campaign.pk}" for campaign in campaigns[:5])
    assert f"{named} and 2 more use it" in str(refusal.value)


def test_the_sweep_removes_old_files_without_a_row_and_nothing_else(stored: Path) -> None:
    firmware = take_in(ProductFactory.create())
    (stored / "young.bin").write_bytes(BIN)
    now = timezone.now()
    assert services.sweep_orphans(now) == 0
    assert services.sweep_orphans(now + services.ORPHAN_AGE + timedelta(minutes=1)) == 1
    services.verify_files(firmware)
    assert len(list(stored.iterdir())) == 1


def test_a_sweep_before_the_first_upload_finds_nothing(stored: Path) -> None:
    stored.rmdir()
    assert services.sweep_orphans() == 0


def test_association_of_many_files_costs_few_statements_each(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    product = ProductFactory.create()
    choices = {old_firmware(product.account, f"old_{n:03}", str(n)): product for n in range(5)}
    with django_assert_max_num_queries(2 + 3 * len(choices) + 4):
        services.associate(choices, None)
    assert connection.in_atomic_block
