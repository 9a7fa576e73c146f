"""What happens to devices while a browser looks on: pushes, reports, and live messages of other processes."""

import threading
from collections.abc import Sequence

from django.db import connection
from django.utils import timezone

from campaigns import dispatch, expand, live, moves, reports
from campaigns.models import Campaign
from campaigns.reports import Inform, Step
from campaigns.states import CampaignKind, CampaignStatus, TaskStatus
from devices import versions
from devices.models import Device
from firmware.models import Firmware
from tests.factories import CampaignFactory, TaskFactory

SOON = 8000


def recounted(*campaigns: Campaign) -> None:
    versions.recount(repair=True)
    moves.recount([each.pk for each in campaigns], repair=True)


def pushed(campaign: Campaign) -> None:
    """What the expansion and the dispatcher do, with a broker that takes every message."""
    now = timezone.now()
    expand.expand(campaign.pk, now)
    claimed = dispatch.claim(campaign, now) or []
    dispatch.acknowledge([task for task, _device in claimed], now)


def told(campaigns: set[int], devices: Sequence[int] = ()) -> None:
    """The live message of another process: a thread, because Playwright keeps a loop running in this one."""

    def tell() -> None:
        live.changed(campaigns, device_ids=devices)
        connection.close()

    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()


def reported(device: Device, step: int | None = None, *, version: str = "", detail: str = "") -> None:
    """What the gateway does with a report."""
    now = timezone.now()
    if step is None:
        applied = reports.apply([Inform(device.pk, device.product_id, "default", version, now)])
    else:
        applied = reports.apply([Step(device.pk, None, step, detail, now)])
    told(applied.campaigns, [device.pk])


def proven(firmware: Firmware, device: Device) -> None:
    earlier = CampaignFactory.create(
        firmware=firmware,
        kind=CampaignKind.VERIFY,
        status=CampaignStatus.COMPLETED,
        source_versions=["1.0.0"],
    )
    TaskFactory.create(campaign=earlier, device=device, status=TaskStatus.SUCCEEDED)
    recounted(earlier)
