"""Lists of device names: who is taken in, who is left out and why, and what is stored of them."""

from collections.abc import Callable
from datetime import datetime

import pytest

from campaigns import expand, named, reports, selection, services, sweep
from campaigns.models import CampaignDevice, UpdateTask
from campaigns.services import Plan, RefusedError
from campaigns.states import Policy, Region, TaskStatus
from devices.models import Device
from devices.versions import SETTLE, Inform
from firmware.models import Firmware
from tests.campaigns.conftest import counts
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, TaskFactory

Fleet = Callable[..., list[Device]]


def directional(names: list[str], **values: object) -> Plan:
    return Plan(region=Region.DIRECTIONAL, device_names=names, accept_unproven=True, **values)


@pytest.fixture
def mixed(firmware: Firmware, fleet: Fleet, now: datetime) -> dict[str, str]:
    """{name: why it is left out of a batch that starts from 1.0.0} for one device of each kind."""
    elsewhere = DeviceFactory.create(version="1.0.0")
    return {
        fleet(1)[0].name: "",
        fleet(1, online=False)[0].name: "",
        fleet(1, version="1.5.0")[0].name: "other_version",
        fleet(1, version="2.0.0")[0].name: "on_target",
        fleet(1, version=None)[0].name: "other_version",
        fleet(1, activated_at=None)[0].name: "not_activated",
        fleet(1, is_disabled=True)[0].name: "disabled",
        fleet(1, removed_at=now)[0].name: "unknown",
        elsewhere.name: "unknown",
        "ghost": "unknown",
        "no name\0": "unknown",
        "\ud800": "unknown",
    }


def test_each_name_that_is_left_out_has_its_reason_in_the_order_of_the_list(
    firmware: Firmware, mixed: dict[str, str], now: datetime
) -> None:
    looked = named.look(firmware, mixed, ["1.0.0"], now)
    assert list(looked.excluded.items()) == [(name, why) for name, why in mixed.items() if why]
    assert (looked.preview.matching, looked.preview.online) == (2, 1)
    assert (looked.preview.not_activated, looked.preview.on_target, looked.known) == (1, 1, 7)


@pytest.mark.parametrize("source_versions", [[], ["1.0.0"], ["1.0.0", "1.5.0"], ["7"]])
def test_a_list_of_everybody_takes_in_whom_a_batch_over_all_devices_takes_in(
    firmware: Firmware, mixed: dict[str, str], now: datetime, source_versions: list[str]
) -> None:
    looked = named.look(firmware, mixed, source_versions, now)
    taken = {name for name in mixed if name not in looked.excluded}
    assert firmware.product is not None
    covered = selection.covered(firmware.product, firmware, source_versions)
    assert taken == set(covered.values_list("name", flat=True))
    of_all = selection.preview(firmware, source_versions, now)
    assert (looked.preview.matching, looked.preview.online) == (of_all.matching, of_all.online)


def test_a_repeated_name_counts_once(firmware: Firmware, fleet: Fleet, now: datetime) -> None:
    (device,) = fleet(1)
    looked = named.look(firmware, [device.name, "ghost", device.name, "ghost"], [], now)
    assert (looked.preview.matching, looked.excluded) == (1, {"ghost": "unknown"})
    campaign = CampaignFactory.create(firmware=firmware, region=Region.DIRECTIONAL)
    named.choose(campaign, [device.name, device.name])
    assert CampaignDevice.objects.count() == 1


def test_the_devices_of_a_list_that_are_busy_or_newer_are_counted(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    waiting, updating, newer = *fleet(2), *fleet(1, version="3.0.0")
    FirmwareFactory.create(product=firmware.product, version="3.0.0")
    other = CampaignFactory.create(product=firmware.product)
    TaskFactory.create(campaign=other, device=waiting, status=TaskStatus.QUEUED)
    TaskFactory.create(campaign=other, device=updating, status=TaskStatus.IN_PROGRESS)
    preview = named.look(firmware, [waiting.name, updating.name, newer.name], [], now).preview
    assert (preview.busy, preview.busy_waiting, preview.on_newer) == (2, 1, 1)
    assert preview.busy_by_campaign == {other.pk: 2}


def test_a_static_batch_keeps_the_devices_that_match_at_its_launch(
    firmware: Firmware, mixed: dict[str, str], now: datetime
) -> None:
    plan = directional(list(mixed), source_versions=["1.0.0"])
    campaign = services.launch_batch(firmware, plan, now=now)
    kept = Device.objects.filter(pk__in=CampaignDevice.objects.filter(campaign=campaign).values("device"))
    assert set(kept.values_list("name", flat=True)) == {name for name, why in mixed.items() if not why}


def test_a_directional_dynamic_batch_takes_a_chosen_device_in_when_it_comes_to_match(
    firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    (later,), (stranger,) = fleet(1, version="0.9.0"), fleet(1, version="0.9.0")
    plan = directional([later.name], policy=Policy.DYNAMIC, source_versions=["1.0.0"])
    campaign = services.launch_batch(firmware, plan, now=now)
    expand.expand(campaign.pk, now)
    assert counts(campaign) == {}
    reports.apply(
        [Inform(device.pk, device.product_id, "default", "1.0.0", now) for device in (later, stranger)], now
    )
    assert not UpdateTask.objects.exists()
    sweep.sweep(now + SETTLE)
    assert UpdateTask.objects.get().device_id == later.pk


def test_a_directional_batch_of_nobody_is_refused(firmware: Firmware, fleet: Fleet, now: datetime) -> None:
    (other,) = fleet(1, version="1.5.0")
    for plan in (
        directional([other.name, "ghost"], source_versions=["1.0.0"]),
        directional(["ghost"], policy=Policy.DYNAMIC),
    ):
        with pytest.raises(RefusedError) as refused:
            services.launch_batch(firmware, plan, now=now)
        assert refused.value.code == "no_devices"


def test_a_list_is_looked_at_and_stored_with_one_statement_each(
    django_assert_num_queries: Callable[..., object], firmware: Firmware, fleet: Fleet, now: datetime
) -> None:
    names = [device.name for device in fleet(30)]
    campaign = CampaignFactory.create(firmware=firmware, region=Region.DIRECTIONAL)
    with django_assert_num_queries(2):  # type: ignore[attr-defined]
        named.look(firmware, names, ["1.0.0"], now)
        named.choose(campaign, names)
    assert CampaignDevice.objects.filter(campaign=campaign).count() == 30
