"""Starting tasks: who gets one, who is busy, and that a cut-off expansion goes on."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from campaigns import expand, named, services
from campaigns.models import Campaign, UpdateTask
from campaigns.states import Busy, CampaignStatus, Policy, Reason, Region, TaskStatus
from devices.models import Device, DevicePresence
from firmware.models import Firmware
from tests.campaigns.conftest import counts, status_of
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, TaskFactory

Fleet = Callable[..., list[Device]]


def test_an_online_device_is_ready_at_once_and_an_offline_one_is_parked(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    (online,), (offline,) = fleet(1), fleet(1, online=False)
    expand.expand(campaign.pk, now)
    ready = dict(UpdateTask.objects.values_list("device_id", "ready_at"))
    assert ready == {online.pk: now, offline.pk: None}
    assert counts(campaign) == {"QUEUED": 2}


def test_only_activated_devices_on_a_chosen_version_that_differ_from_the_target_get_a_task(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    wanted = fleet(2, version="1.0.0")
    fleet(1, version="1.5.0")
    fleet(1, version="2.0.0")
    fleet(1, version=None)
    fleet(1, version="1.0.0", activated_at=None)
    fleet(1, version="1.0.0", is_disabled=True)
    fleet(1, version="1.0.0", removed_at=now)
    campaign = CampaignFactory.create(firmware=firmware, source_versions=["1.0.0"], expanded_at=None)
    expand.expand(campaign.pk, now)
    assert set(UpdateTask.objects.values_list("device_id", flat=True)) == {device.pk for device in wanted}


def test_a_device_that_never_reported_matches_only_when_no_version_is_chosen(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    (silent,) = fleet(1, version=None)
    expand.expand(campaign.pk, now)
    task = UpdateTask.objects.get()
    assert (task.device_id, task.from_version) == (silent.pk, "")


def test_a_busy_device_fails_with_a_conflict_and_its_own_task_goes_on(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    other = TaskFactory.create(device=device, campaign=CampaignFactory.create(), status=TaskStatus.NOTIFIED)
    expand.expand(campaign.pk, now)
    mine = UpdateTask.objects.get(campaign=campaign)
    other.refresh_from_db()
    assert (mine.status, mine.reason, other.status) == ("FAILED", Reason.CONFLICT, "NOTIFIED")
    assert mine.events.get().reason == Reason.CONFLICT
    assert counts(campaign) == {"FAILED": 1}


def test_replace_cancels_what_only_waits_and_leaves_what_is_updating(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    waiting, updating = fleet(2)
    old = CampaignFactory.create(product=firmware.product)
    from campaigns import moves

    for device, status in ((waiting, TaskStatus.QUEUED), (updating, TaskStatus.NOTIFIED)):
        TaskFactory.create(campaign=old, device=device, status=status, pushed_at=None)
    moves.add_counts({(old.pk, "QUEUED"): 1, (old.pk, "NOTIFIED"): 1})
    campaign = CampaignFactory.create(firmware=firmware, busy=Busy.REPLACE, expanded_at=None)
    expand.expand(campaign.pk, now)
    assert counts(old) == {"CANCELED": 1, "NOTIFIED": 1}
    assert counts(campaign) == {"QUEUED": 1, "FAILED": 1}
    assert status_of(waiting) == "QUEUED"


def test_a_dynamic_batch_passes_over_a_busy_device_instead_of_failing_it(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    TaskFactory.create(device=device, campaign=CampaignFactory.create(), status=TaskStatus.NOTIFIED)
    campaign = CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC, expanded_at=None)
    expand.expand(campaign.pk, now)
    assert not UpdateTask.objects.filter(campaign=campaign).exists()


def test_an_expansion_that_was_cut_off_goes_on_behind_its_cursor(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    fleet(5)
    assert expand.expand(campaign.pk, now, chunk=2, max_chunks=1) is False
    assert counts(campaign) == {"QUEUED": 2}
    assert expand.expand(campaign.pk, now, chunk=2) is True
    assert counts(campaign) == {"QUEUED": 5}


def test_a_stretch_ends_among_other_products_devices_and_chosen_ones_without_missing_any(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    mine = []
    for _ in range(3):
        mine += fleet(2)
        DeviceFactory.create_batch(2, version="1.0.0", online=True)
    everybody = CampaignFactory.create(firmware=firmware, expanded_at=None)
    expand.expand(everybody.pk, now, chunk=3)
    assert set(UpdateTask.objects.values_list("device", flat=True)) == {device.pk for device in mine}
    some = CampaignFactory.create(firmware=firmware, region=Region.DIRECTIONAL, expanded_at=None)
    named.choose(some, [device.name for device in mine[1:]])
    expand.expand(some.pk, now, chunk=2)
    tasks = UpdateTask.objects.filter(campaign=some)
    assert set(tasks.values_list("device", flat=True)) == {device.pk for device in mine[1:]}


def test_a_repeated_expansion_gives_nobody_a_second_task(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    fleet(3)
    expand.expand(campaign.pk, now)
    Campaign.objects.filter(pk=campaign.pk).update(cursor=0, expanded_at=None)
    expand.expand(campaign.pk, now)
    assert counts(campaign) == {"QUEUED": 3}


def test_a_reserved_device_becomes_ready_when_its_reservation_ends(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    until = now + timedelta(minutes=20)
    DevicePresence.objects.filter(device=device).update(reserved_until=until)
    expand.expand(campaign.pk, now)
    assert UpdateTask.objects.get().ready_at == until


def test_a_scheduled_batch_holds_its_devices_from_launch_and_starts_them_at_its_time(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    device, busy = fleet(2)
    due = now + timedelta(minutes=10)
    campaign = services.launch_batch(firmware, services.Plan(schedule_at=due, accept_unproven=True), now=now)
    expand.expand(campaign.pk, now)
    late_comer = fleet(1)[0]
    assert counts(campaign) == {"SCHEDULED": 2}
    assert UpdateTask.objects.filter(due_at=due, ready_at=None).count() == 2
    TaskFactory.create(device=busy, campaign=CampaignFactory.create(), status=TaskStatus.NOTIFIED)
    expand.start_scheduled(campaign.pk, due)
    campaign.refresh_from_db()
    assert campaign.status == CampaignStatus.IN_PROGRESS
    assert counts(campaign) == {"QUEUED": 1, "FAILED": 1}
    assert UpdateTask.objects.get(campaign=campaign, device=device).ready_at == due
    assert not UpdateTask.objects.filter(device=late_comer).exists()


def test_a_scheduled_batch_does_not_start_before_its_time(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(1)
    due = now + timedelta(minutes=10)
    campaign = services.launch_batch(firmware, services.Plan(schedule_at=due, accept_unproven=True), now=now)
    expand.expand(campaign.pk, now)
    expand.start_scheduled(campaign.pk, due - timedelta(seconds=1))
    assert counts(campaign) == {"SCHEDULED": 1}


@pytest.mark.django_db
def test_an_expansion_costs_the_same_queries_for_three_devices_as_for_thirty(
    django_assert_max_num_queries: Callable[..., object], fleet: Fleet, campaign: Campaign
) -> None:
    fleet(30)
    with django_assert_max_num_queries(16):  # type: ignore[attr-defined]
        expand.expand(campaign.pk, timezone.now())


def test_a_delta_package_takes_only_devices_on_its_source_version(
    fleet: Fleet, firmware: Firmware, now: datetime
) -> None:
    right, _wrong = fleet(1, version="1.0.0") + fleet(1, version="1.5.0")
    delta = FirmwareFactory.create(product=firmware.product, version="3.0.0", source_version="1.0.0")
    campaign = CampaignFactory.create(firmware=delta, expanded_at=None)
    expand.expand(campaign.pk, now)
    assert UpdateTask.objects.get().device_id == right.pk


def test_a_replaced_task_that_was_pushed_once_reserves_its_device(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    other = CampaignFactory.create(product=firmware.product)
    TaskFactory.create(campaign=other, device=device, status=TaskStatus.QUEUED, pushed_at=now)
    campaign = CampaignFactory.create(firmware=firmware, busy=Busy.REPLACE, expanded_at=None)
    expand.expand(campaign.pk, now)
    assert UpdateTask.objects.get(campaign=campaign).ready_at == now + timedelta(minutes=30)


def test_a_device_removed_before_a_scheduled_batch_starts_does_not_hold_it_open(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    Campaign.objects.update(status=CampaignStatus.PLANNED, schedule_at=now)
    expand.expand(campaign.pk, now)
    Device.objects.update(removed_at=now)
    assert expand.start_scheduled(campaign.pk, now)
    assert UpdateTask.objects.get(device=device).reason == "DEVICE_REMOVED"
    assert counts(campaign) == {"FAILED": 1}


@pytest.mark.parametrize("is_newer", [False, True])
def test_a_scheduled_batch_that_replaces_leaves_what_was_launched_after_it(
    firmware: Firmware, fleet: Fleet, now: datetime, is_newer: bool
) -> None:
    fleet(1)
    due = now + timedelta(minutes=10)
    other = FirmwareFactory.create(product=firmware.product, version="3.0.0")
    scheduled = services.Plan(schedule_at=due, busy=Busy.REPLACE, accept_unproven=True)
    plans = [(firmware, scheduled), (other, services.Plan(accept_unproven=True))]
    campaigns = {}
    for each, plan in plans if is_newer else reversed(plans):
        campaigns[each] = services.launch_batch(each, plan, now=now)
        expand.expand(campaigns[each].pk, now)
    expand.start_scheduled(campaigns[firmware].pk, due)
    if is_newer:
        assert (counts(campaigns[firmware]), counts(campaigns[other])) == ({"FAILED": 1}, {"QUEUED": 1})
    else:
        assert (counts(campaigns[firmware]), counts(campaigns[other])) == ({"QUEUED": 1}, {"CANCELED": 1})


def test_an_expansion_that_is_resumed_late_replaces_nothing_newer(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(1)
    plan = services.Plan(busy=Busy.REPLACE, accept_unproven=True)
    campaign = services.launch_batch(firmware, plan, now=now)
    newer = CampaignFactory.create(
        firmware=FirmwareFactory.create(product=firmware.product, version="3.0.0"), expanded_at=None
    )
    expand.expand(newer.pk, now)
    expand.expand(campaign.pk, now)
    assert (counts(campaign), counts(newer)) == ({"FAILED": 1}, {"QUEUED": 1})
