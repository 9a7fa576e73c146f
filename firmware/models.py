"""Firmware: a version that devices of a product can be brought to, with its files."""

import secrets
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from devices.models import DEFAULT_MODULE, Product
from firmware.validators import validate_firmware_name, validate_version
from otaplatform.accounts.fields import CodePointField
from otaplatform.accounts.models import Account

# Where the files lie in the storage.
FOLDER = "firmware"


class SignMethod(models.TextChoices):
    MD5 = "MD5", "MD5"
    SHA256 = "SHA256", "SHA256"


class FirmwareStatus(models.IntegerChoices):
    """The numbers are those of Alibaba's API; the console of the product text shows two of them."""

    NOT_NEEDED = -1, _("No verification needed")
    UNVERIFIED = 0, _("Unverified")
    VERIFIED = 1, _("Verified")
    VERIFYING = 2, _("Verifying")
    VERIFICATION_FAILED = 3, _("Verification failed")


BATCHABLE = frozenset({FirmwareStatus.VERIFIED, FirmwareStatus.NOT_NEEDED})


class FirmwareQuerySet(models.QuerySet["Firmware"]):
    def of(self, account: Account | None) -> "FirmwareQuerySet":
        """The firmware of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(account=account)

    def unassociated(self) -> "FirmwareQuerySet":
        """Files from before firmware belonged to products."""
        return self.filter(product__isnull=True)

    def batchable(self) -> "FirmwareQuerySet":
        """What may be used for a batch update."""
        return self.filter(product__isnull=False, status__in=BATCHABLE)


class Firmware(models.Model):
    """One uploaded firmware. After the upload its files and what describes them never change."""

    account = models.ForeignKey(Account, models.PROTECT, verbose_name=_("account"), related_name="firmware")
    product = models.ForeignKey(
        Product,
        models.PROTECT,
        verbose_name=_("product"),
        related_name="firmware",
        null=True,
        blank=True,
        help_text=_("Empty only for files that were uploaded before firmware belonged to products."),
    )
    name = models.CharField(_("firmware name"), max_length=32, validators=[validate_firmware_name])
    version = CodePointField(_("firmware version"), max_length=64, validators=[validate_version])
    module = models.CharField(_("module"), max_length=64, default=DEFAULT_MODULE)
    source_version = models.CharField(
        _("source version"),
        max_length=64,
        blank=True,
        default="",
        help_text=_("The one version that a delta package applies to; empty for a full package."),
    )
    sign_method = models.CharField(
        _("signature algorithm"), max_length=6, choices=SignMethod, default=SignMethod.MD5
    )
    status = models.SmallIntegerField(_("status"), choices=FirmwareStatus, default=FirmwareStatus.UNVERIFIED)
    description = models.CharField(_("description"), max_length=100, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("uploaded by"),
        null=True,
        blank=True,
        related_name="+",
    )
    created_at = models.DateTimeField(_("uploaded"), default=timezone.now, editable=False)

    objects = FirmwareQuerySet.as_manager()

    class Meta:
        verbose_name = _("firmware")
        verbose_name_plural = _("firmware")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "name"],
                name="firmware_name_once_per_account",
                violation_error_code="name_taken",
                violation_error_message=_("The account already has a firmware of this name."),
            ),
            models.UniqueConstraint(
                fields=["product", "module", "version", "source_version"],
                name="firmware_version_once_per_product",
                violation_error_code="version_taken",
                violation_error_message=_("The product already has a firmware of this version."),
            ),
            models.CheckConstraint(
                condition=Q(status__in=FirmwareStatus.values), name="firmware_status_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def is_batchable(self) -> bool:
        return self.product_id is not None and self.status in BATCHABLE


def upload_to(instance: "FirmwareFile", filename: str) -> str:
    """A key that tells nothing and is never used twice; the name that a person gave is kept in its column."""
    return f"{FOLDER}/{secrets.token_hex(16)}{instance.suffix}"


class FirmwareFile(models.Model):
    """A stored file of a firmware, with the digests computed while it was received."""

    firmware = models.ForeignKey(Firmware, models.CASCADE, related_name="files")
    position = models.PositiveSmallIntegerField(default=0)
    name = models.CharField(_("file name"), max_length=255)
    suffix = models.CharField(max_length=8)
    file: Any = models.FileField(_("file"), upload_to=upload_to, max_length=200)
    size = models.BigIntegerField(_("size"))
    md5 = models.CharField("MD5", max_length=32)
    sha256 = models.CharField("SHA-256", max_length=64)

    class Meta:
        verbose_name = _("firmware file")
        verbose_name_plural = _("firmware files")
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["firmware", "position"], name="firmware_file_position_once"),
            models.CheckConstraint(condition=Q(size__gt=0), name="firmware_file_not_empty"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def digest(self) -> str:
        """The digest that the firmware's signature algorithm asks for, in lower-case hex."""
        return self.sha256 if self.firmware.sign_method == SignMethod.SHA256 else self.md5
