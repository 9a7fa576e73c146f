"""Batches of messages into rows, without a broker."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from campaigns import dispatch, expand, reports
from campaigns.life import PUSH_SPACING
from campaigns.models import UpdateTask
from campaigns.reports import ContendedError, Inform
from devices import topics
from devices.brokers.contract import PresenceEvent, PresenceSnapshot, dumps
from devices.models import Device, DeviceVersion
from devices.topics import Kind
from otaplatform.gateway.routes import PATIENCE, Incoming, Router
from otaplatform.models import DeadLetter
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory

pytestmark = pytest.mark.django_db


def message(device: Device, kind: Kind, body: Any, dup: bool = False) -> Incoming:
    topic = topics.build(kind, device.product.product_key, device.name)
    payload = body if isinstance(body, bytes) else dumps(body)
    return Incoming(topic, payload, dup, timezone.now())


def inform(device: Device, version: str, dup: bool = False) -> Incoming:
    return message(device, Kind.INFORM, {"id": "1", "params": {"version": version}}, dup)


def progress(device: Device, step: int, dup: bool = False) -> Incoming:
    return message(device, Kind.PROGRESS, {"id": "1", "params": {"step": str(step), "desc": "why"}}, dup)


def presence(device: Device, connected: bool, connection_id: str, epoch: str = "e1") -> Incoming:
    event = PresenceEvent(
        device.product.product_key, device.name, connected, connection_id, epoch, 1_700_000_000_000
    )
    return Incoming(event.topic, event.to_json(), False, timezone.now())


def snapshot(*connected: tuple[Device, str], part: int = 0, parts: int = 1, sync: str = "s1") -> Incoming:
    rows = tuple((each.product.product_key, each.name, cid) for each, cid in connected)
    body = PresenceSnapshot("e1", sync, part, parts, 1_700_000_000_000, rows).to_json()
    return Incoming(topics.EPOCH, body, False, timezone.now())


def versions() -> dict[str, str]:
    return dict(DeviceVersion.objects.values_list("device__name", "version"))


def online(*devices: Device) -> list[bool]:
    return [Device.objects.get(pk=each.pk).presence.is_online() for each in devices]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Make applying a device's informs fail, the first `times` times; returns how often it was tried."""

    def arrange(device: Device, error: Exception, times: int = 10_000) -> list[int]:
        tried: list[int] = []
        apply = reports.apply

        def refusing(batch: Any, now: Any = None) -> Any:
            if any(isinstance(each, Inform) and each.device_id == device.pk for each in batch):
                tried.append(1)
                if len(tried) <= times:
                    raise error
            return apply(batch, now)

        monkeypatch.setattr(reports, "apply", refusing)
        return tried

    return arrange


@pytest.mark.parametrize("culprit", [0, 3, 6])
def test_a_culprit_is_buried_and_all_others_are_applied(
    refuse: Callable[..., list[int]], culprit: int
) -> None:
    devices = DeviceFactory.create_batch(7)
    refuse(devices[culprit], RuntimeError("no"))
    router = Router()
    router.handle([inform(each, "1.0") for each in devices])
    assert set(versions()) == {each.name for each in devices} - {devices[culprit].name}
    assert devices[culprit].name in DeadLetter.objects.get().topic
    assert (router.counts["applied"], router.counts["dead_letters"]) == (6, 1)


def test_halves_are_applied_in_the_order_of_arrival(refuse: Callable[..., list[int]]) -> None:
    device, culprit = DeviceFactory.create_batch(2)
    refuse(culprit, RuntimeError("no"))
    Router().handle([inform(device, "1"), inform(culprit, "1"), inform(device, "2"), inform(device, "3")])
    assert versions() == {device.name: "3"}


@pytest.mark.parametrize("error", [OperationalError("away"), ContendedError("tasks of 1 devices")])
def test_work_that_was_interrupted_goes_on_where_it_stopped(
    refuse: Callable[..., list[int]], error: Exception
) -> None:
    first, second = DeviceFactory.create_batch(2)
    tried = refuse(second, error, times=1)
    router = Router()
    work = router.plan([inform(first, "1.0"), snapshot(), inform(second, "1.0")])
    with pytest.raises(type(error)):
        router.store(work)
    assert versions() == {first.name: "1.0"}
    router.store(work)
    assert versions() == {first.name: "1.0", second.name: "1.0"}
    assert (router.counts["applied"], len(tried), DeadLetter.objects.count()) == (2, 2, 0)


def test_work_that_an_answering_database_refuses_for_ever_is_buried(
    refuse: Callable[..., list[int]],
) -> None:
    good, bad = DeviceFactory.create_batch(2)
    refuse(bad, OperationalError("cannot do that"))
    router = Router()
    work = router.plan([inform(good, "1.0"), inform(bad, "1.0")])
    for _ in range(PATIENCE - 1):
        with pytest.raises(OperationalError):
            router.store(work)
    router.store(work)
    assert versions() == {good.name: "1.0"}
    assert DeadLetter.objects.count() == 1


def test_the_last_failure_before_the_database_is_back_buries_nothing(
    refuse: Callable[..., list[int]],
) -> None:
    device = DeviceFactory.create()
    tried = refuse(device, OperationalError("away"), times=PATIENCE)
    router = Router()
    work = router.plan([inform(device, "1.0")])
    for _ in range(PATIENCE - 1):
        with pytest.raises(OperationalError):
            router.store(work)
    router.store(work)
    assert versions() == {device.name: "1.0"}
    assert (len(tried), DeadLetter.objects.count()) == (PATIENCE + 1, 0)


