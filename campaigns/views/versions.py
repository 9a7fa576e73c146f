"""Versions: which firmware the devices of a product run."""

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from campaigns.views.common import page, whole_numbers
from devices.models import (
    DEFAULT_MODULE,
    Device,
    DevicePresence,
    DeviceVersion,
    Product,
    VersionCounter,
)
from firmware.models import Firmware
from otaplatform.accounts.paging import KeysetPage, keyset
from otaplatform.accounts.scope import Staff, account_scope, require

TOP = 5
PRODUCTS_SHOWN = 500
VERSIONS_SHOWN = 500


@require_GET
@require("devices.view_device")
def versions(request: Staff) -> HttpResponse:
    """Version Distribution, Versions and Devices, Device List of one product."""
    products = Product.objects.of(account_scope(request))
    wanted = whole_numbers(request.GET.getlist("product"))
    product = get_object_or_404(products, pk=wanted[0]) if wanted else products.first()
    if product is None:
        return page(request, "versions.html", _("Versions"), nav="versions", product=None)
    distribution = VersionCounter.objects.distribution(product)
    names = dict(
        Firmware.objects.filter(product=product, module=DEFAULT_MODULE, source_version="").values_list(
            "version", "name"
        )
    )
    version = request.GET.get("version", "").replace("\0", "")
    listed = _devices(request, product, version)
    return page(
        request,
        "versions.html",
        _("Versions"),
        nav="versions",
        product=product,
        products=products[:PRODUCTS_SHOWN],
        version=version,
        distribution=[(each, names.get(each, ""), count) for each, count in distribution[:VERSIONS_SHOWN]],
        slices=slices(distribution, names),
        total=sum(count for _version, count in distribution),
        devices=_described(listed.rows),
        paging=listed,
    )


def slices(distribution: Sequence[tuple[str, int]], names: dict[str, str]) -> list[dict[str, Any]]:
    """The top five versions and the rest: version ("" for the rest), words, devices, percent."""
    total = sum(count for _version, count in distribution)
    rest = sum(count for _version, count in distribution[TOP:])
    found = [
        {
            "version": version,
            "name": f"{names[version]} {version}" if version in names else version,
            "devices": count,
        }
        for version, count in distribution[:TOP]
    ]
    if rest:
        found.append({"version": "", "name": _("Others"), "devices": rest})
    return [{**each, "percent": f"{100 * int(str(each['devices'])) / total:.1f}"} for each in found]


def _devices(request: Staff, product: Product, version: str) -> KeysetPage[Device]:
    """A page of the product's devices, in the order of an index, whether or not a version is chosen."""
    if not version:
        return keyset(request, Device.objects.present().filter(product=product))
    on_version = DeviceVersion.objects.filter(
        product=product, module=DEFAULT_MODULE, version=version, device__removed_at__isnull=True
    ).select_related("device")
    found = keyset(request, on_version, "device_id", descending=False)
    return KeysetPage([row.device for row in found.rows], found.previous, found.next)


def _described(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Each device with its version and state: two queries for all."""
    ids = [device.pk for device in devices]
    running = {
        row.device_id: row for row in DeviceVersion.objects.filter(device__in=ids, module=DEFAULT_MODULE)
    }
    online = set(DevicePresence.objects.online().filter(pk__in=ids).values_list("pk", flat=True))
    return [
        {"device": device, "running": running.get(device.pk), "online": device.pk in online}
        for device in devices
    ]
