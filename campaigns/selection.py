"""Which devices a campaign covers: one place, and every answer is a queryset of devices."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, OuterRef, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from campaigns.models import Campaign, CampaignDevice, UpdateTask
from campaigns.states import ACTIVE, WAITING, Region
from devices import sql
from devices.models import (
    Device,
    DevicePresence,
    DeviceQuerySet,
    DeviceVersion,
    Product,
    validate_device_name,
)
from firmware.models import Firmware


def _running(module: str) -> QuerySet[DeviceVersion]:
    return DeviceVersion.objects.filter(device=OuterRef("pk"), module=module)


def wanted_versions(firmware: Firmware, source_versions: Sequence[str]) -> list[str]:
    """The versions that a campaign starts from; empty is any. A delta package knows its only one."""
    return [firmware.source_version] if firmware.source_version else list(source_versions)


def covered(product: Product, firmware: Firmware, source_versions: Sequence[str]) -> QuerySet[Device]:
    """Devices of the product that a campaign over all of it takes in now.

    Activated devices, on one of the source versions if any are named; those on the target already are left
    out. A device that never reported a version matches only when no version is named.
    """
    devices = Device.objects.usable().activated().filter(product=product)
    versions = _running(firmware.module)
    wanted = wanted_versions(firmware, source_versions)
    if wanted:
        return devices.filter(Exists(versions.filter(version__in=wanted)))
    return devices.exclude(Exists(versions.filter(version=firmware.version)))


def of_campaign(campaign: Campaign) -> QuerySet[Device]:
    """The devices that a stored campaign takes in now."""
    devices = covered(campaign.product, campaign.firmware, campaign.source_versions)
    if campaign.region == Region.DIRECTIONAL:
        chosen = CampaignDevice.objects.filter(campaign=campaign, device=OuterRef("pk"))
        devices = devices.filter(Exists(chosen))
    return devices


@dataclass
class Preview:
    """What a launch would do, counted; kept with the campaign."""

    matching: int = 0
    online: int = 0
    not_activated: int = 0
    on_target: int = 0
    # Devices on a firmware of this product that was uploaded later than this one: a downgrade.
    on_newer: int = 0
    busy: int = 0
    busy_waiting: int = 0
    # {campaign id: devices}, the largest first, at most ten.
    busy_by_campaign: dict[int, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    firmware: Firmware,
    *,
    region: str = Region.ALL,
    device_ids: Sequence[int] | None = None,
    source_versions: Sequence[str] = (),
    now: datetime | None = None,
) -> Preview:
    """Count what a launch with these choices would find."""
    now = now or timezone.now()
    assert firmware.product is not None, "only associated firmware can be used in a campaign"
    product = firmware.product
    everybody = Device.objects.usable().filter(product=product)
    matching = covered(product, firmware, source_versions)
    if region == Region.DIRECTIONAL:
        everybody = everybody.filter(id__in=sql.listed(device_ids or []))
        matching = matching.filter(id__in=sql.listed(device_ids or []))
    newer = Firmware.objects.filter(product=product, module=firmware.module, id__gt=firmware.pk)
    active = UpdateTask.objects.filter(device=OuterRef("pk"), status__in=ACTIVE, lane="")
    busy = matching.filter(Exists(active))
    rows = UpdateTask.objects.filter(status__in=ACTIVE, lane="", device__in=busy.values("id"))
    by_campaign = dict(rows.values_list("campaign").annotate(devices=Count("id")).order_by())
    largest = sorted(by_campaign.items(), key=lambda item: (-item[1], item[0]))[:10]
    return Preview(
        matching=matching.count(),
        online=matching.filter(presence__in=DevicePresence.objects.online(now)).count(),
        not_activated=everybody.filter(activated_at__isnull=True).count(),
        on_target=everybody.filter(
            Exists(_running(firmware.module).filter(version=firmware.version))
        ).count(),
        on_newer=matching.filter(
            Exists(_running(firmware.module).filter(version__in=newer.values("version")))
        ).count(),
        busy=sum(by_campaign.values()),
        busy_waiting=busy.filter(Exists(active.filter(status__in=WAITING))).count(),
        busy_by_campaign=dict(largest),
    )


def exclusion_reasons(
    firmware: Firmware, names: Sequence[str], source_versions: Sequence[str]
) -> tuple[list[int], dict[str, str]]:
    """Named devices of the product: the ids of those that match, and {name: code} for each that does not.

    Codes: `unknown`, `disabled`, `not_activated`, `on_target`, `other_version`.
    """
    assert firmware.product is not None, "only associated firmware can be used in a campaign"
    wanted = wanted_versions(firmware, source_versions)
    unique = list(dict.fromkeys(names))
    chosen: list[int] = []
    reasons: dict[str, str] = {}
    runs = Coalesce(_running(firmware.module).values("version")[:1], Value(""))
    for start in range(0, len(unique), 1000):
        some = unique[start : start + 1000]
        # What cannot be a name is not asked for: PostgreSQL refuses some characters outright.
        possible = [name for name in some if is_device_name(name)]
        rows = Device.objects.present().filter(product=firmware.product, name__in=possible)
        found: dict[str, tuple[int, str]] = {
            name: (pk, _reason(is_disabled, activated_at, version, firmware.version, wanted))
            for name, pk, is_disabled, activated_at, version in rows.annotate(runs=runs).values_list(
                "name", "id", "is_disabled", "activated_at", "runs"
            )
        }
        for name in some:
            pk, why = found.get(name, (0, "unknown"))
            if why:
                reasons[name] = why
            else:
                chosen.append(pk)
    return chosen, reasons


def _reason(
    is_disabled: bool, activated_at: datetime | None, version: str, target: str, wanted: Sequence[str]
) -> str:
    """Why a device that exists is left out; empty if it is not."""
    if is_disabled:
        return "disabled"
    if activated_at is None:
        return "not_activated"
    if version == target:
        return "on_target"
    return "other_version" if wanted and version not in wanted else ""


def is_device_name(name: str) -> bool:
    try:
        validate_device_name(name)
    except ValidationError:
        return False
    return True


def on_versions(product: Product, module: str, source_versions: Sequence[str]) -> DeviceQuerySet:
    """Devices to choose from for a validation: activated, on these versions if any are named."""
    devices = Device.objects.usable().activated().filter(product=product)
    if source_versions:
        devices = devices.filter(Exists(_running(module).filter(version__in=list(source_versions))))
    return devices