def test_what_cannot_be_meant_is_refused_and_counted_by_its_reason() -> None:
    device = DeviceFactory.create()
    stranger = Device(product=device.product, name="stranger")
    disabled = DeviceFactory.create(is_disabled=True)
    router = Router()
    router.handle(
        [
            inform(stranger, "1.0"),
            inform(disabled, "1.0"),
            message(device, Kind.INFORM, b"{"),
            message(device, Kind.PROGRESS, {"params": {"step": "200"}}),
            message(device, Kind.UPGRADE, {"params": {"version": "1.0"}}),
            Incoming("/some/where", b"{}", False, timezone.now()),
            Incoming("", b"", False, timezone.now()),
            Incoming(topics.EPOCH, b'{"epoch":1}', False, timezone.now()),
            message(device, Kind.PRESENCE, b"[]"),
        ]
    )
    assert versions() == {}
    counts = router.counts
    assert (counts["received"], counts["refused"], counts["refused_json"], counts["refused_step"]) == (
        9,
        9,
        1,
        1,
    )


def test_devices_of_one_name_in_two_products_are_told_apart() -> None:
    one = DeviceFactory.create()
    other = DeviceFactory.create(name=one.name)
    Router().handle([inform(one, "1.0"), inform(other, "2.0")])
    assert [each.versions.get().version for each in (one, other)] == ["1.0", "2.0"]


def test_presence_and_reports_keep_their_order() -> None:
    device = DeviceFactory.create()
    router = Router()
    router.handle([presence(device, True, "c1"), presence(device, True, "c2"), presence(device, False, "c1")])
    assert online(device) == [True]
    router.handle([presence(device, False, "c2")])
    assert online(device) == [False]


def test_a_new_broker_life_counts_from_its_first_connection() -> None:
    before, after = DeviceFactory.create_batch(2)
    router = Router()
    router.handle([presence(before, True, "c1", epoch="e1")])
    router.handle([presence(after, True, "c1", epoch="e2")])
    assert online(before, after) == [False, True]


def test_a_snapshot_in_parts_corrects_both_ways_once_it_is_whole() -> None:
    stays, went, came, replaced = devices = DeviceFactory.create_batch(4)
    router = Router()
    router.handle([presence(each, True, f"c{each.pk}") for each in (stays, went, replaced)])
    first = snapshot((stays, f"c{stays.pk}"), (came, "c-new"), part=0, parts=2)
    router.handle([first])
    assert online(*devices) == [True, True, False, True]
    router.handle([snapshot((replaced, "c-newer"), part=1, parts=2)])
    assert online(*devices) == [True, False, True, True]
    router.handle([presence(replaced, False, f"c{replaced.pk}"), presence(stays, False, f"c{stays.pk}")])
    assert online(*devices) == [False, False, True, True]


def test_half_a_snapshot_before_another_one_is_forgotten() -> None:
    device = DeviceFactory.create()
    router = Router()
    router.handle([snapshot(part=0, parts=2, sync="lost"), snapshot((device, "c1"), sync="whole")])
    router.handle([snapshot(part=1, parts=2, sync="lost")])
    assert online(device) == [True]


def test_a_failure_that_is_redelivered_uses_up_one_attempt() -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    device = DeviceFactory.create(product=firmware.product, version="1.0.0", online=True)
    campaign = CampaignFactory.create(
        firmware=firmware, expanded_at=None, retry_interval_minutes=0, max_retries=2
    )
    expand.expand(campaign.pk)
    dispatch.dispatch(lambda messages: [True] * len(messages))
    router = Router()
    router.handle([progress(device, -2)])
    dispatch.dispatch(lambda messages: [True] * len(messages))
    assert UpdateTask.objects.get().status == "QUEUED", "no second push within the spacing, whatever was said"
    dispatch.dispatch(lambda messages: [True] * len(messages), timezone.now() + PUSH_SPACING)
    task = UpdateTask.objects.get()
    assert task.attempt == 2
    Router().handle([progress(device, -2, dup=True)])
    task.refresh_from_db()
    assert (task.attempt, task.status) == (2, "NOTIFIED")
    router.handle([progress(device, -3, dup=True)])
    task.refresh_from_db()
    assert task.attempt == 3, "another failure counts, redelivered or not"


def test_a_device_that_asks_twice_in_a_batch_is_answered_twice() -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    device = DeviceFactory.create(product=firmware.product, version="1.0.0")
    expand.expand(CampaignFactory.create(firmware=firmware, expanded_at=None).pk)
    outcome = Router().handle(
        [
            message(device, Kind.FIRMWARE_GET, {"id": 1, "params": {"module": "MCU"}}),
            message(device, Kind.FIRMWARE_GET, {"id": 2, "params": {}}),
            message(device, Kind.REQUEST, {"id": 3, "params": {"module": "MCU"}}),
        ]
    )
    (_, nothing, _), (topic, package, _) = outcome.answers
    assert nothing == b'{"id":1,"code":200,"data":{}}'
    assert topic == topics.build(Kind.FIRMWARE_GET_REPLY, device.product.product_key, device.name)
    assert package.startswith(b'{"id":2,"code":200,"data":{"size":')
    assert UpdateTask.objects.get().status == "NOTIFIED"
    assert outcome.campaigns == {UpdateTask.objects.get().campaign_id}
