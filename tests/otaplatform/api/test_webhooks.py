"""Webhooks: what is told, and to whom."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.models import F

from campaigns import services as updates
from campaigns.life import PUSH_SPACING
from campaigns.models import Campaign, UpdateTask
from campaigns.services import Plan
from firmware.models import Firmware
from otaplatform.accounts.models import Account
from otaplatform.api.models import Webhook, WebhookCursor, WebhookEvent
from otaplatform.api.webhooks import collect, send
from tests.factories import AccountFactory, DeviceFactory, FirmwareFactory, ProductFactory
from tests.otaplatform.api.conftest import work
from tests.otaplatform.api.webhook_tools import look

POSTGRES = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")


def events(webhook: Webhook) -> list[str]:
    return sorted(webhook.deliveries.values_list("event", flat=True))


@pytest.fixture
def finished(firmware: Firmware) -> Callable[[], Campaign]:
    """A batch with a device that succeeds and one that fails, run from start to end."""

    def run() -> Campaign:
        for name in ("meter-1", "meter-2"):
            DeviceFactory.create(product=firmware.product, name=name, version="1.0", online=True)
        campaign = updates.launch_batch(firmware, Plan(accept_unproven=True))
        work(failing=("meter-2",))
        return campaign

    return run


def test_a_batch_tells_its_launch_its_end_and_each_device(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook()
    campaign = finished()
    look()
    assert events(webhook) == ["campaign.completed", "campaign.launched", "task.failed", "task.succeeded"]
    failed = webhook.deliveries.get(event=WebhookEvent.TASK_FAILED).payload
    assert failed["data"]["device_name"] == "meter-2"
    assert (failed["data"]["reason"], failed["data"]["detail"]) == ("DOWNLOAD", "no route")
    ended = webhook.deliveries.get(event=WebhookEvent.CAMPAIGN_COMPLETED).payload["data"]
    assert (ended["campaign"], ended["counts"]["succeeded"]) == (campaign.pk, 1)


def test_looking_again_tells_nothing_twice(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook()
    finished()
    for _ in range(3):
        look()
        WebhookCursor.objects.update(task_event=0)
    assert len(events(webhook)) == 4


def test_a_batch_that_runs_again_ends_again(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook(events=["campaign.completed"])
    campaign = finished()
    look()
    UpdateTask.objects.update(pushed_at=F("pushed_at") - PUSH_SPACING)
    updates.update_again(campaign)
    work()
    look()
    assert events(webhook) == ["campaign.completed"] * 2


def test_a_canceled_batch_is_told(hook: Callable[..., Webhook], firmware: Firmware) -> None:
    webhook = hook()
    updates.cancel_campaign(updates.launch_batch(firmware, Plan(accept_unproven=True)))
    look()
    assert events(webhook) == ["campaign.canceled", "campaign.launched"]


def test_only_what_was_asked_for_is_told_and_only_to_the_account(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    picky = hook(events=["task.failed"])
    foreign = hook(account=AccountFactory.create())
    silent = hook(is_enabled=False)
    finished()
    look()
    assert events(picky) == ["task.failed"]
    assert events(foreign) == events(silent) == []


def test_what_happened_before_a_webhook_was_made_is_not_told(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    finished()
    webhook = hook()
    look()
    assert events(webhook) == []


def test_an_idle_look_takes_a_constant_few_queries(
    hook: Callable[..., Webhook], django_assert_max_num_queries: Any
) -> None:
    hook()
    with django_assert_max_num_queries(12):
        collect.collect()
        send.send_due()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not POSTGRES, reason="SQLite has one writer")
def test_an_event_that_is_committed_after_a_later_one_is_not_missed(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    """A transaction that is open during a look keeps everything since from counting as complete."""
    webhook = hook(events=["task.failed"])
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT pg_current_xact_id()")
                begun.set()
                assert end.wait(60)
                cursor.execute("COMMIT")
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    finished()
    collect.collect()
    collect.collect()
    assert events(webhook) == []
    end.set()
    thread.join(60)
    look()
    assert events(webhook) == ["task.failed"]


def test_a_firmware_of_another_account_tells_that_account_only(
    hook: Callable[..., Webhook], account: Account
) -> None:
    webhook = hook()
    other = FirmwareFactory.create(product=ProductFactory.create())
    updates.launch_batch(other, Plan(accept_unproven=True))
    look()
    assert events(webhook) == []
