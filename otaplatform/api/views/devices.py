"""Devices of a product: register, look, disable, remove; their credentials and history."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns.why import Surroundings, why_device
from devices import listing, services, versions
from devices.models import Device, DeviceStatus, DeviceVersion, Product
from otaplatform.accounts import audit
from otaplatform.api import paging
from otaplatform.api.base import Filters, Resource, one
from otaplatform.api.errors import ApiError
from otaplatform.api.models import RegistrationJob
from otaplatform.api.parsers import JSONParser, MultiPartParser
from otaplatform.api.serializers import campaigns as campaign_shapes
from otaplatform.api.serializers import devices as shapes


@dataclass(frozen=True, slots=True)
class Row:
    """A device and what is shown beside it."""

    device: Device
    status: DeviceStatus
    versions: dict[str, str]
    why: str = ""
    why_code: str = ""


def rows_of(devices: Sequence[Device]) -> list[Row]:
    running: dict[int, dict[str, str]] = defaultdict(dict)
    for (device, module), version in versions.current([device.pk for device in devices]).items():
        running[device][module] = version
    return [Row(row.device, row.status, running[row.device.pk]) for row in listing.describe(devices)]


class OfProduct(Resource):
    """What lies under `products/{product_key}/devices/`."""

    def product(self) -> Product:
        product: Product = one(Product.objects.of(self.account), product_key=self.kwargs["product_key"])
        return product

    def get_queryset(self) -> "QuerySet[Device]":
        return Device.objects.present().filter(product=self.product()).select_related("product", "presence")

    def device(self) -> Device:
        device: Device = one(self.get_queryset(), name=self.kwargs["device_name"])
        return device


class DeviceResource(OfProduct):
    """Devices of a product."""

    permissions = {
        "list": "devices.view_device",
        "retrieve": "devices.view_device",
        "history": "devices.view_device",
        "tasks": "campaigns.view_updatetask",
        "create": "devices.add_device",
        "destroy": "devices.delete_device",
        "credentials": "devices.change_device",
        "reset_secret": "devices.change_device",
        "disable": "devices.change_device",
        "enable": "devices.change_device",
    }
    inputs = {"create": shapes.DeviceNew}
    outputs = {
        "list": (200, shapes.DeviceShown),
        "retrieve": (200, shapes.DeviceDetail),
        "history": (200, shapes.VersionChange),
        "tasks": (200, campaign_shapes.TaskShown),
        "create": (201, shapes.DeviceCreated),
        "destroy": (204, None),
        "credentials": (200, shapes.Credentials),
        "reset_secret": (200, shapes.Credentials),
        "disable": (200, shapes.DeviceDetail),
        "enable": (200, shapes.DeviceDetail),
    }
    filters = {"list": shapes.DeviceFilters, "history": Filters, "tasks": Filters}
    field_names = {"name": "device_name"}

    def list(self, request: Request, product_key: str) -> Response:
        """Devices, newest first."""
        asked = self.asked()
        devices = self.get_queryset().named_from(asked.get("name", ""))  # type: ignore[attr-defined]
        if version := asked.get("version"):
            running = DeviceVersion.objects.filter(device=OuterRef("pk"), version=version)
            devices = devices.filter(Exists(running.filter(product__product_key=product_key)))
        if status := asked.get("status"):
            devices = _in_status(devices, status)
        page = self.page(devices)
        return self.list_of(page, rows_of(page.rows))

    def create(self, request: Request, product_key: str) -> Response:
        """Register a device. Its DeviceSecret is in the answer, and later under `credentials/`."""
        product, name = self.product(), self.read().get("device_name")
        try:
            device = services.register_device(product, name, actor=self.actor)
        except ValidationError as error:
            if product.devices.present().filter(name=name).exists():
                raise ApiError("already_exists", " ".join(error.messages)) from None
            raise
        return self.show(device)

    def retrieve(self, request: Request, product_key: str, device_name: str) -> Response:
        """One device, and one sentence on why it is or is not being updated."""
        return self._show_device(self.device())

    def _show_device(self, device: Device) -> Response:
        (row,) = rows_of([device])
        reason = why_device(device)
        return self.show(Row(device, row.status, row.versions, str(reason), reason.code))

    def destroy(self, request: Request, product_key: str, device_name: str) -> Response:
        """Remove a device: it cannot connect again, and its open tasks fail."""
        services.remove_device(self.device(), self.actor)
        return Response(status=204)

    def disable(self, request: Request, product_key: str, device_name: str) -> Response:
        """Disconnect the device and let it connect no more. Repeating it changes nothing."""
        device = self.device()
        services.set_disabled(device, True, self.actor)
        return self._show_device(device)

    def enable(self, request: Request, product_key: str, device_name: str) -> Response:
        """Let the device connect again."""
        device = self.device()
        services.set_disabled(device, False, self.actor)
        return self._show_device(device)

    def credentials(self, request: Request, product_key: str, device_name: str) -> Response:
        """ProductKey, DeviceName and DeviceSecret; looking at them is recorded in the audit log."""
        return self.show(services.show_credentials(self.device(), self.actor))

    def reset_secret(self, request: Request, product_key: str, device_name: str) -> Response:
        """A new DeviceSecret. The device is disconnected and has to come back with it."""
        device = self.device()
        secret = services.reset_secret(device, self.actor)
        return self.show(services.DeviceCredentials(device.product.product_key, device.name, secret))

    def history(self, request: Request, product_key: str, device_name: str) -> Response:
        """The versions that the device reported, newest first."""
        return self.list_of(self.page(self.device().version_changes.all()))

    def tasks(self, request: Request, product_key: str, device_name: str) -> Response:
        """The update tasks of the device, newest first."""
        page = self.page(self.device().tasks.select_related("campaign", "device"))
        now = timezone.now()
        return self.list_of(page, around=Surroundings.of(page.rows, now), now=now)


def _in_status(devices: Any, status: str) -> Any:
    if status == DeviceStatus.DISABLED:
        return devices.filter(is_disabled=True)
    devices = devices.filter(is_disabled=False)
    if status == DeviceStatus.INACTIVE:
        return devices.filter(activated_at__isnull=True)
    online = Device.objects.online().values("pk")
    devices = devices.filter(activated_at__isnull=False)
    return devices.filter(pk__in=online) if status == DeviceStatus.ONLINE else devices.exclude(pk__in=online)


class JobResource(OfProduct):
    """Registration of many devices, with what became of each row."""

    parser_classes = [JSONParser, MultiPartParser]
    permissions = dict.fromkeys(("create", "retrieve", "rows"), "devices.add_device")
    inputs = {"create": shapes.JobNew}
    outputs = {
        "create": (201, shapes.JobShown),
        "retrieve": (200, shapes.JobShown),
        "rows": (200, shapes.JobRow),
    }
    filters = {"rows": Filters}

    def create(self, request: Request, product_key: str) -> Response:
        """Register devices: `count` of them under made-up names (JSON), or those of a CSV `file` (a form)."""
        product = self.product()
        names, count = None, None
        if request.content_type and request.content_type.startswith("multipart/"):
            form = shapes.JobFile(data=request.data)
            form.is_valid(raise_exception=True)
            try:
                names = services.names_of_file(form.validated_data["file"].file)
            except ValidationError as error:
                raise ValidationError({"file": error.error_list}) from None
        else:
            count = self.read()["count"]
        results = services.register_devices(product, names, count, actor=self.actor)
        job = RegistrationJob.objects.create(
            account=product.account,
            product=product,
            created_by=self.actor,
            rows=[[r.name, r.device.pk if r.device else None, r.error] for r in results],
        )
        return self.show(job)

    def _job(self) -> RegistrationJob:
        job: RegistrationJob = one(self.product().registration_jobs.all(), pk=self.kwargs["pk"])
        return job

    def retrieve(self, request: Request, product_key: str, pk: int) -> Response:
        """A registration job."""
        return self.show(self._job())

    def rows(self, request: Request, product_key: str, pk: int) -> Response:
        """The rows of a job, in the order of the request, with secrets; looking is recorded."""
        job, size = self._job(), self.asked().get("page_size", paging.PAGE_SIZE)
        page = paging.page_of_list(request, list(enumerate(job.rows, start=1)), size=size)
        ids = [device for _number, (_name, device, _error) in page.rows if device]
        devices = Device.objects.present().in_bulk(ids)
        audit.record(job.account, self.actor, "device.secret_shown", job.product, devices=len(devices))
        shown = [
            {
                "row": number,
                "device_name": name,
                "device_secret": devices[device].secret if device in devices else None,
                "error": error,
            }
            for number, (name, device, error) in page.rows
        ]
        return self.list_of(page, shown)
