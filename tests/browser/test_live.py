"""Pages that follow what happens elsewhere, without a reload: new batches, the fleet, the dashboard."""

import re

import pytest
from django.core.cache import cache
from django.utils import timezone
from playwright.sync_api import Page, expect

from campaigns.models import Campaign
from campaigns.states import CampaignKind, TaskStatus
from devices.models import Device, DevicePresence
from firmware.models import Firmware
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole
from tests.browser.updating import SOON, pushed, recounted, reported, told
from tests.factories import CampaignFactory, TaskFactory


def expect_live(page: Page, word: str = "Live") -> None:
    expect(page.locator("[data-live-state]").first).to_have_text(word, timeout=SOON)


def later(page: Page, seconds: int) -> None:
    """Let the page's own clock run on."""
    page.clock.run_for(seconds * 1000)


def test_a_firmwares_page_shows_what_is_launched_after_it_was_opened(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    validation = CampaignFactory.create(firmware=firmware, kind=CampaignKind.VERIFY)
    TaskFactory.create(campaign=validation, device=devices[0], status=TaskStatus.SUCCEEDED)
    recounted(validation)
    page = open_console(f"/firmware/{firmware.pk}/details/", administrator)
    expect_live(page)
    page.evaluate("window.untouched = true")
    batch = CampaignFactory.create(firmware=firmware, expanded_at=None)
    pushed(batch)
    told({batch.pk})
    tabs = page.get_by_role("navigation", name="Devices by state")
    expect(tabs.get_by_role("link", name=re.compile("^Updating 3$"))).to_be_visible(timeout=SOON)
    expect(page.get_by_role("link", name=f"#{batch.pk} Static Update")).to_be_visible(timeout=SOON)
    page.get_by_label("Batch", exact=True).select_option(str(batch.pk), timeout=SOON)
    page.wait_for_url(f"**campaign={batch.pk}*")


def test_a_firmware_that_nothing_was_launched_with_shows_its_first_validation(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    page = open_console(f"/firmware/{firmware.pk}/details/", administrator, chinese=True)
    expect(page.get_by_text("还没有用此固件发起过升级").or_(page.locator(".empty"))).to_be_visible()
    # The page has no place yet that would say that its socket is open: its news is told until it is heard.
    validation = CampaignFactory.create(firmware=firmware, kind=CampaignKind.VERIFY, expanded_at=None)
    pushed(validation)
    heard = page.get_by_role("link", name=re.compile("^升级中 3$"))
    for _ in range(20):
        told({validation.pk})
        if heard.is_visible():
            break
        page.wait_for_timeout(250)
    expect(heard).to_be_visible(timeout=SOON)


@pytest.mark.parametrize(("chinese", "words"), [(False, "1 device online"), (True, "1 台设备在线")])
def test_the_figures_of_the_fleet_follow_without_a_reload(
    open_console: OpenConsole, administrator: User, devices: list[Device], chinese: bool, words: str
) -> None:
    cache.clear()
    page = open_console("/", administrator, chinese=chinese)
    page.clock.install()
    page.reload()
    expect(page.locator("#fleet-online")).to_have_text("3")
    DevicePresence.objects.filter(device__in=devices[1:]).update(is_up=False, changed_at=timezone.now())
    cache.clear()
    later(page, 6)
    expect(page.locator("#fleet-online")).to_have_text("1", timeout=SOON)
    expect(page.locator("#live-online")).to_contain_text(words)


def test_the_page_of_one_device_writes_its_history_as_it_happens(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    batch = CampaignFactory.create(firmware=firmware, expanded_at=None)
    pushed(batch)
    task = batch.tasks.get(device=devices[0])
    page = open_console(f"/tasks/{task.pk}/", administrator)
    expect_live(page)
    page.evaluate("window.untouched = true")
    reported(devices[0], 40)
    expect(page.locator(".timeline")).to_contain_text("The device began to update: 40%", timeout=SOON)
    reported(devices[0], 70)
    expect(page.locator(".facts")).to_contain_text("70%", timeout=SOON)
    reported(devices[0], version="2.1.0")
    expect(page.locator(".meta")).to_contain_text("Update Successful", timeout=SOON)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert page.evaluate("window.untouched"), "the page was never reloaded"


def test_the_dashboard_follows_a_batch_and_tells_its_failures_in_chinese(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    batch = CampaignFactory.create(firmware=firmware, expanded_at=None)
    pushed(batch)
    page = open_console("/", administrator, chinese=True)
    expect_live(page, "实时")
    page.evaluate("window.untouched = true")
    expect(page.get_by_text("这几天没有失败。")).to_be_visible()
    reported(devices[0], version="2.1.0")
    reported(devices[1], -2, detail="no route")
    expect(page.locator(".rate")).to_contain_text("50.0%", timeout=SOON)
    expect(page.locator(".bars")).to_contain_text("设备下载固件失败", timeout=SOON)
    row = page.get_by_role("row").filter(has_text=f"#{batch.pk}")
    expect(row.locator("[data-count=succeeded]")).to_have_text("1")
    assert page.evaluate("window.untouched"), "the page was never reloaded"
    assert Campaign.objects.count() == 1
