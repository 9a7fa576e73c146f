"""The words of launching and following an update, as somebody reads them who works in Chinese."""

import re
from datetime import timedelta

from django.utils import timezone
from playwright.sync_api import expect

from campaigns import dispatch, reports, services
from campaigns.models import Campaign, UpdateTask
from campaigns.reports import Step
from campaigns.services import Plan
from campaigns.states import CampaignStatus
from devices.models import Device
from firmware.models import Firmware
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot, serious_faults
from tests.browser.updating import SOON, proven, pushed, told
from tests.factories import CampaignFactory, FirmwareFactory


def test_a_batch_is_chosen_previewed_and_launched_with_every_count_in_words(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    other = FirmwareFactory.create(product=firmware.product, version="1.5.0")
    held = services.launch_batch(
        other, Plan(source_versions=["1.1.0"], accept_unproven=True), actor=administrator
    )
    services.pause(held)
    pushed(held)
    page = open_console(f"/firmware/{firmware.pk}/batch/", administrator, chinese=True)
    expect(
        page.get_by_text("静态升级：仅升级提交批次时符合条件的已激活设备，定时升级也是如此")
    ).to_be_visible()
    page.get_by_label("升级失败重试间隔").select_option("10 分钟后重试")
    page.get_by_label("最大重试次数").select_option("2")
    page.get_by_text("高级选项").click()
    page.get_by_label("每分钟设备数").fill("10")
    page.get_by_role("button", name="预览").click()
    expect(page.get_by_text("其中 3 台在线")).to_be_visible()
    expect(page.get_by_text("其中 1 台仅在等待")).to_be_visible()
    expect(page.get_by_role("link", name=f"#{held.pk} 静态升级")).to_be_visible()
    assert serious_faults(page) == []
    screenshot(page, "preview-zh")
    page.get_by_label("替换尚在等待的任务").check()
    page.get_by_label("尚无设备使用此固件升级成功，仍要继续").check()
    page.get_by_role("button", name="开始升级 4 台设备").click()
    expect(page.get_by_text("符合条件 4 台（在线 3 台")).to_be_visible()
    expect(page.get_by_text("10 分钟后重试，最多 2 次")).to_be_visible()
    campaign = Campaign.objects.latest("id")
    assert (campaign.busy, campaign.max_per_minute) == ("replace", 10)


def test_a_failed_attempt_says_which_one_comes_when_and_the_task_tells_them_all(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    proven(firmware, devices[0])
    batch = CampaignFactory.create(
        firmware=firmware, retry_interval_minutes=10, max_retries=2, expanded_at=None
    )
    pushed(batch)
    page = open_console(f"/batches/{batch.pk}/?tab=pending", administrator, chinese=True)
    expect(page.locator("[data-live-state]")).to_have_text("实时", timeout=SOON)
    now = timezone.now()
    applied = reports.apply([Step(devices[0].pk, None, -2, "no route", now)])
    told(applied.campaigns, [devices[0].pk])
    row = page.get_by_role("row").filter(has_text=devices[0].name)
    expect(row).to_contain_text(re.compile(r"第 2 次尝试（共 3 次）将于 .*\d\d:\d\d 进行"), timeout=SOON)
    row.get_by_role("link", name=devices[0].name).click()
    attempts = page.locator("section").filter(has_text="升级尝试")
    expect(attempts.get_by_role("row").nth(1)).to_contain_text("第 1 次尝试，共 3 次")
    expect(attempts).to_contain_text("“no route”")
    later = now + timedelta(minutes=11)
    dispatch.acknowledge([task for task, _device in dispatch.claim(batch, later) or []], later)
    page.reload()
    expect(attempts.get_by_role("row").nth(2)).to_contain_text("第 2 次尝试，共 3 次")


def test_a_batch_is_paused_resumed_and_canceled_after_a_warning(
    open_console: OpenConsole, administrator: User, firmware: Firmware, devices: list[Device]
) -> None:
    batch = CampaignFactory.create(firmware=firmware, expanded_at=None)
    pushed(batch)
    page = open_console(f"/batches/{batch.pk}/?tab=pending", administrator, chinese=True)
    page.get_by_role("button", name="暂停").click()
    expect(page.get_by_text("批次已暂停").first).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="gw-beijing-0007")).to_contain_text("批次已暂停")
    page.get_by_role("button", name="恢复").click()
    page.get_by_role("button", name="取消批次").click()
    expect(page.get_by_text("3 台设备已在升级中")).to_be_visible()
    assert UpdateTask.objects.filter(status="CANCELED").count() == 0, "asked first"
    page.get_by_role("button", name="取消批次").click()
    expect(page.get_by_text("批次已取消")).to_be_visible()
    assert Campaign.objects.get(pk=batch.pk).status == CampaignStatus.CANCELED
    expect(page.get_by_role("link", name=re.compile("^已取消 4$"))).to_be_visible()
