"""A dynamic batch goes on matching, never throws a device back, and never takes one from another update."""

from datetime import datetime, timedelta

import pytest

from campaigns import services as updates
from campaigns.dynamic import MAX_MATCHES
from campaigns.models import Campaign, UpdateTask
from campaigns.services import Plan, RefusedError
from devices.models import Product
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
    wait_outcome,
)
from tests.running import Platform, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

DYNAMIC = {"policy": "dynamic", "accept_unproven": True, "confirm_downgrade": True}


@pytest.mark.usefixtures("workers")
def test_devices_that_are_activated_later_get_their_task_at_that_moment(
    platform: Platform, product: Product
) -> None:
    firmware = verified(product)
    batch = updates.launch_batch(firmware, Plan(source_versions=["1.0.0"], **DYNAMIC))
    wait_until(
        lambda: Campaign.objects.filter(pk=batch.pk, expanded_at__isnull=False).exists(), "it is expanded"
    )
    with pytest.raises(RefusedError) as refused:
        updates.launch_batch(firmware, Plan(**DYNAMIC))
    assert refused.value.code == "dynamic_exists"
    with running_fleet(registered(product, 2), platform.port, quick()):
        wait_outcome(batch, {"SUCCEEDED": 2})


def test_a_busy_device_is_passed_over_and_taken_in_when_its_update_ends(
    platform: Platform, product: Product, now: datetime
) -> None:
    device = connected(platform, product, "1.0.0")
    validation = updates.launch_validation(verified(product, "2.0.0"), [device.name], now=now)
    tick(now)
    device.wait_for_message("/ota/device/upgrade/")
    batch = updates.launch_batch(verified(product, "3.0.0"), Plan(**DYNAMIC), now=now)
    tick(now)
    assert outcome(batch) == {}, "neither a task nor a failure"
    tells(device, "2.0.0")
    wait_outcome(validation, {"SUCCEEDED": 1})
    wait_outcome(batch, {"QUEUED": 1})
    tick(now + timedelta(minutes=1))
    tells(device, "3.0.0")
    wait_outcome(batch, {"SUCCEEDED": 1})
    device.close()


def test_the_newest_batch_that_matches_wins_and_no_older_one_takes_the_device_back(
    platform: Platform, product: Product, now: datetime
) -> None:
    older = updates.launch_batch(verified(product, "2.0.0"), Plan(**DYNAMIC), now=now)
    newer = updates.launch_batch(
        verified(product, "3.0.0"), Plan(source_versions=["1.0.0"], **DYNAMIC), now=now
    )
    tick(now)
    device = connected(platform, product)
    assert outcome(older) == {}, "what the device runs decides, and it has not told that yet"
    tells(device, "1.0.0")
    wait_until(lambda: outcome(newer) or outcome(older), "it is taken in")
    assert (outcome(newer), outcome(older)) == ({"QUEUED": 1}, {})
    tells(device, "3.0.0")
    wait_outcome(newer, {"SUCCEEDED": 1})
    assert outcome(older) == {}, "a device on the newer target stays there"
    # Only a version of its own choosing that the newer one does not want leaves it to the older.
    tells(device, "1.5.0")
    wait_outcome(older, {"QUEUED": 1})
    device.close()


def test_a_device_that_keeps_going_back_is_taken_in_ten_times_and_no_more(
    platform: Platform, product: Product, now: datetime
) -> None:
    batch = updates.launch_batch(verified(product), Plan(source_versions=["1.0.0"], **DYNAMIC), now=now)
    tick(now)
    device = connected(platform, product)
    for match in range(1, MAX_MATCHES + 1):
        tells(device, "1.0.0")
        wait_outcome(batch, {"QUEUED": 1} | ({"SUCCEEDED": match - 1} if match > 1 else {}))
        tells(device, "2.0.0")
        wait_outcome(batch, {"SUCCEEDED": match})
    tells(device, "1.0.0")
    assert UpdateTask.objects.count() == MAX_MATCHES
    assert task_of(device, batch).match_number == MAX_MATCHES
    device.close()
