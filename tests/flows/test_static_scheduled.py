"""A static batch takes the devices that match when it is launched, also if it starts tomorrow."""

from datetime import datetime, timedelta

import pytest

from campaigns import services as updates
from campaigns.models import UpdateTask
from campaigns.services import Plan
from devices.models import Device, Product
from devices.simulator import running_fleet
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
)
from tests.running import Platform, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_who_matches_at_the_launch_is_updated_at_the_scheduled_time_and_nobody_else(
    platform: Platform, product: Product, now: datetime
) -> None:
    firmware = verified(product)
    latecomer = connected(platform, product, "1.1.0")
    with running_fleet(registered(product, 2), platform.port, quick("1.0.0")):
        wait_online(product, 3)
        at = now + timedelta(hours=1)
        plan = Plan(source_versions=["1.0.0"], schedule_at=at, accept_unproven=True)
        batch = updates.launch_batch(firmware, plan, now=now)
        assert batch.preview["matching"] == 2
        tick(now)
        assert outcome(batch) == {"SCHEDULED": 2}
        tells(latecomer, "1.0.0")
        tick(at - timedelta(seconds=1))
        assert outcome(batch) == {"SCHEDULED": 2}, "a second early"
        tick(at)
        wait_outcome(batch, {"SUCCEEDED": 2})
    latecomer.close()


def test_a_device_that_is_busy_when_the_time_comes_fails_with_a_conflict(
    platform: Platform, product: Product, now: datetime
) -> None:
    firmware, other = verified(product), verified(product, "3.0.0")
    device = connected(platform, product, "1.0.0")
    at = now + timedelta(minutes=5)
    batch = updates.launch_batch(
        firmware, Plan(schedule_at=at, accept_unproven=True, confirm_downgrade=True), now=now
    )
    tick(now)
    validation = updates.launch_validation(other, [device.name], timeout_minutes=None, now=now)
    tick(now)
    tick(at)
    failed = task_of(device, batch)
    assert (failed.status, failed.reason) == ("FAILED", "CONFLICT")
    assert task_of(device, validation).status == "NOTIFIED", "its own update goes on"
    device.close()


def test_a_device_that_never_told_its_version_matches_only_if_no_version_is_chosen(
    platform: Platform, product: Product, now: datetime
) -> None:
    firmware = verified(product)
    silent = connected(platform, product)
    wait_until(lambda: Device.objects.filter(activated_at__isnull=False).exists(), "it is activated")
    assert updates.check_plan(firmware, Plan(source_versions=["1.0.0"])).preview.matching == 0
    batch = updates.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    # It may be about to say that it runs the target already.
    tick(now + timedelta(seconds=11))
    assert silent.wait_for_message("/ota/device/upgrade/")["data"]["version"] == "2.0.0"
    tells(silent, "2.0.0")
    wait_outcome(batch, {"SUCCEEDED": 1})
    assert UpdateTask.objects.get().from_version == ""
    silent.close()
