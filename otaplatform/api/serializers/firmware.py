"""Firmware."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from campaigns.services import MAX_VALIDATED
from firmware.models import Firmware, FirmwareFile, FirmwareStatus, SignMethod
from firmware.validators import validate_firmware_name, validate_version
from otaplatform.api.base import Filters
from otaplatform.api.fields import Moment, Shown, Strict, Text, Texts, Whole

STATUSES = {status: status.name.lower() for status in FirmwareStatus}


class FirmwareShown(Shown):
    product: Any = serializers.SlugRelatedField(slug_field="product_key", read_only=True, allow_null=True)
    status = serializers.SerializerMethodField()
    created_by: Any = serializers.SlugRelatedField(slug_field="username", read_only=True, allow_null=True)
    file_name = serializers.SerializerMethodField()
    size = serializers.SerializerMethodField()
    md5 = serializers.SerializerMethodField()
    sha256 = serializers.SerializerMethodField()

    class Meta:
        model = Firmware
        fields = (
            "id",
            "name",
            "version",
            "product",
            "module",
            "source_version",
            "sign_method",
            "status",
            "description",
            "file_name",
            "size",
            "md5",
            "sha256",
            "created_by",
            "created_at",
        )

    @extend_schema_field({"type": "string", "enum": list(STATUSES.values())})
    def get_status(self, firmware: Firmware) -> str:
        return STATUSES[FirmwareStatus(firmware.status)]

    def _file(self, firmware: Firmware) -> FirmwareFile | None:
        return next(iter(firmware.files.all()), None)

    def get_file_name(self, firmware: Firmware) -> str:
        file = self._file(firmware)
        return file.name if file else ""

    def get_size(self, firmware: Firmware) -> int:
        return sum(file.size for file in firmware.files.all())

    def get_md5(self, firmware: Firmware) -> str:
        file = self._file(firmware)
        return file.md5 if file else ""

    def get_sha256(self, firmware: Firmware) -> str:
        file = self._file(firmware)
        return file.sha256 if file else ""


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9._-]{1,64}$"})
class Version(Text):
    """A firmware version; its rules are `validate_version`'s."""


class FirmwareNew(Strict):
    name = Text(min_length=4, max_length=32, validators=[validate_firmware_name])
    version = Version(max_length=64, validators=[validate_version])
    product = Text(max_length=20, help_text="ProductKey")
    sign_method = serializers.ChoiceField(SignMethod.choices)
    description = Text(max_length=100, required=False, allow_blank=True)
    file = serializers.FileField(allow_empty_file=True)


class FirmwareFilters(Filters):
    product = serializers.CharField(required=False, max_length=20, help_text="ProductKey")
    status = serializers.ChoiceField(sorted(STATUSES.values()), required=False)
    name = serializers.CharField(required=False, max_length=32, help_text="Beginning of the firmware name")


class Association(Strict):
    product = Text(max_length=20, help_text="ProductKey")


class ValidationNew(Strict):
    device_names = Texts(limit=MAX_VALIDATED, allow_empty=False)
    source_versions = Texts(limit=1000, required=False)
    timeout_minutes = Whole(
        required=False, allow_null=True, min_value=1, max_value=1440, help_text="null: never; left out: 60"
    )


class DownloadLink(serializers.Serializer[Any]):
    url = serializers.URLField()
    expires_at = Moment()
