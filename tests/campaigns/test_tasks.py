"""The ticks that beat starts."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from campaigns import expand, moves, tasks
from campaigns.models import Campaign, UpdateTask
from campaigns.states import CampaignStatus
from devices.models import Device
from tests.campaigns.conftest import counts
from tests.factories import CampaignFactory, DeviceFactory

Fleet = Callable[..., list[Device]]


@pytest.fixture
def due(campaign: Campaign, fleet: Fleet, now: datetime) -> Campaign:
    """A scheduled batch over three devices whose time has come."""
    fleet(3)
    Campaign.objects.update(status=CampaignStatus.PLANNED, schedule_at=now)
    expand.expand(campaign.pk, now)
    campaign.refresh_from_db()
    return campaign


def test_a_scheduled_batch_starts_at_its_time(due: Campaign) -> None:
    tasks.start_due()
    assert counts(due) == {"QUEUED": 3}


def test_a_start_that_was_cut_off_goes_on(due: Campaign, now: datetime) -> None:
    Campaign.objects.update(status=CampaignStatus.IN_PROGRESS)
    expand.start(due, [UpdateTask.objects.earliest("id").device_id], now, ["SCHEDULED"])
    assert counts(due) == {"QUEUED": 1, "SCHEDULED": 2}
    tasks.start_due()
    assert counts(due) == {"QUEUED": 3}


def test_a_batch_that_cannot_start_does_not_hold_up_the_others(
    due: Campaign, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CampaignFactory.create(status=CampaignStatus.PLANNED, schedule_at=now, expanded_at=None)
    DeviceFactory.create(product=other.product, version="1.0.0", online=True)
    expand.expand(other.pk, now)
    start = expand.start_scheduled

    def broken_for_one(campaign_id: int, *arguments: Any) -> bool:
        if campaign_id == max(due.pk, other.pk):
            raise RuntimeError("cannot start")
        return start(campaign_id, *arguments)

    monkeypatch.setattr(expand, "start_scheduled", broken_for_one)
    tasks.start_due()
    assert counts(min(due, other, key=lambda each: each.pk))["QUEUED"]


def test_idle_ticks_cost_a_constant_few_queries(
    campaign: Campaign,
    fleet: Fleet,
    now: datetime,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    fleet(5, online=False)
    expand.expand(campaign.pk, now)
    Campaign.objects.update(expanded_at=now - timedelta(minutes=1))
    with django_assert_max_num_queries(2):
        tasks.start_due()
    with django_assert_max_num_queries(1):
        tasks.expand()
    with django_assert_max_num_queries(2):
        tasks.dispatch()
    with django_assert_max_num_queries(10):
        tasks.sweep_tasks()
    with django_assert_max_num_queries(3):
        tasks.expire()
    with django_assert_max_num_queries(1):
        tasks.finish()


def test_a_wrong_counter_is_told_and_a_right_one_is_not(
    campaign: Campaign, fleet: Fleet, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    fleet(2)
    expand.expand(campaign.pk, now)
    tasks.recount()
    assert caplog.messages == []
    moves.add_counts({(campaign.pk, "FAILED"): 1})
    tasks.recount()
    assert caplog.messages == [f"counter ({campaign.pk}, 'FAILED'): stored 1, counted 0"]
