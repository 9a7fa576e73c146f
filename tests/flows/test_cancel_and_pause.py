"""An operator holds a batch, slows it down, and takes devices out of it."""

from datetime import datetime, timedelta

import pytest

from campaigns import services as updates
from campaigns.models import Campaign
from campaigns.services import Plan
from campaigns.states import CampaignStatus
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
)
from tests.running import Platform

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_paused_batch_pushes_nothing_until_it_is_resumed(
    platform: Platform, product: Product, now: datetime
) -> None:
    device = connected(platform, product, "1.0.0")
    batch = updates.launch_batch(verified(product), Plan(accept_unproven=True), now=now)
    updates.pause(batch)
    tick(now)
    assert (outcome(batch), device.messages) == ({"QUEUED": 1}, [])
    updates.resume(batch)
    tick(now)
    device.wait_for_message("/ota/device/upgrade/")
    device.close()


def test_a_limited_batch_pushes_so_many_devices_a_minute(
    platform: Platform, product: Product, now: datetime
) -> None:
    minute = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    with running_fleet(registered(product, 12), platform.port, quick(fault=Fault.SILENT)):
        wait_online(product, 12)
        plan = Plan(max_per_minute=10, accept_unproven=True)
        batch = updates.launch_batch(verified(product), plan, now=minute)
        tick(minute)
        tick(minute + timedelta(seconds=59))
        assert outcome(batch) == {"NOTIFIED": 10, "QUEUED": 2}
        tick(minute + timedelta(seconds=60))
        assert outcome(batch) == {"NOTIFIED": 12}


def test_one_device_is_taken_out_and_then_the_batch_is_canceled_though_one_still_finishes(
    platform: Platform, product: Product, now: datetime
) -> None:
    firmware = verified(product)
    updating = connected(platform, product, "1.0.0")
    batch = updates.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    tick(now)
    updating.wait_for_message("/ota/device/upgrade/")
    updating.progress(40)
    wait_outcome(batch, {"IN_PROGRESS": 1})

    waiting = connected(platform, product, "1.0.0")
    other = updates.launch_batch(firmware, Plan(accept_unproven=True), now=now)
    updates.pause(other)
    tick(now)
    assert task_of(updating, other).reason == "CONFLICT"
    assert updates.cancel_tasks(other, [task_of(waiting, other).pk]) == 1
    assert task_of(waiting, other).status == "CANCELED"

    updates.cancel_campaign(batch, now=now)
    assert Campaign.objects.get(pk=batch.pk).status == CampaignStatus.CANCELED
    assert outcome(batch) == {"CANCELED": 1}
    tells(updating, "2.0.0")
    late = task_of(updating, batch)
    assert (late.status, late.is_late) == ("CANCELED", True)
    assert waiting.messages == [], "nobody told it of anything"
    updating.close()
    waiting.close()


def test_a_waiting_task_of_another_batch_is_replaced_only_where_the_operator_said_so(
    platform: Platform, product: Product, now: datetime
) -> None:
    first, second = verified(product, "2.0.0"), verified(product, "3.0.0")
    device = connected(platform, product, "1.0.0")
    held = updates.launch_batch(first, Plan(accept_unproven=True, confirm_downgrade=True), now=now)
    updates.pause(held)
    tick(now)
    plan = updates.check_plan(second, Plan(), now)
    assert (plan.preview.busy, plan.preview.busy_waiting) == (1, 1)
    assert plan.preview.busy_by_campaign == {held.pk: 1}
    left = updates.launch_batch(second, Plan(accept_unproven=True), now=now)
    tick(now)
    assert task_of(device, left).reason == "CONFLICT"
    replacing = updates.launch_batch(second, Plan(busy="replace", accept_unproven=True), now=now)
    tick(now)
    assert (outcome(held), outcome(replacing)) == ({"CANCELED": 1}, {"NOTIFIED": 1})
    assert device.wait_for_message("/ota/device/upgrade/")["data"]["version"] == "3.0.0"
    device.close()
