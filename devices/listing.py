"""What a page of devices shows beside their names: status and version, in one query each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from devices import versions
from devices.models import DEFAULT_MODULE, Device, DevicePresence, DeviceStatus


@dataclass(frozen=True, slots=True)
class DeviceRow:
    device: Device
    status: DeviceStatus
    version: str


def describe(devices: Sequence[Device], now: datetime | None = None) -> list[DeviceRow]:
    """The rows of a page, in the order of `devices`."""
    ids = [device.pk for device in devices]
    online = set(
        DevicePresence.objects.online(now).filter(device__in=ids).values_list("device_id", flat=True)
    )
    running = versions.current(ids)
    return [
        DeviceRow(device, _status(device, device.pk in online), running.get((device.pk, DEFAULT_MODULE), ""))
        for device in devices
    ]


def _status(device: Device, is_online: bool) -> DeviceStatus:
    if device.is_disabled:
        return DeviceStatus.DISABLED
    if device.activated_at is None:
        return DeviceStatus.INACTIVE
    return DeviceStatus.ONLINE if is_online else DeviceStatus.OFFLINE
