"""What devices report of their versions, and how much of it is kept."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from devices import versions
from devices.models import Device, DeviceVersion, DeviceVersionChange
from devices.versions import MAX_CHANGES, MAX_MODULES, Inform
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db


def inform(device: Device, version: str, module: str = "default", at: datetime | None = None) -> Inform:
    return Inform(device.pk, device.product_id, module, version, at or timezone.now())


def test_a_device_has_no_more_modules_than_the_bound_and_keeps_those_that_it_has() -> None:
    greedy, calm = DeviceFactory.create_batch(2)
    first = [inform(greedy, "1", f"m{n}") for n in range(MAX_MODULES - 1)]
    versions.record([*first, inform(calm, "1")])
    versions.record([inform(greedy, "1", f"n{n}") for n in range(5)])
    new = inform(greedy, "2", "one-more")
    recorded = versions.record([new, inform(greedy, "2", "m0"), inform(calm, "2")])
    assert greedy.versions.count() == MAX_MODULES
    assert recorded.changed == {(greedy.pk, "m0"), (calm.pk, "default")}
    assert DeviceVersion.objects.get(device=greedy, module="m0").version == "2"


def test_the_newest_changes_of_a_device_are_kept_and_no_others() -> None:
    busy, calm = DeviceFactory.create_batch(2)
    versions.record([inform(calm, "1")])
    for number in range(MAX_CHANGES + 3):
        versions.record([inform(busy, str(number))])
    kept = DeviceVersionChange.objects.filter(device=busy).order_by("id").values_list("version", flat=True)
    assert list(kept) == [str(number) for number in range(3, MAX_CHANGES + 3)]
    assert calm.version_changes.count() == 1


def test_what_a_pushed_task_waited_for_counts_at_once() -> None:
    now = timezone.now()
    device, other = DeviceFactory.create_batch(2, version="2.0.0")
    DeviceVersion.objects.update(changed_at=now - timedelta(seconds=1))
    versions.settle({(device.pk, "default")}, now)
    running = versions.running([device.pk, other.pk])
    assert running[device.pk, "default"].is_settled(now)
    assert not running[other.pk, "default"].is_settled(now)
