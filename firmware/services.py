"""The verbs of firmware: upload, associate, verify, delete. After an upload nothing changes a file."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePath

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from devices.models import Product
from firmware import content
from firmware.errors import FileUnavailableError, FirmwareInUseError, FirmwareRefusedError
from firmware.models import FOLDER, Firmware, FirmwareFile, FirmwareStatus
from otaplatform.accounts import audit
from otaplatform.accounts.models import Account, User

logger = logging.getLogger(__name__)

CHUNK = 64 * 1024
# Longer than any upload takes: a younger file without a row may belong to one that is still under way.
ORPHAN_AGE = timedelta(hours=6)
_CAMPAIGNS_NAMED = 5

QUOTA_REACHED = gettext_lazy("The account already has %(limit)s firmware files. Delete one that is not used.")
UNASSOCIATED = gettext_lazy(
    "Some firmware files belong to no product yet. Associate each with a product first."
)


@dataclass(frozen=True)
class Quota:
    """Firmware files of an account, and how many it may have."""

    used: int
    limit: int

    @property
    def is_reached(self) -> bool:
        return self.used >= self.limit


@dataclass(frozen=True)
class _Received:
    """What one pass over an upload told."""

    name: str
    suffix: str
    size: int
    md5: str
    sha256: str


def quota(account: Account) -> Quota:
    """How many of the account's OTA_MAX_FIRMWARE_FILES are used."""
    return Quota(
        FirmwareFile.objects.filter(firmware__account=account).count(), settings.OTA_MAX_FIRMWARE_FILES
    )


def upload_firmware(
    account: Account,
    *,
    name: str,
    version: str,
    product: Product,
    sign_method: str,
    upload: File[bytes],
    actor: User | None,
    description: str = "",
    now: datetime | None = None,
) -> Firmware:
    """Take in a firmware file. All rules of New Firmware are held here and in the model.

    The file is stored before the transaction begins and removed again if the row cannot be written.
    Raises FirmwareRefusedError with everything that is wrong, by field (`name`, `version`, `product`,
    `sign_method`, `description`, `upload`).
    """
    firmware = Firmware(
        account=account,
        product=product,
        name=name,
        version=version,
        sign_method=sign_method,
        description=description,
        created_by=actor,
        created_at=now or timezone.now(),
    )
    problems = _problems(firmware, product_required=True)
    received: _Received | None = None
    try:
        received = _receive(upload)
    except FirmwareRefusedError as error:
        problems |= error.error_dict
    if problems or received is None:
        raise FirmwareRefusedError(problems)
    return _store(firmware, received, upload, actor, "firmware.uploaded", product_required=True)


def import_firmware(
    account: Account,
    *,
    name: str,
    version: str,
    sign_method: str,
    upload: File[bytes],
    actor: User | None = None,
    now: datetime | None = None,
) -> Firmware:
    """Bring in a file from before firmware belonged to products; raises FirmwareRefusedError."""
    firmware = Firmware(
        account=account,
        name=name,
        version=version,
        sign_method=sign_method,
        created_by=actor,
        created_at=now or timezone.now(),
    )
    if problems := _problems(firmware, product_required=False):
        raise FirmwareRefusedError(problems)
    return _store(firmware, _receive(upload), upload, actor, "firmware.imported", product_required=False)


def _problems(firmware: Firmware, *, product_required: bool) -> dict[str, list[ValidationError]]:
    """What is wrong with the row, by field; exact only under the account's lock."""
    problems: dict[str, list[ValidationError]] = {}

    def add(field: str, error: ValidationError) -> None:
        problems.setdefault(field, []).append(error)

    try:
        firmware.full_clean()
    except ValidationError as error:
        for field, errors in error.error_dict.items():
            for each in errors:
                place = {"name_taken": "name", "version_taken": "version"}.get(each.code or "", field)
                add("product" if place == NON_FIELD_ERRORS else place, each)
    product = firmware.product
    if product is not None and product.account_id != firmware.account_id:
        add("product", ValidationError(gettext_lazy("Choose one of the account's products."), "foreign"))
    used = quota(firmware.account)
    if used.is_reached:
        add("upload", ValidationError(QUOTA_REACHED, "quota", {"limit": used.limit}))
    if product_required and Firmware.objects.of(firmware.account).unassociated().exists():
        add(NON_FIELD_ERRORS, ValidationError(UNASSOCIATED, "unassociated"))
    return problems


