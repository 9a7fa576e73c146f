"""The main job as a story: a file is uploaded, validated on a device, then reaches a fleet."""

import pytest

from campaigns import services as updates
from campaigns.models import TaskEvent, UpdateTask
from campaigns.services import Plan
from campaigns.states import EventKind
from devices.models import Device, DevicePresence, Product, VersionCounter
from devices.simulator import running_fleet
from firmware.models import FirmwareStatus
from tests.flows.stage import outcome, quick, registered, uploaded, wait_online, wait_over
from tests.running import Platform, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("workers")]


def test_a_file_is_validated_on_one_device_and_then_reaches_the_fleet(
    platform: Platform, product: Product
) -> None:
    with running_fleet(registered(product, 8), platform.port, quick()):
        wait_online(product, 8)
        firmware = uploaded(product)
        assert firmware.status == FirmwareStatus.UNVERIFIED

        first = Device.objects.earliest("id")
        validation = updates.launch_validation(firmware, [first.name])
        wait_over(validation)
        firmware.refresh_from_db()
        assert firmware.status == FirmwareStatus.VERIFIED

        batch = updates.launch_batch(firmware, Plan())
        wait_over(batch)
        assert outcome(batch) == {"SUCCEEDED": 7}
        assert VersionCounter.objects.distribution(product) == [("2.0.0", 8)]
        pushes = TaskEvent.objects.filter(task__campaign=batch, kind=EventKind.PUSHED)
        assert pushes.count() == 7, "nobody was pushed to twice"


def test_a_device_that_was_switched_off_is_updated_when_it_is_switched_on(
    platform: Platform, product: Product
) -> None:
    keys = registered(product, 1)
    with running_fleet(keys, platform.port, quick()):
        wait_online(product, 1)
    wait_until(lambda: not DevicePresence.objects.online().exists(), "the device is off")
    firmware = uploaded(product, sign_method="MD5")
    validation = updates.launch_validation(firmware, [keys[0].device_name])
    wait_until(lambda: UpdateTask.objects.filter(status="QUEUED", ready_at=None).exists(), "the push waits")
    with running_fleet(keys, platform.port, quick()):
        wait_over(validation)
    assert UpdateTask.objects.get().status == "SUCCEEDED"
