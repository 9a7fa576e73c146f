"""Webhooks and API tokens as people see them."""

import re

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from otaplatform.accounts.models import User
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery, WebhookEvent
from tests.browser.conftest import OpenConsole, screenshot, scrolls_sideways, serious_faults


@pytest.mark.parametrize("chinese", [False, True])
def test_a_webhook_is_made_and_a_delivery_sent_again(
    open_console: OpenConsole, administrator: User, chinese: bool
) -> None:
    page = open_console("/webhooks/", administrator, chinese=chinese)
    page.get_by_role("link", name="新建 Webhook" if chinese else "New webhook").first.click()
    page.get_by_label("地址" if chinese else "Address").fill("https://hooks.example.com/ota")
    screenshot(page, f"webhook-new-{chinese}")
    assert serious_faults(page) == []
    page.get_by_role("button", name="创建 Webhook" if chinese else "Create webhook").click()
    webhook = Webhook.objects.get()
    expect(page.get_by_text(webhook.secret)).to_be_visible()
    WebhookDelivery.objects.create(
        webhook=webhook,
        key="task.failed:812",
        event=WebhookEvent.TASK_FAILED,
        payload={},
        status=DeliveryStatus.FAILED,
        attempts=9,
        sent_at=timezone.now(),
        response_status=502,
    )
    page.goto(f"/webhooks/{webhook.pk}/")
    screenshot(page, f"webhook-{chinese}")
    assert serious_faults(page) == []
    page.get_by_role("button", name="重新发送" if chinese else "Send again").click()
    expect(page.locator("tbody .pill.wait")).to_be_visible()


def test_a_token_is_made_and_revoked(open_console: OpenConsole, administrator: User) -> None:
    page = open_console("/me/tokens/", administrator, phone=True)
    page.get_by_role("button", name="Create token").click()
    expect(page.locator(".note code")).to_have_text(re.compile("^[0-9a-f]{64}$"))
    screenshot(page, "tokens")
    assert serious_faults(page) == []
    assert not scrolls_sideways(page)
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("The token was revoked.")).to_be_visible()