def _receive(upload: File[bytes]) -> _Received:
    """Read an upload once: its size and both digests; then look at its form.

    Stops at the first byte over OTA_MAX_FIRMWARE_MB.
    """
    name = "".join(c for c in PurePath(upload.name or "").name if c.isprintable())[-255:]
    suffix = content.suffix_of(name)
    if suffix is None:
        text = gettext_lazy("Only .bin, .tar, .gz, .tar.gz and .zip files are supported.")
        raise FirmwareRefusedError.of("upload", text, "ending")
    limit = settings.OTA_MAX_FIRMWARE_MB * 1024 * 1024
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    for chunk in upload.chunks(CHUNK):
        size += len(chunk)
        if size > limit:
            text = gettext_lazy("The file is larger than %(limit)s MB.")
            raise FirmwareRefusedError.of("upload", text, "too_large", limit=settings.OTA_MAX_FIRMWARE_MB)
        md5.update(chunk)
        sha256.update(chunk)
    if not size:
        raise FirmwareRefusedError.of("upload", gettext_lazy("The file is empty."), "empty")
    if upload.file is None or not content.matches(upload.file, suffix):
        text = gettext_lazy("The name ends in %(suffix)s, but the content is something else.")
        raise FirmwareRefusedError.of("upload", text, "content", suffix=suffix)
    return _Received(name, suffix, size, md5.hexdigest(), sha256.hexdigest())


def _store(
    firmware: Firmware,
    received: _Received,
    upload: File[bytes],
    actor: User | None,
    action: str,
    *,
    product_required: bool,
) -> Firmware:
    row = FirmwareFile(**vars(received))
    upload.seek(0)
    row.firmware = firmware
    row.file.save(received.name, upload, save=False)
    try:
        with transaction.atomic():
            _lock(firmware.account)
            if problems := _problems(firmware, product_required=product_required):
                raise FirmwareRefusedError(problems)
            firmware.save(force_insert=True)
            row.firmware = firmware
            row.save(force_insert=True)
            audit.record(
                firmware.account,
                actor,
                action,
                firmware,
                now=firmware.created_at,
                product=str(firmware.product or ""),
                file=received.name,
                sha256=received.sha256,
            )
    except BaseException:
        _remove_file(row.file.name)
        raise
    return firmware


def _lock(account: Account) -> None:
    """Uploads and associations of an account go one after the other, so its counts and names hold."""
    Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def associate(
    choices: Mapping[Firmware, Product], actor: User | None, now: datetime | None = None
) -> list[Firmware]:
    """Give each firmware its product, once and for all: all of them, or none.

    All belong to one account. Raises FirmwareRefusedError with fields `product_<firmware id>`.
    """
    problems: dict[str, list[ValidationError]] = {}
    with transaction.atomic():
        for account in {firmware.account for firmware in choices}:
            _lock(account)
        for firmware, product in choices.items():
            if refusal := _associate_one(firmware, product):
                problems[f"product_{firmware.pk}"] = [refusal]
                continue
            audit.record(
                firmware.account, actor, "firmware.associated", firmware, now=now, product=product.name
            )
        if problems:
            raise FirmwareRefusedError(problems)
    return list(Firmware.objects.filter(pk__in=[firmware.pk for firmware in choices]))


def _associate_one(firmware: Firmware, product: Product) -> ValidationError | None:
    if product.account_id != firmware.account_id:
        return ValidationError(gettext_lazy("Choose one of the account's products."), "foreign")
    same = Firmware.objects.filter(
        product=product,
        module=firmware.module,
        version=firmware.version,
        source_version=firmware.source_version,
    )
    if same.exists():
        text = gettext_lazy(
            "The product already has a firmware of version %(version)s. "
            "Choose another product, or delete this file."
        )
        return ValidationError(text, "version_taken", {"version": firmware.version})
    if Firmware.objects.unassociated().filter(pk=firmware.pk).update(product=product) != 1:
        return ValidationError(gettext_lazy("This file was associated in the meantime."), "associated")
    return None


