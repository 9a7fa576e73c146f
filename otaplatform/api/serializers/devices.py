"""Products and devices."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from devices.models import (
    Channel,
    Device,
    DeviceStatus,
    DeviceVersionChange,
    Product,
    validate_device_name,
    validate_product_name,
)
from devices.services import MAX_BATCH
from otaplatform.api.base import Filters
from otaplatform.api.fields import Moment, Shown, Strict, StrictModel, Text, Truth, Whole
from otaplatform.api.models import RegistrationJob


class ProductShown(Shown):
    class Meta:
        model = Product
        fields = ["product_key", "name", "description", "secure_update", "created_at"]


class ProductCreated(ProductShown):
    product_secret = serializers.CharField(source="secret", read_only=True)

    class Meta(ProductShown.Meta):
        fields = [*ProductShown.Meta.fields, "product_secret"]


class ProductNew(StrictModel):
    name = Text(min_length=4, max_length=30, validators=[validate_product_name])

    class Meta:
        model = Product
        fields = ("name", "description")


class ProductEdit(ProductNew):
    name = Text(min_length=4, max_length=30, validators=[validate_product_name], required=False)


class ProductFilters(Filters):
    name = serializers.CharField(required=False, max_length=30, help_text="Part of the product name")


class ProductSecret(serializers.Serializer[Any]):
    product_key = serializers.CharField()
    product_secret = serializers.CharField(source="secret")


class SecureUpdateSwitch(Strict):
    enabled = Truth()


class SecureUpdateShown(serializers.Serializer[Any]):
    enabled = serializers.BooleanField()
    public_key_pem = serializers.CharField(allow_blank=True, help_text="Empty before it was first enabled")
    public_key_c = serializers.CharField(allow_blank=True, help_text="For ota_public_key_config.h")


class VersionShare(serializers.Serializer[Any]):
    version = serializers.CharField()
    devices = serializers.IntegerField()
    percent = serializers.FloatField(help_text="Of the devices that reported a version, with two decimals")


class VersionFilters(Filters):
    module = Text(required=False, max_length=64)


class DeviceNew(Strict):
    device_name = Text(
        required=False,
        min_length=4,
        max_length=32,
        validators=[validate_device_name],
        help_text="Left out: a name is made up",
    )


class DeviceFilters(Filters):
    status = serializers.ChoiceField(DeviceStatus.choices, required=False)
    # What devices run is theirs to name: the rules for firmware do not hold here.
    version = Text(required=False, max_length=64, help_text="As devices reported it, character by character")
    name = serializers.CharField(required=False, max_length=32, help_text="Beginning of the DeviceName")


class DeviceShown(serializers.Serializer[Any]):
    """A device with what a page of devices reads at once: see `views.devices.Row`."""

    product_key = serializers.CharField(source="device.product.product_key")
    device_name = serializers.CharField(source="device.name")
    status = serializers.ChoiceField(DeviceStatus.choices)
    channel = serializers.ChoiceField(Channel.choices, source="device.presence.channel")
    versions = serializers.DictField(child=serializers.CharField(), help_text="Module -> version")
    activated_at = Moment(source="device.activated_at", allow_null=True)
    connected_at = Moment(source="device.presence.connected_at", allow_null=True)
    created_at = Moment(source="device.created_at")


class DeviceDetail(DeviceShown):
    why = serializers.CharField(help_text="Why the device is or is not being updated, in words")
    why_code = serializers.CharField()


class DeviceCreated(serializers.ModelSerializer[Any]):
    product_key = serializers.CharField(source="product.product_key", read_only=True)
    device_name = serializers.CharField(source="name", read_only=True)
    device_secret = serializers.CharField(source="secret", read_only=True)
    created_at = Moment(read_only=True)

    class Meta:
        model = Device
        fields = ("product_key", "device_name", "device_secret", "created_at")


class Credentials(serializers.Serializer[Any]):
    product_key = serializers.CharField()
    device_name = serializers.CharField()
    device_secret = serializers.CharField()


class VersionChange(Shown):
    class Meta:
        model = DeviceVersionChange
        fields = ("id", "at", "module", "before", "version")


class JobNew(Strict):
    """As JSON a count; as a form a CSV file."""

    count = Whole(min_value=1, max_value=MAX_BATCH)


class JobFile(Strict):
    file = serializers.FileField(
        help_text="CSV in UTF-8, UTF-16 or GB18030: a DeviceName a line, or a column headed DeviceName"
    )


class JobShown(Shown):
    product_key = serializers.CharField(source="product.product_key", read_only=True)
    status = serializers.SerializerMethodField()
    requested = serializers.SerializerMethodField()
    registered = serializers.SerializerMethodField()

    class Meta:
        model = RegistrationJob
        fields = ("id", "product_key", "status", "requested", "registered", "created_at")

    @extend_schema_field({"type": "string", "enum": ["done"]})
    def get_status(self, job: RegistrationJob) -> str:
        return "done"

    def get_requested(self, job: RegistrationJob) -> int:
        return len(job.rows)

    def get_registered(self, job: RegistrationJob) -> int:
        return sum(1 for _name, device, _error in job.rows if device)


class JobRow(serializers.Serializer[Any]):
    row = serializers.IntegerField(help_text="From 1, in the order of the request")
    device_name = serializers.CharField()
    device_secret = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_blank=True)
