"""Updating devices in a real browser: validate, batch, follow it live, try again, cancel, versions."""

import re
from datetime import timedelta
from pathlib import Path

from django.utils import timezone
from playwright.sync_api import Page, expect

from campaigns import expand
from campaigns.models import Campaign
from campaigns.states import CampaignKind, Policy
from devices.models import Device
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot, serious_faults
from tests.browser.updating import SOON, proven, pushed, reported, told
from tests.factories import CampaignFactory


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
