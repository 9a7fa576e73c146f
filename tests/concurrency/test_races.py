"""Races between real connections on PostgreSQL: exactly one outcome each, and counters that stay true."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from campaigns import asking, dispatch, expand, moves, reports, services, sweep, tasks
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.reports import Down, Heard, Inform, Step, Up
from campaigns.states import ACTIVE, EventKind, Policy, TaskStatus
from devices.http_tokens import BadToken, make_token, read_token
from devices.models import Channel, Device, DevicePresence
from devices.services import set_disabled
from devices.versions import recount
from tests.factories import EPOCH, CampaignFactory, DeviceFactory, FirmwareFactory, TaskFactory

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads that start together, each on its own connection; their results."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            barrier.wait(10)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


def fleet(count: int, **values: Any) -> tuple[Campaign, list[Device]]:
    """A running, expanded batch over `count` online devices."""
    firmware = FirmwareFactory.create(version="2.0.0")
    devices = DeviceFactory.create_batch(count, product=firmware.product, version="1.0.0", online=True)
    campaign = CampaignFactory.create(firmware=firmware, expanded_at=None, **values)
    expand.expand(campaign.pk, timezone.now())
    return campaign, devices


def assert_counters_are_true() -> None:
    assert moves.recount(Campaign.objects.values_list("id", flat=True)) == {}
    assert recount() == {}


def notified(campaign: Campaign) -> list[UpdateTask]:
    dispatch.claim(campaign, timezone.now())
    return list(UpdateTask.objects.filter(campaign=campaign))


def test_two_dispatchers_never_claim_the_same_task() -> None:
    campaign, _devices = fleet(300)
    now = timezone.now()
    claimed = at_once(*[lambda: dispatch.claim(campaign, now, 100) or [] for _ in range(4)])
    ids = [task for claim in claimed for task, _ in claim]
    assert len(ids) == len(set(ids)) == 300
    assert_counters_are_true()


def test_without_the_conditional_update_the_same_race_claims_twice() -> None:
    """The negative control: read, then write by id, as the claim must not."""
    fleet(50)
    read = threading.Barrier(2)

    def naive_claim() -> list[int]:
        ids = list(UpdateTask.objects.filter(status=TaskStatus.QUEUED).values_list("id", flat=True))
        read.wait(10)
        UpdateTask.objects.filter(id__in=ids).update(status=TaskStatus.NOTIFIED)
        return ids

    first, second = at_once(naive_claim, naive_claim)
    assert Counter(first + second).most_common(1)[0][1] == 2


def test_the_rate_limit_holds_exactly_across_dispatchers() -> None:
    campaign, _devices = fleet(120, max_per_minute=50)
    now = datetime(2026, 11, 23, 12, 0, 30, tzinfo=timezone.get_default_timezone())
    UpdateTask.objects.update(ready_at=now - timedelta(seconds=1))
    claimed = at_once(*[lambda: dispatch.claim(campaign, now, 30) or [] for _ in range(6)])
    assert sum(map(len, claimed)) == 50
    next_minute = at_once(
        *[lambda: dispatch.claim(campaign, now + timedelta(minutes=1)) or [] for _ in range(3)]
    )
    assert sum(map(len, next_minute)) == 50


def test_a_cancel_and_a_dispatch_leave_each_task_in_one_state() -> None:
    campaign, _devices = fleet(200)
    now = timezone.now()
    claimed, _ = at_once(
        lambda: dispatch.claim(campaign, now) or [], lambda: services.cancel_campaign(campaign, now=now)
    )
    sweep.resume_cancels(now)
    assert set(UpdateTask.objects.values_list("status", flat=True)) == {"CANCELED"}
    pushed = {task for task, _ in claimed}
    reserved = DevicePresence.objects.filter(reserved_until__isnull=False).count()
    assert reserved == len(pushed)
    assert_counters_are_true()


def test_two_reports_at_once_make_one_outcome() -> None:
    campaign, devices = fleet(40)
    notified(campaign)
    now = timezone.now()
    failing = [Step(device.pk, None, -2, "lost", now) for device in devices]
    arriving = [Inform(device.pk, device.product_id, "default", "2.0.0", now) for device in devices]
    at_once(lambda: reports.apply(failing, now), lambda: reports.apply(list(reversed(arriving)), now))
    final = set(UpdateTask.objects.values_list("status", flat=True))
    assert final <= {"FAILED", "SUCCEEDED"}
    assert_counters_are_true()


def test_a_report_and_a_time_out_make_one_outcome() -> None:
    campaign, devices = fleet(40)
    notified(campaign)
    now = timezone.now() + timedelta(minutes=61)
    arriving = [Inform(device.pk, device.product_id, "default", "2.0.0", now) for device in devices]
    at_once(lambda: reports.apply(arriving, now), lambda: sweep.sweep(now))
    for task in UpdateTask.objects.all():
        assert task.status == "SUCCEEDED" or (task.reason == "TIMEOUT" and task.is_late)
    assert_counters_are_true()


def test_two_launches_over_the_same_devices_give_each_device_one_active_task() -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    DeviceFactory.create_batch(200, product=firmware.product, version="1.0.0", online=True)
    campaigns = [CampaignFactory.create(firmware=firmware, expanded_at=None) for _ in range(2)]
    at_once(*[lambda c=c: expand.expand(c.pk, chunk=50) for c in campaigns])
    assert UpdateTask.objects.filter(status="QUEUED").count() == 200
    assert UpdateTask.objects.filter(status="FAILED", reason="CONFLICT").count() == 200
    assert_counters_are_true()


def test_an_enrolment_and_a_launch_give_each_device_one_active_task() -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    devices = DeviceFactory.create_batch(100, product=firmware.product, version="1.0.0", online=True)
    dynamic = CampaignFactory.create(
        firmware=FirmwareFactory.create(product=firmware.product, version="3.0.0"), policy=Policy.DYNAMIC
    )
    static = CampaignFactory.create(firmware=firmware, expanded_at=None)
    now = timezone.now()
    informs = [Inform(device.pk, device.product_id, "default", "1.0.0", now) for device in reversed(devices)]
    at_once(lambda: reports.apply(informs, now), lambda: expand.expand(static.pk, now, chunk=10))
    per_device = Counter(UpdateTask.objects.filter(status__in=ACTIVE).values_list("device_id", flat=True))
    assert len(per_device) == 100
    assert set(per_device.values()) == {1}
    assert UpdateTask.objects.filter(campaign=static).count() == 100
    assert UpdateTask.objects.filter(campaign=dynamic).exclude(status="QUEUED").count() == 0
    assert_counters_are_true()


@pytest.mark.parametrize("_round", range(3))
def test_devices_that_report_while_their_own_dynamic_batch_expands_hold_nobody_up(_round: int) -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    devices = DeviceFactory.create_batch(60, product=firmware.product, version="1.0.0", online=True)
    campaign = CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC, expanded_at=None)
    now = timezone.now()
    informs = [Inform(device.pk, device.product_id, "default", "1.0.0", now) for device in devices]
    at_once(
        lambda: expand.expand(campaign.pk, now, chunk=4),
        *[lambda part=part: reports.apply(informs[part::2], now) for part in range(2)],
    )
    assert UpdateTask.objects.filter(campaign=campaign, status=TaskStatus.QUEUED).count() == 60
    assert_counters_are_true()


@pytest.mark.parametrize("_round", range(5))
def test_a_batch_is_not_completed_while_its_tasks_start_again(_round: int) -> None:
    campaign, _devices = fleet(20)
    services.cancel_tasks(campaign, list(UpdateTask.objects.values_list("id", flat=True)))
    again = list(UpdateTask.objects.values_list("id", flat=True))
    at_once(sweep.finish, lambda: services.update_again(campaign, task_ids=again), sweep.finish)
    campaign.refresh_from_db()
    assert campaign.status == "in_progress"
    assert UpdateTask.objects.filter(status=TaskStatus.QUEUED).count() == 20
    assert_counters_are_true()


@pytest.mark.parametrize("_round", range(5))
def test_a_task_that_is_queued_while_its_device_connects_is_never_parked_for_ever(_round: int) -> None:
    campaign, devices = fleet(20, retry_interval_minutes=0, max_retries=5)
    notified(campaign)
    DevicePresence.objects.update(is_up=False)
    now = timezone.now()
    failures = [Step(device.pk, None, -2, "", now) for device in devices]
    returns = [Up(device.pk, "back", EPOCH, now) for device in reversed(devices)]
    at_once(lambda: reports.apply(failures, now), lambda: reports.apply(returns, now))
    assert not UpdateTask.objects.filter(status="QUEUED", ready_at__isnull=True).exists()
    assert_counters_are_true()


@pytest.mark.parametrize("_round", range(3))
def test_a_launch_while_devices_come_and_go_parks_exactly_the_offline_ones(_round: int) -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    devices = DeviceFactory.create_batch(60, product=firmware.product, version="1.0.0", online=True)
    campaign = CampaignFactory.create(firmware=firmware, expanded_at=None)
    now = timezone.now()
    leaving = [Down(device.pk, f"c{device.pk}", EPOCH, now) for device in devices[::2]]
    at_once(lambda: expand.expand(campaign.pk, now, chunk=7), lambda: reports.apply(leaving, now))
    parked = set(UpdateTask.objects.filter(ready_at__isnull=True).values_list("device_id", flat=True))
    assert parked == {device.pk for device in devices[::2]}


def test_one_bad_row_does_not_cost_an_innocent_one_its_claim() -> None:
    """A device that has another active task cannot exist, so a claim of many rows never fails as a whole."""
    campaign, devices = fleet(10)
    with pytest.raises(Exception, match="task_one_active_per_device"), transaction.atomic():
        TaskFactory.create(campaign=CampaignFactory.create(), device=devices[0], status=TaskStatus.QUEUED)
    assert len(dispatch.claim(campaign, timezone.now()) or []) == 10


def test_a_recount_while_reports_come_in_sees_one_moment(caplog: pytest.LogCaptureFixture) -> None:
    campaign, devices = fleet(200)
    notified(campaign)
    now = timezone.now()
    failing = [Step(device.pk, None, -2, "", now) for device in devices]
    at_once(
        lambda: [reports.apply([report], now) for report in failing],
        lambda: [tasks.recount() for _ in range(40)],
    )
    assert caplog.messages == []
    assert_counters_are_true()


def test_a_device_that_asks_while_it_expires_is_online_or_begins_anew_and_is_pushed_to_once() -> None:
    campaign, devices = fleet(20)
    then, now = timezone.now() - timedelta(minutes=20), timezone.now()
    DevicePresence.objects.update(
        channel=Channel.HTTPS, connection_id="", epoch="", changed_at=then, connected_at=then
    )
    UpdateTask.objects.update(due_at=then, ready_at=None)

    def ask(device: Device) -> list[int]:
        said = [
            Heard(device.pk, Channel.HTTPS, now),
            Inform(device.pk, device.product_id, "default", "1.0.0", now),
        ]
        reports.apply(said, now)
        return list(dispatch.offer([(device.pk, None)], now))

    answers = at_once(*[lambda each=each: ask(each) for each in devices for _ in range(2)], asking.expire)
    told = Counter(device for answer in answers[:-1] for device in answer)
    # Two questions of one moment may both be answered, with the same link of one and the same push.
    assert told.keys() == {device.pk for device in devices}
    pulled = TaskEvent.objects.filter(kind=EventKind.PULLED, task__campaign=campaign)
    assert Counter(pulled.values_list("task__device", flat=True)) == {device.pk: 1 for device in devices}
    assert DevicePresence.objects.online(now).count() == len(devices)
    assert_counters_are_true()


def test_a_token_is_worthless_once_its_device_is_disabled_whatever_went_on_meanwhile() -> None:
    _, (device,) = fleet(1)
    token = make_token(device)
    now = timezone.now()
    at_once(
        lambda: reports.apply([Heard(device.pk, Channel.HTTPS, now, is_login=True)], now),
        lambda: set_disabled(device, True),
        lambda: read_token(token),
    )
    assert read_token(token) is BadToken.WRONG
