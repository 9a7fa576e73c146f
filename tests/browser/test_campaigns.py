"""Updating devices in a real browser: validate, batch, follow it live, try again, cancel, versions."""

import re
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from playwright.sync_api import Page, expect

from campaigns import dispatch, expand, live, moves, reports
from campaigns.models import Campaign
from campaigns.reports import Inform, Step
from campaigns.states import CampaignKind, CampaignStatus, Policy, Reason, TaskStatus
from devices import versions
from devices.models import Device, Product
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot, scrolls_sideways, serious_faults
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, ProductFactory, TaskFactory

SOON = 8000


@pytest.fixture
def product(administrator: User) -> Product:
    return ProductFactory.create(account=administrator.account, name="智能网关")


@pytest.fixture
def firmware(product: Product) -> Firmware:
    return FirmwareFactory.create(product=product, name="gateway_fw_2", version="2.1.0")


@pytest.fixture
def devices(product: Product) -> list[Device]:
    made = [
        DeviceFactory.create(product=product, name=f"gw-shanghai-{number:04d}", version="1.0.0", online=True)
        for number in range(3)
    ]
    made.append(DeviceFactory.create(product=product, name="gw-beijing-0007", version="1.1.0", online=False))
    versions.recount(repair=True)
    return made


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


def choose(page: Page, name: str, prefix: str) -> None:
    page.get_by_role("combobox", name="DeviceName").or_(
        page.get_by_role("combobox", name="Device Range")
    ).fill(prefix)
    page.get_by_role("option", name=re.compile(f"^{name}")).click()


def test_a_validation_is_followed_live_until_the_device_runs_the_new_version(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    Firmware.objects.update(status=FirmwareStatus.UNVERIFIED)
    page = open_console(f"/firmware/{firmware.pk}/validate/", administrator)
    page.get_by_label("1.0.0 (3)").check()
    choose(page, "gw-shanghai-0001", "gw-shang")
    expect(page.get_by_role("listitem").filter(has_text="gw-shanghai-0001")).to_be_visible()
    assert serious_faults(page) == []
    screenshot(page, "validate-en")
    page.get_by_role("button", name="Start validation").click()
    expect(page.get_by_text("Verified means that a validation was performed")).to_be_visible()
    campaign = Campaign.objects.get()
    pushed(campaign)
    told({campaign.pk})
    tabs = page.get_by_role("navigation", name="Devices by state")
    expect(tabs.get_by_role("link", name=re.compile("^Updating 1$"))).to_be_visible(timeout=SOON)
    tabs.get_by_role("link", name=re.compile("^Updating")).click()
    row = page.get_by_role("row").filter(has_text="gw-shanghai-0001")
    expect(row).to_contain_text("no answer yet")
    expect(page.locator("[data-live-state]")).to_have_text("Live", timeout=SOON)
    page.evaluate("window.untouched = true")
    reported(devices[1], 10)
    expect(row).to_contain_text("Downloading", timeout=SOON)
    reported(devices[1], 72)
    expect(row).to_contain_text("72%", timeout=SOON)
    expect(row.get_by_role("progressbar")).to_have_js_property("value", 72)
    reported(devices[1], 100)
    expect(row).to_contain_text("Written; waiting for the restart", timeout=SOON)
    reported(devices[1], version="2.1.0")
    expect(tabs.get_by_role("link", name=re.compile("^Update Successful 1$"))).to_be_visible(timeout=SOON)
    expect(page.get_by_text("No device is updating")).to_be_visible(timeout=SOON)
    assert page.evaluate("window.untouched"), "the page was never reloaded"


def proven(firmware: Firmware, device: Device) -> None:
    earlier = CampaignFactory.create(
        firmware=firmware,
        kind=CampaignKind.VERIFY,
        status=CampaignStatus.COMPLETED,
        source_versions=["1.0.0"],
    )
    TaskFactory.create(campaign=earlier, device=device, status=TaskStatus.SUCCEEDED)
    recounted(earlier)


def test_a_static_batch_is_scheduled_in_the_users_own_zone(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    proven(firmware, devices[0])
    User.objects.update(time_zone="Asia/Shanghai")
    page = open_console(f"/firmware/{firmware.pk}/batch/", administrator)
    expect(page.get_by_label("1.0.0 (3)")).to_be_checked()
    expect(page.get_by_label("Max. Retry Times")).to_be_hidden()
    page.get_by_label("Retry After Failed Update").select_option("Retry in 30 Minutes")
    page.get_by_label("Max. Retry Times").select_option("2")
    page.get_by_label("Scheduled Update").check()
    at = (timezone.now() + timedelta(hours=2)).replace(second=0, microsecond=0)
    local = timezone.localtime(at, timezone.get_fixed_timezone(480))
    page.get_by_label("Scheduled time").fill(f"{local:%Y-%m-%dT%H:%M}")
    expect(page.get_by_text("Asia/Shanghai").last).to_be_visible()
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("3 of them online")).to_be_visible()
    page.get_by_role("button", name="Schedule update of 3 devices").dblclick()
    expect(page.get_by_text("The batch is scheduled.")).to_be_visible()
    campaign = Campaign.objects.get(kind=CampaignKind.UPGRADE)
    assert (campaign.schedule_at, campaign.max_retries) == (at, 2)
    expand.expand(campaign.pk)
    page.reload()
    pending = page.get_by_text(f"Pending (Scheduled time: {local:%Y-%m-%d %H:%M:%S})")
    expect(pending.first).to_be_visible()


def test_a_dynamic_batch_cannot_be_scheduled_and_stops_matching(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    page = open_console(f"/firmware/{firmware.pk}/batch/", administrator)
    page.get_by_label("Scheduled Update").check()
    page.get_by_label("Dynamic Update").check()
    expect(page.get_by_label("Scheduled Update")).to_be_disabled()
    expect(page.get_by_label("Update Now")).to_be_checked()
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Start update of 4 devices").click()
    expect(page.get_by_text("Confirm to go on anyway")).to_be_visible()
    page.get_by_label("Go on although").check()
    page.get_by_role("button", name="Start update of 4 devices").click()
    assert Campaign.objects.get().policy == Policy.DYNAMIC
    page.get_by_role("button", name="Stop matching").click()
    expect(page.get_by_text("The batch takes in no further devices.")).to_be_visible()


def test_a_directional_batch_by_file_says_which_names_are_left_out(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device], tmp_path: Path
) -> None:
    proven(firmware, devices[0])
    names = tmp_path / "devices.csv"
    names.write_text("DeviceName\ngw-shanghai-0000\ngw-beijing-0007\nnobody-here\n")
    page = open_console(f"/firmware/{firmware.pk}/batch/", administrator)
    expect(page.get_by_label("CSV file")).to_be_hidden()
    page.get_by_label("Directional Upgrade").check()
    page.get_by_label("CSV file").set_input_files(names)
    assert serious_faults(page) == []
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("nobody-here: the product has no such device.")).to_be_visible()
    expect(page.get_by_text("gw-beijing-0007: the device runs none of the chosen versions.")).to_be_visible()
    assert serious_faults(page) == []
    screenshot(page, "preview-en")
    page.get_by_role("button", name="Start update of 1 device").click()
    expect(page.get_by_text("The batch was launched.")).to_be_visible()
    assert Campaign.objects.latest("id").chosen.count() == 1


