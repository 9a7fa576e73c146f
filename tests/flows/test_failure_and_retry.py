"""Updates that fail: tried again by themselves, given up with a reason, and started over by an operator."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from campaigns import dispatch, history, life
from campaigns import services as updates
from campaigns.models import TaskEvent, UpdateTask
from campaigns.services import Plan
from campaigns.why import Surroundings, why
from devices.models import Product
from devices.simulator import Fault, running_fleet
from tests.flows.stage import (
    connected,
    outcome,
    quick,
    registered,
    task_of,
    tells,
    tick,
    verified,
    wait_online,
    wait_outcome,
    wait_over,
)
from tests.running import Platform

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def no_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if half a minute went by between the pushes of these stories."""
    for module in (life, dispatch):
        monkeypatch.setattr(module, "PUSH_SPACING", timedelta())


@pytest.mark.usefixtures("no_spacing", "workers")
def test_a_download_that_fails_is_tried_again_and_then_given_up_with_the_devices_words(
    platform: Platform, product: Product
) -> None:
    with running_fleet(registered(product, 1), platform.port, quick(fault=Fault.DOWNLOAD)):
        wait_online(product, 1)
        plan = Plan(retry_interval_minutes=0, max_retries=2, accept_unproven=True)
        batch = updates.launch_batch(verified(product), plan)
        wait_over(batch)
    task = UpdateTask.objects.get()
    assert (task.status, task.reason, task.attempt) == ("FAILED", "DOWNLOAD", 3)
    assert task.detail
    attempts = history.attempts(TaskEvent.objects.filter(task=task).order_by("id"))
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert attempts[0].outcome.startswith("The attempt failed and will be repeated")


def test_a_retry_waits_for_its_time_and_says_which_attempt_is_due_when(
    platform: Platform, product: Product, now: datetime
) -> None:
    device = connected(platform, product, "1.0.0")
    plan = Plan(retry_interval_minutes=10, max_retries=2, accept_unproven=True)
    batch = updates.launch_batch(verified(product), plan, now=now)
    tick(now)
    device.wait_for_message("/ota/device/upgrade/")
    device.progress(-2, "no route")
    wait_outcome(batch, {"QUEUED": 1})
    task = UpdateTask.objects.select_related("campaign", "device").get()
    assert task.due_at
    with timezone.override("Asia/Shanghai"):
        due = timezone.localtime(task.due_at)
        sentence = str(why(task, Surroundings.of([task], now), now))
    day = "" if due.date() == timezone.localtime(now, due.tzinfo).date() else f"{due:%Y-%m-%d} "
    assert sentence == f"Attempt 2 of 3 is due at {day}{due:%H:%M}."
    tick(task.due_at - timedelta(seconds=1))
    assert outcome(batch) == {"QUEUED": 1}
    tick(task.due_at)
    assert task_of(device, batch).attempt == 2
    tells(device, "2.0.0")
    wait_outcome(batch, {"SUCCEEDED": 1})
    device.close()


def test_a_silent_device_times_out_after_the_minutes_of_its_batch(
    platform: Platform, product: Product, now: datetime
) -> None:
    device = connected(platform, product, "1.0.0")
    batch = updates.launch_batch(verified(product), Plan(timeout_minutes=30, accept_unproven=True), now=now)
    tick(now)
    tick(now + timedelta(minutes=30, seconds=-1))
    assert outcome(batch) == {"NOTIFIED": 1}
    tick(now + timedelta(minutes=30))
    assert task_of(device, batch).reason == "TIMEOUT"
    tells(device, "2.0.0")
    late = task_of(device, batch)
    assert (late.status, late.is_late) == ("FAILED", True), "what comes later is told beside the failure"
    device.close()


@pytest.mark.usefixtures("no_spacing", "workers")
def test_failed_devices_are_updated_again_one_of_them_or_all_of_a_reason(
    platform: Platform, product: Product
) -> None:
    broken, clumsy = registered(product, 2), registered(product, 2)
    with (
        running_fleet(broken, platform.port, quick(fault=Fault.BURN)),
        running_fleet(clumsy, platform.port, quick(fault=Fault.VERIFICATION)),
    ):
        wait_online(product, 4)
        batch = updates.launch_batch(verified(product), Plan(accept_unproven=True))
        wait_over(batch)
    assert outcome(batch) == {"FAILED": 4}
    # Mended, they come back.
    with running_fleet([*broken, *clumsy], platform.port, quick()):
        wait_online(product, 4)
        assert updates.update_again(batch, reason="VERIFICATION") == 2
        wait_over(batch)
        assert outcome(batch) == {"SUCCEEDED": 2, "FAILED": 2}
        assert updates.update_again(batch, task_ids=[task_of(broken[0], batch).pk]) == 1
        wait_over(batch)
    assert {task.reason for task in UpdateTask.objects.filter(status="FAILED")} == {"BURN"}
    assert outcome(batch) == {"SUCCEEDED": 3, "FAILED": 1}
