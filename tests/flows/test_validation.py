"""A firmware is validated until one device really runs it, and only then goes out without a question."""

import pytest

from campaigns import services as updates
from campaigns.forms import version_choices
from campaigns.models import UpdateTask
from campaigns.services import Plan, RefusedError
from devices.models import Product
from devices.simulator import Fault, running_fleet
from firmware.models import FirmwareStatus
from tests.flows.stage import quick, registered, uploaded, wait_online, wait_over
from tests.running import Platform

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("workers")]


def test_a_failed_validation_verifies_and_the_batch_asks_until_another_one_succeeds(
    platform: Platform, product: Product
) -> None:
    firmware = uploaded(product)
    clumsy, good = registered(product, 2), registered(product, 2)
    with (
        running_fleet(clumsy, platform.port, quick("1.0.0", Fault.VERIFICATION)),
        running_fleet(good, platform.port, quick("1.1.0")),
    ):
        wait_online(product, 4)
        assert dict(version_choices(firmware)) == {"1.0.0": "1.0.0 (2)", "1.1.0": "1.1.0 (2)"}

        first = updates.launch_validation(firmware, [clumsy[0].device_name], source_versions=["1.0.0"])
        wait_over(first)
        assert UpdateTask.objects.get().reason == "VERIFICATION"
        firmware.refresh_from_db()
        assert firmware.status == FirmwareStatus.VERIFIED, "performing it is enough"
        with pytest.raises(RefusedError) as refused:
            updates.launch_batch(firmware, Plan())
        assert refused.value.code == "unproven"

        second = updates.launch_validation(firmware, [good[0].device_name], source_versions=["1.1.0"])
        wait_over(second)
        batch = updates.launch_batch(firmware, Plan(source_versions=["1.1.0"]))
        wait_over(batch)
    assert UpdateTask.objects.get(campaign=batch).status == "SUCCEEDED"
