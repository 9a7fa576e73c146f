"""Which devices a campaign covers: one place, and every answer is a queryset of devices."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Count, Exists, F, Max, OuterRef, QuerySet
from django.utils import timezone

from campaigns.models import Campaign, CampaignDevice, UpdateTask
from campaigns.states import ACTIVE, WAITING, Region
from devices.models import (
    Device,
    DevicePresence,
    DevicePresenceQuerySet,
    DeviceQuerySet,
    DeviceVersion,
    Product,
)
from devices.versions import settled
from firmware.models import Firmware


class Stretch(NamedTuple):
    """Devices with ids behind `after`, up to `last`."""

    after: int
    last: int


def _running(module: str) -> QuerySet[DeviceVersion]:
    return DeviceVersion.objects.filter(device=OuterRef("pk"), module=module)


def wanted_versions(firmware: Firmware, source_versions: Sequence[str]) -> list[str]:
    """The versions that a campaign starts from; empty is any. A delta package knows its only one."""
    return [firmware.source_version] if firmware.source_version else list(source_versions)


def covered(
    product: Product,
    firmware: Firmware,
    source_versions: Sequence[str],
    stretch: Stretch | None = None,
    now: datetime | None = None,
) -> QuerySet[Device]:
    """Devices of the product that a campaign over all of it takes in now; of a stretch of them if given.

    Activated devices, on one of the source versions if any are named; those on the target already are left
    out. A device that never reported a version matches only when no version is named. A report that has not
    settled yet does not count: the version before it does.
    """
    now = now or timezone.now()
    devices = Device.objects.usable().activated().filter(product=product)
    versions = _running(firmware.module)
    if stretch:
        devices = devices.filter(id__gt=stretch.after, id__lte=stretch.last)
        versions = versions.filter(device__gt=stretch.after, device__lte=stretch.last)
    wanted = wanted_versions(firmware, source_versions)
    if wanted:
        return devices.filter(Exists(versions.filter(settled(wanted, now))))
    return devices.exclude(Exists(versions.filter(settled([firmware.version], now))))


def _in_question(campaign: Campaign) -> QuerySet[Any, Any]:
    """{"candidate": device id} of all that the campaign may ever take in, whether they match or not."""
    if campaign.region == Region.DIRECTIONAL:
        return CampaignDevice.objects.filter(campaign=campaign).values(candidate=F("device"))
    return Device.objects.filter(product=campaign.product).values(candidate=F("id"))


def next_stretch(campaign: Campaign, size: int) -> Stretch | None:
    """The next `size` devices in question behind the campaign's cursor; None if none is left."""
    behind = _in_question(campaign).filter(candidate__gt=campaign.cursor).order_by("candidate")[:size]
    last = behind.aggregate(last=Max("candidate"))["last"]
    return None if last is None else Stretch(campaign.cursor, last)


def presence_of(campaign: Campaign, stretch: Stretch) -> DevicePresenceQuerySet:
    """The presence rows of a stretch's devices in question, in id order."""
    devices = _in_question(campaign).filter(candidate__gt=stretch.after, candidate__lte=stretch.last)
    bounds = {"device__gt": stretch.after, "device__lte": stretch.last}
    return DevicePresence.objects.filter(**bounds, device__in=devices).order_by("device")


def of_campaign(campaign: Campaign, stretch: Stretch) -> QuerySet[Device]:
    """The devices of a stretch that a stored campaign takes in now.

    The bounds are repeated in each subquery: the database does not carry them over, and would read every
    row of a large fleet for each stretch.
    """
    after, last = stretch
    devices = covered(campaign.product, campaign.firmware, campaign.source_versions, stretch)
    if campaign.region == Region.DIRECTIONAL:
        chosen = CampaignDevice.objects.filter(campaign=campaign, device=OuterRef("pk"))
        devices = devices.filter(Exists(chosen.filter(device__gt=after, device__lte=last)))
    return devices


@dataclass(slots=True)
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

    def set_busy(self, by_campaign: Mapping[int, int]) -> None:
        largest = sorted(by_campaign.items(), key=lambda item: (-item[1], item[0]))
        self.busy, self.busy_by_campaign = sum(by_campaign.values()), dict(largest[:10])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(firmware: Firmware, source_versions: Sequence[str] = (), now: datetime | None = None) -> Preview:
    """Count what a launch over all of the product's devices would find."""
    now = now or timezone.now()
    assert firmware.product is not None, "only associated firmware can be used in a campaign"
    product = firmware.product
    everybody = Device.objects.usable().filter(product=product)
    matching = covered(product, firmware, source_versions)
    newer = Firmware.objects.filter(product=product, module=firmware.module, id__gt=firmware.pk)
    active = UpdateTask.objects.filter(device=OuterRef("pk"), status__in=ACTIVE, lane="")
    busy = matching.filter(Exists(active))
    rows = UpdateTask.objects.filter(status__in=ACTIVE, lane="", device__in=busy.values("id"))
    preview = Preview(
        matching=matching.count(),
        online=matching.filter(presence__in=DevicePresence.objects.online(now)).count(),
        not_activated=everybody.filter(activated_at__isnull=True).count(),
        on_target=everybody.filter(
            Exists(_running(firmware.module).filter(version=firmware.version))
        ).count(),
        on_newer=matching.filter(
            Exists(_running(firmware.module).filter(version__in=newer.values("version")))
        ).count(),
        busy_waiting=busy.filter(Exists(active.filter(status__in=WAITING))).count(),
    )
    preview.set_busy(dict(rows.values_list("campaign").annotate(devices=Count("id")).order_by()))
    return preview


def on_versions(product: Product, module: str, source_versions: Sequence[str]) -> DeviceQuerySet:
    """Devices to choose from for a validation: activated, on these versions if any are named."""
    devices = Device.objects.usable().activated().filter(product=product)
    if source_versions:
        devices = devices.filter(Exists(_running(module).filter(version__in=list(source_versions))))
    return devices
