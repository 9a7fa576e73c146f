"""The pages of updates: readable by all, in both languages, in light and dark, on a phone."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page

from campaigns.states import Reason, TaskStatus
from devices.models import Device, Product
from firmware.models import Firmware
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot, scrolls_sideways, serious_faults
from tests.browser.updating import proven, recounted
from tests.factories import CampaignFactory, DeviceFactory, TaskFactory


@pytest.fixture
def pages(firmware: Firmware, product: Product, devices: list[Device]) -> dict[str, str]:
    """A batch as the look shows it, with something in every tab."""
    now = timezone.now()
    proven(firmware, devices[0])
    campaign = CampaignFactory.create(
        firmware=firmware,
        source_versions=["1.0.0", "1.1.0"],
        retry_interval_minutes=30,
        max_retries=2,
        max_per_minute=1000,
        started_at=now - timedelta(minutes=12),
    )
    updating = [
        (72, {}),
        (35, {}),
        (0, {"status": TaskStatus.NOTIFIED, "acknowledged_at": now, "pushed_at": now - timedelta(minutes=3)}),
        (100, {}),
        (18, {"attempt": 2, "reason": Reason.DOWNLOAD, "detail": "no route"}),
    ]
    for number, (progress, values) in enumerate(updating):
        device = DeviceFactory.create(
            product=product, name=f"gw-live-{number:04d}", version="1.1.0", online=True
        )
        moment = {"pushed_at": now, "active_at": now - timedelta(seconds=3 * number)}
        state = {"status": TaskStatus.IN_PROGRESS, "progress": progress} | moment | values
        TaskFactory.create(campaign=campaign, device=device, **state)
    for status, count, reason in (
        (TaskStatus.SUCCEEDED, 30, ""),
        (TaskStatus.QUEUED, 6, ""),
        (TaskStatus.FAILED, 2, Reason.VERIFICATION),
        (TaskStatus.CANCELED, 1, ""),
    ):
        TaskFactory.create_batch(count, campaign=campaign, status=status, reason=reason, detail="")
    for number in range(7):
        DeviceFactory.create_batch(7 - number, product=product, version=f"1.{number}.2")
    recounted(campaign)
    Device.objects.update(activated_at=now)
    task = campaign.tasks.filter(attempt=2).get()
    return {
        "details": f"/batches/{campaign.pk}/?tab=updating",
        "details-pending": f"/batches/{campaign.pk}/?tab=pending",
        "details-failed": f"/batches/{campaign.pk}/?tab=failed",
        "details-firmware": f"/firmware/{firmware.pk}/details/?tab=succeeded",
        "task": f"/tasks/{task.pk}/",
        "validate": f"/firmware/{firmware.pk}/validate/",
        "batch": f"/firmware/{firmware.pk}/batch/",
        "batches": "/batches/",
        "versions": "/versions/",
        "dashboard-updates": "/",
        "device-updates": f"/devices/device/{task.device_id}/change/",
    }


def walk(page: Page, pages: dict[str, str], suffix: str) -> list[str]:
    faults = []
    for name, address in pages.items():
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        faults += [f"{name}: {fault}" for fault in serious_faults(page)]
        if scrolls_sideways(page):
            faults.append(f"{name}: wider than the window")
        screenshot(page, f"{name}-{suffix}")
    return faults


def test_nothing_serious_in_chinese(
    open_console: OpenConsole, administrator: User, pages: dict[str, str]
) -> None:
    assert walk(open_console("/", administrator, chinese=True), pages, "zh") == []


def test_nothing_serious_in_dark_on_a_phone(
    open_console: OpenConsole, administrator: User, pages: dict[str, str]
) -> None:
    assert walk(open_console("/", administrator, phone=True, dark=True), pages, "phone") == []
