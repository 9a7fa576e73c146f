"""Firmware: upload, look, associate, validate, delete, download."""

from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import services as campaign_services
from devices import sql
from devices.models import Product
from firmware import services
from firmware.download import stream_file
from firmware.models import Firmware, FirmwareFile
from otaplatform.api.base import Resource, one
from otaplatform.api.errors import ApiError
from otaplatform.api.parsers import JSONParser, MultiPartParser
from otaplatform.api.serializers import firmware as shapes
from otaplatform.api.serializers.campaigns import CampaignShown

LINK_LIFETIME = timedelta(minutes=10)
_SALT = "api.firmware.download"


class FirmwareResource(Resource):
    """Firmware of the account."""

    permissions = {
        "list": "firmware.view_firmware",
        "retrieve": "firmware.view_firmware",
        "create": "firmware.add_firmware",
        "destroy": "firmware.delete_firmware",
        "download": "firmware.change_firmware",
        "associate": "firmware.change_firmware",
        "validate": "campaigns.add_campaign",
    }
    inputs = {
        "create": shapes.FirmwareNew,
        "associate": shapes.Association,
        "validate": shapes.ValidationNew,
    }
    outputs = {
        "list": (200, shapes.FirmwareShown),
        "retrieve": (200, shapes.FirmwareShown),
        "create": (201, shapes.FirmwareShown),
        "destroy": (204, None),
        "download": (200, shapes.DownloadLink),
        "associate": (200, shapes.FirmwareShown),
        "validate": (201, CampaignShown),
    }
    filters = {"list": shapes.FirmwareFilters}

    @property
    def field_names(self) -> dict[str, str]:  # type: ignore[override]
        names = {"upload": "file"}
        return names | {f"product_{self.kwargs['pk']}": "product"} if "pk" in self.kwargs else names

    def get_parsers(self) -> list[Any]:
        uploads = getattr(self, "action_map", {}).get("post") == "create"
        return [MultiPartParser()] if uploads else [JSONParser()]

    def get_queryset(self) -> "QuerySet[Firmware]":
        rows = Firmware.objects.of(self.account)
        return rows.select_related("product", "account", "created_by").prefetch_related("files")

    def firmware(self) -> Firmware:
        firmware: Firmware = one(self.get_queryset(), pk=self.kwargs["pk"])
        return firmware

    def _product(self, product_key: str) -> Product:
        product = Product.objects.of(self.account).filter(product_key=product_key).first()
        if product is None:
            problems = {"product": [("does_not_exist", _("The account has no such product."))]}
            raise ApiError("invalid", problems=problems)
        return product

    def list(self, request: Request) -> Response:
        """Firmware, newest first."""
        asked, rows = self.asked(), self.get_queryset()
        if product := asked.get("product"):
            rows = rows.filter(product__product_key=product)
        if status := asked.get("status"):
            rows = rows.filter(status=next(s for s, name in shapes.STATUSES.items() if name == status))
        if name := asked.get("name"):
            rows = rows.filter(name__startswith=name)
        return self.list_of(self.page(rows))

    def create(self, request: Request) -> Response:
        """Upload a firmware file."""
        data = self.read()
        product = self._product(data["product"])
        firmware = services.upload_firmware(
            product.account,
            name=data["name"],
            version=data["version"],
            product=product,
            sign_method=data["sign_method"],
            upload=data["file"],
            description=data.get("description", ""),
            actor=self.actor,
        )
        return self.show(firmware)

    def retrieve(self, request: Request, pk: int) -> Response:
        """One firmware."""
        return self.show(self.firmware())

    def destroy(self, request: Request, pk: int) -> Response:
        """Delete a firmware that no campaign uses; 409 `in_use` otherwise."""
        services.delete_firmware(self.firmware(), self.actor)
        return Response(status=204)

    def download(self, request: Request, pk: int) -> Response:
        """A link to the file for people and programs, without a login; it ends after ten minutes."""
        file = self.firmware().files.first()
        if file is None:
            raise ApiError("not_found")
        token = signing.dumps(file.pk, salt=_SALT)
        url = settings.OTA_PUBLIC_URL + reverse("api:file", args=[token])
        return self.show({"url": url, "expires_at": timezone.now() + LINK_LIFETIME})

    def associate(self, request: Request, pk: int) -> Response:
        """Give a firmware from before firmware belonged to products its product, once and for all."""
        firmware, product = self.firmware(), self._product(self.read()["product"])
        services.associate({firmware: product}, self.actor)
        return self.show(self.firmware())

    def validate(self, request: Request, pk: int) -> Response:
        """Push the firmware to a few devices; it counts as verified from then on. Any number of times."""
        firmware, data = self.firmware(), self.read()
        options = {"timeout_minutes": data["timeout_minutes"]} if "timeout_minutes" in data else {}
        campaign = campaign_services.launch_validation(
            firmware,
            data["device_names"],
            source_versions=data.get("source_versions", ()),
            actor=self.actor,
            **options,
        )
        return self.show(campaign)


async def file(request: HttpRequest, token: str) -> HttpResponseBase:
    """The file of a link that `download` gave; the same bare 403 for everything that is not one."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    try:
        pk = signing.loads(token, salt=_SALT, max_age=LINK_LIFETIME)
    except signing.BadSignature:
        return HttpResponse(status=403)
    row = await FirmwareFile.objects.filter(pk=pk).afirst()
    # No connection of the database is held while bytes flow.
    await sync_to_async(sql.release_connections)()
    if row is None:
        return HttpResponse(status=403)
    response = await stream_file(request, row)
    response["Content-Disposition"] = "attachment"
    return response