def mark_verified(firmware: Firmware) -> bool:
    """A validation was performed: the firmware may be used for batch updates. False if it could before."""
    moved = Firmware.objects.filter(
        pk=firmware.pk,
        status__in=[
            FirmwareStatus.UNVERIFIED,
            FirmwareStatus.VERIFYING,
            FirmwareStatus.VERIFICATION_FAILED,
        ],
    ).update(status=FirmwareStatus.VERIFIED)
    firmware.refresh_from_db(fields=["status"])
    return bool(moved)


def delete_firmware(firmware: Firmware, actor: User | None, now: datetime | None = None) -> None:
    """Delete a firmware that no campaign uses, and its files once that is committed.

    Raises FirmwareInUseError with a sentence that names the campaigns.
    """
    with transaction.atomic():
        names = list(firmware.files.values_list("file", flat=True))
        audit.record(firmware.account, actor, "firmware.deleted", firmware, now=now, files=len(names))
        try:
            Firmware.objects.get(pk=firmware.pk).delete()
        except ProtectedError as error:
            users = sorted(error.protected_objects, key=lambda row: row.pk)
            raise FirmwareInUseError(in_use(firmware, [str(row) for row in users]), users) from error
        for name in names:
            transaction.on_commit(partial(_remove_file, name))


def in_use(firmware: Firmware, campaigns: list[str]) -> str:
    """Why a firmware that these campaigns use cannot be deleted."""
    named, more = campaigns[:_CAMPAIGNS_NAMED], len(campaigns) - _CAMPAIGNS_NAMED
    words = {"firmware": firmware.name, "campaigns": ", ".join(named), "more": more}
    if more > 0:
        return (
            _("%(firmware)s cannot be deleted: the update batches %(campaigns)s and %(more)s more use it.")
            % words
        )
    return (
        ngettext(
            "%(firmware)s cannot be deleted: the update batch %(campaigns)s uses it.",
            "%(firmware)s cannot be deleted: the update batches %(campaigns)s use it.",
            len(campaigns),
        )
        % words
    )


def _remove_file(name: str) -> None:
    """Remove a stored file; what cannot be removed now is left to the orphan sweep."""
    try:
        default_storage.delete(name)
    except Exception:
        logger.exception("could not remove the stored file %s", name)


def find_files(firmware: Firmware) -> None:
    """See that the stored files are there in full length; else FileUnavailableError, as `verify_files`."""
    files = list(firmware.files.all())
    if not files:
        raise FileUnavailableError(f"firmware {firmware.pk} has no file")
    for row in files:
        try:
            with default_storage.open(row.file.name) as stored:
                size = stored.size
        except FileNotFoundError as error:
            raise FileUnavailableError(f"{row.file.name} cannot be read: {error}") from error
        if size != row.size:
            raise FileUnavailableError(f"{row.file.name} has {size} bytes, not {row.size}")


def verify_files(firmware: Firmware) -> None:
    """Digest the stored files again; FileUnavailableError if one is missing or not what was uploaded.

    A storage that does not answer says nothing about the file: its own error is left to the caller.
    """
    files = list(firmware.files.all())
    if not files:
        raise FileUnavailableError(f"firmware {firmware.pk} has no file")
    for row in files:
        digest = hashlib.sha256()
        try:
            with default_storage.open(row.file.name) as stored:
                for chunk in stored.chunks(CHUNK):
                    digest.update(chunk)
        except FileNotFoundError as error:
            raise FileUnavailableError(f"{row.file.name} cannot be read: {error}") from error
        if digest.hexdigest() != row.sha256:
            raise FileUnavailableError(f"{row.file.name} is not the file that was uploaded")


def sweep_orphans(now: datetime | None = None) -> int:
    """Remove stored files that no row knows and that are no upload under way; how many were removed."""
    before = (now or timezone.now()) - ORPHAN_AGE
    try:
        stored = {f"{FOLDER}/{name}" for name in default_storage.listdir(FOLDER)[1]}
    except FileNotFoundError:
        return 0
    orphans = stored - set(FirmwareFile.objects.values_list("file", flat=True))
    removed = 0
    for name in orphans:
        try:
            if default_storage.get_modified_time(name) < before:
                default_storage.delete(name)
                removed += 1
        except FileNotFoundError:
            continue
    if removed:
        logger.info("removed %d stored files that no firmware knows", removed)
    return removed
