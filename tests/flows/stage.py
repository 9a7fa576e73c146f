"""What the stories share: firmware, fleets, and the workers' ticks at a time of the story's choosing."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import F

from campaigns import dispatch, expand, sweep
from campaigns.models import Campaign, UpdateTask
from campaigns.states import CampaignStatus
from devices import mqtt
from devices.models import Device, DevicePresence, DeviceVersion, Product, VersionCounter
from devices.simulator import Behaviour, DeviceKeys, Fault
from devices.simulator.behaviour import VersionMix
from firmware import services as uploads
from firmware.models import Firmware, FirmwareStatus
from tests.factories import DeviceFactory, UserFactory
from tests.running import Platform, RealDevice, wait_until

IMAGE = bytes(range(256)) * 400


def quick(version: str = "1.0.0", fault: Fault | None = None) -> Behaviour:
    """Simulated devices that update in a moment, all on one version; with a fault, each update ends by it."""
    return Behaviour(speed=200, versions=VersionMix({version: 1}), faults={fault: 1.0} if fault else {})


def registered(product: Product, count: int) -> list[DeviceKeys]:
    """Devices that have never connected."""
    devices = DeviceFactory.create_batch(count, product=product, activated_at=None)
    return [DeviceKeys(product.product_key, device.name, device.secret) for device in devices]


def connected(platform: Platform, product: Product, version: str = "") -> RealDevice:
    """A device in the story's own hands, online; with a version, it has told it."""
    device = DeviceFactory.create(product=product, activated_at=None)
    hand = platform.device(device).connect()
    wait_until(lambda: DevicePresence.objects.online().filter(pk=device.pk).exists(), "the device is online")
    if version:
        tells(hand, version)
    return hand


def tells(hand: RealDevice, version: str) -> None:
    """The device reports its version, the platform has stored it, and it has stood since."""
    hand.inform(version)
    wait_until(
        lambda: hand.device.versions.filter(version=version).exists(),
        f"{hand.name} is known to run {version}",
    )
    let_settle()


def let_settle() -> None:
    """What devices reported has stood for a minute, and the sweep has looked."""
    minute = timedelta(minutes=1)
    DeviceVersion.objects.update(changed_at=F("changed_at") - minute, settles_at=F("settles_at") - minute)
    UpdateTask.objects.update(created_at=F("created_at") - minute)
    UpdateTask.objects.filter(stray_until__isnull=False).update(stray_until=F("stray_until") - minute)
    sweep.sweep()


def uploaded(product: Product, version: str = "2.0.0", sign_method: str = "SHA256") -> Firmware:
    return uploads.upload_firmware(
        product.account,
        name=f"gateway_{version.replace('.', '_')}",
        version=version,
        product=product,
        sign_method=sign_method,
        upload=SimpleUploadedFile("image.bin", IMAGE),
        actor=UserFactory.create(account=product.account),
    )


def verified(product: Product, version: str = "2.0.0") -> Firmware:
    """Uploaded, and validated at some time."""
    firmware = uploaded(product, version)
    Firmware.objects.filter(pk=firmware.pk).update(status=FirmwareStatus.VERIFIED)
    firmware.refresh_from_db()
    return firmware


def wait_online(product: Product, count: int) -> None:
    wait_until(
        lambda: (
            DevicePresence.objects.online().filter(device__product=product).count() == count
            and sum(n for _, n in VersionCounter.objects.distribution(product)) == count
        ),
        f"{count} devices are online and have told their versions",
    )
    let_settle()


def wait_over(campaign: Campaign) -> None:
    over = Campaign.objects.filter(pk=campaign.pk, status=CampaignStatus.COMPLETED)
    wait_until(over.exists, "the campaign is over")


def tick(now: datetime) -> None:
    """What the workers do when the clock shows `now`, once; devices and broker live in real time."""
    for campaign in Campaign.objects.due(now):
        expand.start_scheduled(campaign.pk, now)
    for campaign in Campaign.objects.unexpanded():
        expand.expand(campaign.pk, now)
    dispatch.dispatch(mqtt.publisher().publish, now)
    sweep.sweep(now)
    sweep.finish(now)


def outcome(campaign: Campaign) -> dict[str, int]:
    """{status: tasks} of a campaign."""
    return dict(Counter(UpdateTask.objects.filter(campaign=campaign).values_list("status", flat=True)))


def wait_outcome(campaign: Campaign, expected: dict[str, int]) -> None:
    wait_until(lambda: outcome(campaign) == expected, f"{expected}, not {outcome(campaign)}")


def downloaded(console: Any, address: str) -> str:
    """A CSV file of the console."""
    answer = console.get(address)

    async def whole() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return async_to_sync(whole)().decode("utf-8-sig")


def task_of(device: Device | DeviceKeys | RealDevice, campaign: Campaign) -> UpdateTask:
    """A device's last task in a campaign."""
    name = device.device_name if isinstance(device, DeviceKeys) else device.name
    return UpdateTask.objects.filter(campaign=campaign, device__name=name).latest("id")
