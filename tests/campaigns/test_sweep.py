"""What time itself brings."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from campaigns import dispatch, life, moves, services, sweep
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.states import WAITING, CampaignStatus, EventKind, Policy, TaskStatus
from devices.models import BrokerEpoch, Device, DevicePresence, DeviceVersion
from tests.campaigns.conftest import counts
from tests.factories import CampaignFactory, TaskFactory

Fleet = Callable[..., list[Device]]


@pytest.fixture
def updating(campaign: Campaign, fleet: Fleet, now: datetime) -> Callable[..., UpdateTask]:
    """A task of an online device, pushed and acknowledged ten minutes ago."""

    def make(**values: Any) -> UpdateTask:
        (device,) = fleet(1)
        past = now - timedelta(minutes=10)
        defaults = {
            "status": TaskStatus.NOTIFIED,
            "pushed_at": past,
            "acknowledged_at": past,
            "active_at": past,
        }
        task = TaskFactory.create(campaign=campaign, device=device, ready_at=None, **(defaults | values))
        moves.add_counts({(campaign.pk, task.status): 1})
        return task

    return make


def test_an_online_device_that_stays_silent_times_out_and_is_reserved(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    task = updating(active_at=now - timedelta(minutes=61))
    assert sweep.sweep(now) == {campaign.pk}
    task.refresh_from_db()
    assert (task.status, task.reason) == ("FAILED", "TIMEOUT")
    assert DevicePresence.objects.get(device=task.device_id).reserved_until == now + timedelta(minutes=30)
    assert counts(campaign) == {"FAILED": 1}


def test_nothing_is_timed_out_before_its_minutes_are_over(
    updating: Callable[..., UpdateTask], now: datetime
) -> None:
    task = updating(active_at=now - timedelta(minutes=59))
    sweep.sweep(now)
    task.refresh_from_db()
    assert task.status == "NOTIFIED"


def test_a_campaign_without_a_time_out_waits_for_ever(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    Campaign.objects.update(timeout_minutes=None)
    task = updating(active_at=now - timedelta(days=300))
    sweep.sweep(now)
    task.refresh_from_db()
    assert task.status == "NOTIFIED"


def test_the_time_out_of_an_offline_device_puts_it_back_to_pending(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    task = updating(active_at=now - timedelta(minutes=61), status=TaskStatus.IN_PROGRESS)
    DevicePresence.objects.update(is_up=False)
    sweep.sweep(now)
    task.refresh_from_db()
    assert (task.status, task.ready_at) == ("QUEUED", None)


def test_a_push_that_the_broker_never_confirmed_is_made_again_after_thirty_seconds(
    updating: Callable[..., UpdateTask], now: datetime
) -> None:
    young = updating(pushed_at=now - timedelta(seconds=29), acknowledged_at=None, active_at=now)
    old = updating(pushed_at=now - timedelta(seconds=31), acknowledged_at=None, active_at=now)
    sweep.sweep(now)
    young.refresh_from_db()
    old.refresh_from_db()
    assert (young.status, old.status, old.ready_at) == ("NOTIFIED", "QUEUED", now)


def test_a_stray_version_that_still_stands_fails_its_task(
    updating: Callable[..., UpdateTask], now: datetime
) -> None:
    task = updating(stray_until=now - timedelta(seconds=1), active_at=now)
    DeviceVersion.objects.filter(device=task.device_id).update(version="app-9")
    sweep.sweep(now)
    task.refresh_from_db()
    assert (task.status, task.reason) == ("FAILED", "WRONG_VERSION")


def test_a_device_that_came_back_four_times_without_informing_is_rolled_back(
    updating: Callable[..., UpdateTask], now: datetime
) -> None:
    task = updating(status=TaskStatus.QUEUED, returns=4)
    UpdateTask.objects.update(ready_at=now - timedelta(seconds=1))
    sweep.sweep(now)
    task.refresh_from_db()
    assert (task.status, task.reason) == ("FAILED", "ROLLED_BACK")


def test_a_broker_that_starts_anew_leaves_no_ghosts(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    task = updating(active_at=now)
    BrokerEpoch.objects.update(epoch="second-life")
    assert not task.device.presence.is_online(now)
    sweep.sweep(now)
    task.refresh_from_db()
    assert (task.status, DevicePresence.objects.filter(is_up=True).count()) == ("QUEUED", 0)


def test_a_batch_with_nothing_left_to_do_is_completed(
    updating: Callable[..., UpdateTask], campaign: Campaign
) -> None:
    Campaign.objects.update(expanded_at=campaign.created_at)
    task = updating()
    assert sweep.finish() == set()
    UpdateTask.objects.filter(pk=task.pk).update(status=TaskStatus.SUCCEEDED)
    assert sweep.finish() == {campaign.pk}
    campaign.refresh_from_db()
    assert campaign.status == CampaignStatus.COMPLETED


def test_a_dynamic_batch_is_completed_only_after_it_stopped_matching(db: None, now: datetime) -> None:
    campaign = CampaignFactory.create(policy=Policy.DYNAMIC)
    assert sweep.finish() == set()
    Campaign.objects.update(matching_stopped_at=now)
    assert sweep.finish(now) == set()
    assert sweep.finish(now + sweep.ENROLMENT) == {campaign.pk}


def test_an_idle_sweep_costs_a_constant_few_queries(
    updating: Callable[..., UpdateTask], now: datetime, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for _ in range(5):
        updating(active_at=now)
    with django_assert_max_num_queries(8):
        sweep.sweep(now)
    with django_assert_max_num_queries(1):
        sweep.finish(now)


def test_removed_devices_end_their_open_tasks(
    updating: Callable[..., UpdateTask], campaign: Campaign
) -> None:
    task = updating()
    services.remove_devices([task.device_id])
    task.refresh_from_db()
    assert (task.status, task.reason) == ("FAILED", "DEVICE_REMOVED")
    assert counts(campaign) == {"FAILED": 1}


def test_a_removed_devices_task_ends_though_it_is_pushed_at_that_moment(
    updating: Callable[..., UpdateTask], campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = updating(status=TaskStatus.QUEUED, pushed_at=None)
    write = moves.write

    def pushed_in_between(*arguments: Any) -> Any:
        monkeypatch.setattr(moves, "write", write)
        UpdateTask.objects.filter(pk=task.pk).update(status=TaskStatus.NOTIFIED)
        moves.add_counts({(campaign.pk, "QUEUED"): -1, (campaign.pk, "NOTIFIED"): 1})
        return write(*arguments)

    monkeypatch.setattr(moves, "write", pushed_in_between)
    services.remove_devices([task.device_id])
    assert counts(campaign) == {"FAILED": 1}


def test_a_task_that_an_enrolment_slipped_into_a_canceled_batch_is_canceled_too(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    services.cancel_campaign(campaign, now=now)
    updating(status=TaskStatus.QUEUED, pushed_at=None)
    sweep.resume_cancels(now + timedelta(seconds=59))
    assert counts(campaign) == {"CANCELED": 1}
    sweep.resume_cancels(now + timedelta(seconds=61))
    campaign.refresh_from_db()
    assert campaign.canceling == []


def test_a_cancel_tells_the_history_of_every_task_and_reserves_only_devices_that_were_pushed_to(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime
) -> None:
    waiting = [
        updating(status=status, pushed_at=None, acknowledged_at=None, attempt=attempt)
        for attempt, status in enumerate(sorted(WAITING), start=1)
    ]
    pushed = [updating(status=TaskStatus.QUEUED), updating(status=TaskStatus.IN_PROGRESS, progress=40)]
    services.cancel_campaign(campaign, now=now)
    assert counts(campaign) == {"CANCELED": 5}
    told = TaskEvent.objects.filter(kind=EventKind.MOVED).values_list(
        "task", "before", "after", "attempt", "at"
    )
    assert set(told) == {(task.pk, task.status, "CANCELED", task.attempt, now) for task in waiting + pushed}
    assert not UpdateTask.objects.filter(ready_at__isnull=False).exists()
    reserved = DevicePresence.objects.filter(reserved_until=now + life.RESERVE)
    assert set(reserved.values_list("pk", flat=True)) == {task.device_id for task in pushed}


def test_a_wider_cancel_outlives_the_end_of_a_narrower_one(
    updating: Callable[..., UpdateTask], campaign: Campaign, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    updating(status=TaskStatus.NOTIFIED)
    Campaign.objects.update(canceling=["QUEUED"])

    def canceled_wholly_meanwhile(*_arguments: Any) -> bool:
        Campaign.objects.update(canceling=["NOTIFIED", "QUEUED"])
        return False

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "cancel_some", canceled_wholly_meanwhile)
        sweep.resume_cancels(now)
    sweep.resume_cancels(now)
    assert counts(campaign) == {"CANCELED": 1}


@pytest.mark.parametrize(
    ("runs", "outcome"), [("app-9", ("FAILED", "WRONG_VERSION")), ("1.0.0", ("NOTIFIED", ""))]
)
def test_a_returned_device_on_a_stray_version_is_not_pushed_to_before_it_is_judged(
    updating: Callable[..., UpdateTask],
    campaign: Campaign,
    now: datetime,
    runs: str,
    outcome: tuple[str, str],
) -> None:
    task = updating(status=TaskStatus.QUEUED, stray_until=now + timedelta(seconds=20))
    UpdateTask.objects.update(ready_at=now)
    DeviceVersion.objects.filter(device=task.device_id).update(version=runs)
    assert dispatch.claim(campaign, now) is None
    sweep.sweep(now + timedelta(seconds=19))
    assert dispatch.claim(campaign, now + timedelta(seconds=19)) is None
    sweep.sweep(now + timedelta(seconds=20))
    dispatch.claim(campaign, now + timedelta(seconds=20))
    task.refresh_from_db()
    assert (task.status, task.reason) == outcome


def test_a_report_read_before_the_brokers_stamp_does_not_take_it_away(
    updating: Callable[..., UpdateTask], now: datetime
) -> None:
    task = updating(acknowledged_at=None)
    (state,) = moves.read(UpdateTask.objects.all())
    dispatch.acknowledge([task.pk], now)
    life.on_inform(state, "1.1.0", now, None)
    assert moves.write([state], now)[0] == {task.pk}
    task.refresh_from_db()
    assert (task.acknowledged_at, task.from_version) == (now, "1.1.0")


@pytest.mark.parametrize("version", [None, "1.0.0"])
def test_a_device_that_restarts_after_each_burn_and_never_tells_a_version_is_not_written_to_for_ever(
    updating: Callable[..., UpdateTask], now: datetime, version: str | None
) -> None:
    task = updating(status=TaskStatus.IN_PROGRESS, active_at=now, from_version=version or "")
    if version is None:
        DeviceVersion.objects.filter(device=task.device_id).delete()
    for returns in range(1, life.MAX_RETURNS + 2):
        UpdateTask.objects.update(
            status=TaskStatus.IN_PROGRESS,
            last_step=life.BURN_STEP,
            stepped_at=now - timedelta(minutes=2),
            ready_at=now,
            has_returned=False,
        )
        moves.recount([task.campaign_id], repair=True)
        DevicePresence.objects.update(connected_at=now - timedelta(minutes=1))
        sweep.end_waits(now)
        task.refresh_from_db()
        assert task.returns == returns
    assert (task.status, task.reason) == ("FAILED", "ROLLED_BACK")
