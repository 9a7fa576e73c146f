"""The main job as a story: a file is uploaded, validated on a device, then reaches a fleet."""

from collections import Counter
from collections.abc import Iterator

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from campaigns import services as updates
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.services import Plan
from campaigns.states import CampaignStatus, EventKind
from devices.models import Device, DevicePresence, Product, VersionCounter
from devices.simulator import Behaviour, DeviceKeys, Fault, running_fleet
from devices.simulator.behaviour import VersionMix
from firmware import services as uploads
from firmware.models import Firmware, FirmwareStatus
from tests.factories import DeviceFactory, ProductFactory, UserFactory
from tests.running import Platform, running_dispatcher, running_platform, running_web, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

IMAGE = bytes(range(256)) * 400
QUICK = Behaviour(speed=200, versions=VersionMix({"1.0.0": 1}))


@pytest.fixture
def platform(transactional_db: None) -> Iterator[Platform]:
    with running_web(), running_platform() as platform, running_dispatcher():
        yield platform


@pytest.fixture
def product(transactional_db: None) -> Product:
    return ProductFactory.create()


def fleet(product: Product, count: int) -> list[DeviceKeys]:
    devices = DeviceFactory.create_batch(count, product=product, activated_at=None)
    return [DeviceKeys(product.product_key, device.name, device.secret) for device in devices]


def uploaded(product: Product, **values: str) -> Firmware:
    return uploads.upload_firmware(
        product.account,
        name=values.get("name", "gateway_fw"),
        version=values.get("version", "2.0.0"),
        product=product,
        sign_method=values.get("sign_method", "SHA256"),
        upload=SimpleUploadedFile("image.bin", IMAGE),
        actor=UserFactory.create(account=product.account),
    )


def wait_online(product: Product, count: int) -> None:
    wait_until(
        lambda: (
            DevicePresence.objects.online().filter(device__product=product).count() == count
            and sum(n for _, n in VersionCounter.objects.distribution(product)) == count
        ),
        "the fleet is online and has told its versions",
    )


def is_over(campaign: Campaign) -> bool:
    return Campaign.objects.filter(pk=campaign.pk, status=CampaignStatus.COMPLETED).exists()


def test_a_file_is_validated_on_one_device_and_then_reaches_the_fleet(
    platform: Platform, product: Product
) -> None:
    with running_fleet(fleet(product, 8), platform.port, QUICK):
        wait_online(product, 8)
        firmware = uploaded(product)
        assert firmware.status == FirmwareStatus.UNVERIFIED

        first = Device.objects.earliest("id")
        validation = updates.launch_validation(firmware, [first.name])
        wait_until(lambda: is_over(validation), "the validation is over")
        firmware.refresh_from_db()
        assert firmware.status == FirmwareStatus.VERIFIED

        batch = updates.launch_batch(firmware, Plan())
        wait_until(lambda: is_over(batch), "the batch is over")
        outcome = Counter(UpdateTask.objects.filter(campaign=batch).values_list("status", flat=True))
        assert outcome == {"SUCCEEDED": 7}
        assert VersionCounter.objects.distribution(product) == [("2.0.0", 8)]
        pushes = TaskEvent.objects.filter(task__campaign=batch, kind=EventKind.PUSHED)
        assert pushes.count() == 7, "nobody was pushed to twice"


def test_a_download_that_fails_is_tried_again_and_then_given_up_with_the_devices_words(
    platform: Platform, product: Product
) -> None:
    behaviour = Behaviour(speed=200, versions=VersionMix({"1.0.0": 1}), faults={Fault.DOWNLOAD: 1.0})
    with running_fleet(fleet(product, 1), platform.port, behaviour):
        wait_online(product, 1)
        firmware = uploaded(product)
        Firmware.objects.update(status=FirmwareStatus.VERIFIED)
        plan = Plan(retry_interval_minutes=0, max_retries=2, accept_unproven=True)
        batch = updates.launch_batch(firmware, plan)
        wait_until(lambda: is_over(batch), "the batch is over")
        task = UpdateTask.objects.get()
        assert (task.status, task.reason, task.attempt) == ("FAILED", "DOWNLOAD", 3)
        assert task.detail


def test_a_device_that_was_switched_off_is_updated_when_it_is_switched_on(
    platform: Platform, product: Product
) -> None:
    keys = fleet(product, 1)
    with running_fleet(keys, platform.port, QUICK):
        wait_online(product, 1)
    wait_until(lambda: not DevicePresence.objects.online().exists(), "the device is off")
    firmware = uploaded(product, sign_method="MD5")
    validation = updates.launch_validation(firmware, [keys[0].device_name])
    wait_until(lambda: UpdateTask.objects.filter(status="QUEUED", ready_at=None).exists(), "the push waits")
    with running_fleet(keys, platform.port, QUICK):
        wait_until(lambda: is_over(validation), "the validation is over")
    assert UpdateTask.objects.get().status == "SUCCEEDED"


def test_a_dynamic_batch_takes_in_a_device_that_is_switched_on_later(
    platform: Platform, product: Product
) -> None:
    firmware = uploaded(product)
    Firmware.objects.update(status=FirmwareStatus.VERIFIED)
    plan = Plan(policy="dynamic", source_versions=["1.0.0"], accept_unproven=True)
    batch = updates.launch_batch(firmware, plan)
    wait_until(
        lambda: Campaign.objects.filter(pk=batch.pk, expanded_at__isnull=False).exists(), "it is expanded"
    )
    with running_fleet(fleet(product, 2), platform.port, QUICK):
        wait_until(lambda: UpdateTask.objects.filter(status="SUCCEEDED").count() == 2, "both are updated")
