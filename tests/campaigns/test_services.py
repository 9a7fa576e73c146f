"""What an operator does, and what is refused."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from campaigns import expand, moves, services, sweep
from campaigns.models import Campaign, UpdateTask
from campaigns.services import Plan, RefusedError
from campaigns.states import OPEN, WAITING, Busy, CampaignStatus, Policy, Region, TaskStatus
from devices.models import Device
from devices.services import remove_device
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import AuditEntry
from tests.campaigns.conftest import counts
from tests.factories import CampaignFactory, FirmwareFactory, TaskFactory, UserFactory

Fleet = Callable[..., list[Device]]


def launched(firmware: Firmware, now: datetime, **choices: Any) -> Campaign:
    campaign = services.launch_batch(firmware, Plan(accept_unproven=True, **choices), now=now)
    expand.expand(campaign.pk, now)
    campaign.refresh_from_db()
    return campaign


def test_performing_a_validation_makes_the_firmware_verified_whatever_the_devices_do(
    fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    firmware = FirmwareFactory.create(
        product=device.product, version="3.0.0", status=FirmwareStatus.UNVERIFIED
    )
    actor = UserFactory.create(account=firmware.account)
    campaign = services.launch_validation(firmware, [device.name], actor=actor, now=now)
    expand.expand(campaign.pk, now)
    firmware.refresh_from_db()
    assert (firmware.status, counts(campaign)) == (FirmwareStatus.VERIFIED, {"QUEUED": 1})
    assert AuditEntry.objects.get().actor == actor


def test_a_validation_names_every_device_that_cannot_take_part(
    fleet: Fleet, firmware: Firmware, now: datetime
) -> None:
    (done,) = fleet(1, version="2.0.0")
    with pytest.raises(ValidationError) as refused:
        services.launch_validation(firmware, [done.name, "nobody"], now=now)
    messages = refused.value.message_dict["device_names"]
    assert any(done.name in message for message in messages)
    assert any("nobody" in message for message in messages)
    assert not Campaign.objects.exists()


def test_an_unverified_firmware_cannot_be_used_for_a_batch(fleet: Fleet, now: datetime) -> None:
    (device,) = fleet(1)
    firmware = FirmwareFactory.create(product=device.product, version="3", status=FirmwareStatus.UNVERIFIED)
    with pytest.raises(RefusedError) as refused:
        services.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    assert refused.value.code == "not_verified"


def test_a_firmware_that_never_succeeded_asks_for_an_explicit_confirmation(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    with pytest.raises(RefusedError) as refused:
        services.launch_batch(firmware, Plan(), now=now)
    assert refused.value.code == "unproven"
    TaskFactory.create(
        campaign=CampaignFactory.create(firmware=firmware), device=device, status=TaskStatus.SUCCEEDED
    )
    assert services.launch_batch(firmware, Plan(), now=now).pk


def test_a_platform_may_demand_a_success_that_no_confirmation_replaces(
    firmware: Firmware, fleet: Fleet, now: datetime, settings: Any
) -> None:
    settings.OTA_DEMAND_SUCCESS = True
    device, _other = fleet(2)
    with pytest.raises(RefusedError) as refused:
        launched(firmware, now)
    assert refused.value.code == "unproven"
    proof = CampaignFactory.create(firmware=firmware)
    TaskFactory.create(campaign=proof, device=device, status=TaskStatus.SUCCEEDED)
    assert services.launch_batch(firmware, Plan(), now=now)


def test_a_downgrade_asks_for_an_explicit_confirmation(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    newer = FirmwareFactory.create(product=firmware.product, version="2.5.0")
    fleet(1, version=newer.version)
    with pytest.raises(RefusedError) as refused:
        services.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    assert refused.value.code == "downgrade"
    assert launched(firmware, now, confirm_downgrade=True).pk


@pytest.mark.parametrize(
    ("minutes", "is_allowed"), [(4, False), (5, True), (7 * 1440, True), (7 * 1440 + 1, False)]
)
def test_a_scheduled_time_lies_five_minutes_to_seven_days_ahead_of_what_the_clock_shows(
    firmware: Firmware, now: datetime, minutes: int, is_allowed: bool
) -> None:
    shown = now.replace(second=0, microsecond=0)
    plan = Plan(schedule_at=shown + timedelta(minutes=minutes))
    if is_allowed:
        assert services.check_plan(firmware, plan, shown + timedelta(seconds=59))
        return
    with pytest.raises(ValidationError) as refused:
        services.check_plan(firmware, plan, shown + timedelta(seconds=59))
    assert "schedule_at" in refused.value.message_dict


def test_only_a_static_update_can_be_scheduled(firmware: Firmware, now: datetime) -> None:
    plan = Plan(policy=Policy.DYNAMIC, schedule_at=now + timedelta(hours=1))
    with pytest.raises(ValidationError) as refused:
        services.check_plan(firmware, plan, now)
    assert "schedule_at" in refused.value.message_dict


def test_one_firmware_has_one_running_dynamic_batch(firmware: Firmware, now: datetime) -> None:
    first = launched(firmware, now, policy=Policy.DYNAMIC)
    with pytest.raises(RefusedError) as refused:
        launched(firmware, now, policy=Policy.DYNAMIC)
    assert refused.value.code == "dynamic_exists"
    services.stop_matching(first, now=now)
    assert launched(firmware, now, policy=Policy.DYNAMIC).pk


def test_a_directional_batch_takes_the_intersection_and_tells_why_the_others_are_left_out(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    (right,), (other,) = fleet(1, version="1.0.0"), fleet(1, version="1.5.0")
    plan = Plan(
        region=Region.DIRECTIONAL, device_names=[right.name, other.name, "ghost"], source_versions=["1.0.0"]
    )
    planned = services.check_plan(firmware, plan, now)
    assert planned.preview.matching == 1
    assert planned.excluded == {other.name: "other_version", "ghost": "unknown"}


def test_the_preview_names_the_batches_that_hold_busy_devices(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    busy, _free = fleet(2)
    other = CampaignFactory.create(product=firmware.product)
    TaskFactory.create(campaign=other, device=busy, status=TaskStatus.QUEUED)
    preview = services.check_plan(firmware, Plan(), now).preview
    assert (preview.matching, preview.online, preview.busy, preview.busy_waiting) == (2, 2, 1, 1)
    assert preview.busy_by_campaign == {other.pk: 1}


def test_a_canceled_batch_cancels_what_waits_and_what_is_updating(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(3)
    campaign = launched(firmware, now)
    UpdateTask.objects.filter(pk=UpdateTask.objects.earliest("id").pk).update(status=TaskStatus.SUCCEEDED)
    from campaigns import moves

    moves.add_counts({(campaign.pk, "QUEUED"): -1, (campaign.pk, "SUCCEEDED"): 1})
    services.cancel_campaign(campaign, now=now)
    campaign.refresh_from_db()
    assert campaign.status == CampaignStatus.CANCELED
    assert counts(campaign) == {"SUCCEEDED": 1, "CANCELED": 2}
    with pytest.raises(RefusedError):
        services.cancel_campaign(campaign, now=now)


def test_a_cancel_of_the_waiting_ones_leaves_the_batch_running(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(2)
    campaign = launched(firmware, now)
    services.cancel_campaign(campaign, statuses=[TaskStatus.QUEUED], now=now)
    campaign.refresh_from_db()
    assert (campaign.status, counts(campaign)) == (CampaignStatus.IN_PROGRESS, {"CANCELED": 2})


def test_update_again_starts_failed_ones_over_and_reopens_a_finished_batch(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(2)
    campaign = launched(firmware, now)
    UpdateTask.objects.update(status=TaskStatus.FAILED, reason="DOWNLOAD", attempt=3)
    moves.recount([campaign.pk], repair=True)
    Campaign.objects.update(status=CampaignStatus.COMPLETED)
    assert services.update_again(campaign, reason="BURN", now=now) == 0
    assert services.update_again(campaign, reason="DOWNLOAD", now=now) == 2
    campaign.refresh_from_db()
    assert campaign.status == CampaignStatus.IN_PROGRESS
    assert set(UpdateTask.objects.values_list("status", "attempt", "reason")) == {("QUEUED", 1, "")}


def matched_twice(firmware: Firmware, device: Device) -> tuple[Campaign, UpdateTask, UpdateTask]:
    """A dynamic batch, and the tasks of a device that it took in two times; both failed."""
    campaign = CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC)
    failed = {"campaign": campaign, "device": device, "status": TaskStatus.FAILED}
    older = TaskFactory.create(**failed, reason="DOWNLOAD", match_number=1)
    newer = TaskFactory.create(**failed, reason="TIMEOUT", match_number=2)
    moves.recount([campaign.pk], repair=True)
    return campaign, older, newer


def test_update_again_starts_exactly_the_task_that_was_named(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    campaign, older, newer = matched_twice(firmware, *fleet(1))
    assert services.update_again(campaign, task_ids=[older.pk], now=now) == 1
    assert dict(UpdateTask.objects.values_list("id", "status")) == {older.pk: "QUEUED", newer.pk: "FAILED"}
    assert services.update_again(campaign, task_ids=[newer.pk], now=now) == 0, "the device is busy"


def test_a_device_named_by_two_of_its_tasks_starts_the_later_one(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    campaign, older, newer = matched_twice(firmware, *fleet(1))
    assert services.update_again(campaign, task_ids=[older.pk, newer.pk], now=now) == 1
    assert dict(UpdateTask.objects.values_list("id", "status")) == {older.pk: "FAILED", newer.pk: "QUEUED"}


def test_update_all_again_leaves_failures_that_a_later_task_has_overtaken(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    campaign, _older, newer = matched_twice(firmware, *fleet(1))
    assert services.update_again(campaign, reason="DOWNLOAD", now=now) == 0
    assert services.update_again(campaign, reason="TIMEOUT", now=now) == 1
    newer.refresh_from_db()
    assert newer.status == TaskStatus.QUEUED


def test_a_selection_of_tasks_is_canceled_within_its_own_batch_only(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(2)
    campaign = launched(firmware, now)
    other = CampaignFactory.create()
    first = UpdateTask.objects.earliest("id")
    assert services.cancel_tasks(other, [first.pk], now=now) == 0
    assert services.cancel_tasks(campaign, [first.pk], now=now) == 1
    assert counts(campaign) == {"QUEUED": 1, "CANCELED": 1}


def test_update_again_is_refused_before_the_batch_starts_and_while_it_is_being_canceled(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(2)
    campaign = launched(firmware, now)
    first = UpdateTask.objects.earliest("id")
    services.cancel_tasks(campaign, [first.pk], now=now)
    for values in ({"status": CampaignStatus.PLANNED}, {"canceling": ["QUEUED"]}):
        Campaign.objects.update(**values)
        with pytest.raises(RefusedError):
            services.update_again(campaign, task_ids=[first.pk], now=now)
        Campaign.objects.update(status=CampaignStatus.IN_PROGRESS, canceling=[])
    assert counts(campaign) == {"QUEUED": 1, "CANCELED": 1}


def test_a_canceled_dynamic_batch_that_updates_one_device_again_matches_no_others(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(1)
    plan = Plan(policy=Policy.DYNAMIC, accept_unproven=True)
    first = services.launch_batch(firmware, plan, now=now)
    expand.expand(first.pk, now)
    services.cancel_campaign(first, now=now)
    services.launch_batch(firmware, plan, now=now)
    assert services.update_again(first, task_ids=[UpdateTask.objects.get().pk], now=now) == 1
    assert not Campaign.objects.matching().filter(pk=first.pk).exists()
    sweep.resume_cancels(now + timedelta(minutes=2))
    assert counts(first) == {"QUEUED": 1}


def test_a_removed_device_is_not_updated_again(firmware: Firmware, fleet: Fleet, now: datetime) -> None:
    (device,) = fleet(1)
    campaign = launched(firmware, now)
    remove_device(device, now=now)
    assert services.update_again(campaign, now=now) == 0
    assert counts(campaign) == {"FAILED": 1}


def test_a_device_whose_task_is_canceled_is_offered_to_dynamic_batches(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(1)
    campaign = launched(firmware, now)
    dynamic = CampaignFactory.create(
        firmware=FirmwareFactory.create(product=firmware.product, version="3.0.0"), policy=Policy.DYNAMIC
    )
    services.cancel_tasks(campaign, [UpdateTask.objects.get().pk], now=now)
    assert counts(dynamic) == {"QUEUED": 1}


def test_canceling_what_waits_includes_devices_that_have_no_task_yet(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(3)
    campaign = services.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    services.cancel_campaign(campaign, statuses=[TaskStatus.QUEUED], now=now)
    expand.expand(campaign.pk, now)
    assert counts(campaign) == {}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("policy", {"policy": "eager"}),
        ("region", {"region": "moon"}),
        ("retry_interval_minutes", {"retry_interval_minutes": 7, "max_retries": 2}),
        ("max_retries", {"retry_interval_minutes": 10, "max_retries": 3}),
        ("timeout_minutes", {"timeout_minutes": 0}),
        ("timeout_minutes", {"timeout_minutes": 1441}),
        ("max_per_minute", {"max_per_minute": 9}),
        ("max_per_minute", {"max_per_minute": 1_000_001}),
        ("busy", {"busy": "kill"}),
    ],
)
def test_every_choice_of_a_plan_is_held_to_its_rule(
    firmware: Firmware, now: datetime, field: str, values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        services.check_plan(firmware, Plan(**values), now)
    assert set(refusal.value.error_dict) == {field}


@pytest.mark.parametrize("statuses", [[TaskStatus.SCHEDULED], sorted(WAITING), sorted(OPEN)])
def test_canceling_what_is_scheduled_includes_devices_that_have_no_task_yet(
    firmware: Firmware, fleet: Fleet, now: datetime, statuses: list[str]
) -> None:
    fleet(3)
    due = now + timedelta(hours=1)
    campaign = services.launch_batch(firmware, Plan(accept_unproven=True, schedule_at=due), now=now)
    services.cancel_campaign(campaign, statuses=statuses, now=now)
    expand.expand(campaign.pk, now)
    expand.start_scheduled(campaign.pk, due)
    assert counts(campaign) == {}


def test_canceling_what_is_queued_leaves_a_scheduled_batch_its_devices(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(3)
    due = now + timedelta(hours=1)
    campaign = services.launch_batch(firmware, Plan(accept_unproven=True, schedule_at=due), now=now)
    services.cancel_campaign(campaign, statuses=[TaskStatus.QUEUED], now=now)
    expand.expand(campaign.pk, now)
    assert counts(campaign) == {"SCHEDULED": 3}


@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize("verb", ["cancel_tasks", "cancel_campaign"])
def test_a_canceled_task_does_not_keep_the_reason_of_an_earlier_attempt(
    firmware: Firmware, fleet: Fleet, now: datetime, verb: str, pushed: bool
) -> None:
    fleet(1)
    campaign = launched(firmware, now, retry_interval_minutes=10, max_retries=1)
    UpdateTask.objects.update(
        reason="DOWNLOAD", detail="no route", attempt=2, pushed_at=now if pushed else None
    )
    if verb == "cancel_tasks":
        services.cancel_tasks(campaign, [UpdateTask.objects.get().pk], now=now)
    else:
        services.cancel_campaign(campaign, now=now)
    assert UpdateTask.objects.values_list("status", "reason", "detail").get() == ("CANCELED", "", "")


def test_updating_an_old_batch_again_replaces_nothing(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    fleet(1)
    old = launched(firmware, now, busy=Busy.REPLACE)
    services.cancel_campaign(old, now=now)
    newer = launched(FirmwareFactory.create(product=firmware.product, version="3.0.0"), now)
    assert services.update_again(old, task_ids=[old.tasks.get().pk], now=now) == 0
    assert (counts(old), counts(newer)) == ({"CANCELED": 1}, {"QUEUED": 1})