def test_a_failed_device_is_updated_again_and_a_waiting_one_canceled(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    campaign = CampaignFactory.create(firmware=firmware, expanded_at=None)
    pushed(campaign)
    reported(devices[0], 40)
    reported(devices[0], -2, detail="no route")
    page = open_console(f"/batches/{campaign.pk}/?tab=failed", administrator)
    row = page.get_by_role("row").filter(has_text=devices[0].name)
    expect(row).to_contain_text("The device could not download the firmware file. “no route”")
    expect(page.get_by_role("button", name="Update again", exact=True)).to_be_disabled()
    row.get_by_role("link", name=devices[0].name).click()
    expect(page.get_by_text("attempt 1 of 1")).to_be_visible()
    page.go_back()
    row.get_by_role("checkbox").check()
    page.get_by_role("button", name="Update again", exact=True).click()
    expect(page.get_by_text("was started again")).to_be_visible()
    page.goto(f"/batches/{campaign.pk}/?tab=pending")
    waiting = page.get_by_role("row").filter(has_text="gw-beijing-0007")
    expect(waiting).to_contain_text("Pending (Device offline)")
    expect(waiting).to_contain_text("Waiting for the device to come online since")
    waiting.get_by_role("checkbox").check()
    page.get_by_role("button", name="Cancel selected").click()
    expect(page.get_by_text("The update of 1 device was canceled.")).to_be_visible()
    page.goto(f"/batches/{campaign.pk}/?tab=updating")
    page.get_by_role("button", name="Cancel all updating").click()
    expect(page.get_by_text("2 devices are updating already.")).to_be_visible()
    assert serious_faults(page) == []
    page.get_by_role("button", name="Cancel these updates").click()
    expect(page.get_by_role("link", name=re.compile("^Canceled 3$"))).to_be_visible()


def test_a_version_is_chosen_and_its_devices_are_listed(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    page = open_console("/versions/", administrator)
    expect(page.locator("#donut canvas")).to_be_visible()
    page.get_by_role("region", name="Versions and Devices").get_by_role("link", name="1.1.0").click()
    listed = page.get_by_role("region", name="Device List").get_by_role("row")
    expect(listed).to_have_count(2)
    expect(listed.last).to_contain_text("gw-beijing-0007")
    page.goto("/versions/")
    box = page.locator("#donut canvas").bounding_box()
    assert box
    # The ring of the most frequent version lies on the right of the centre.
    ring = 0.66 * min(box["width"], box["height"]) / 2
    page.mouse.click(box["x"] + box["width"] / 2 + ring, box["y"] + box["height"] / 2)
    page.wait_for_url("**/versions/?product=*version=1.0.0*")
    expect(page.get_by_role("region", name="Device List").get_by_role("row")).to_have_count(4)


# ---- how it looks ----


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
