"""Devices on real sockets, through the embedded broker and the gateway, into rows."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from campaigns import dispatch, expand, live, reports
from campaigns.models import UpdateTask
from devices import mqtt
from devices.brokers.embedded import Broker
from devices.models import Device, DeviceVersion, ProductCounter
from otaplatform.gateway import session
from otaplatform.gateway.routes import Router, Work
from otaplatform.management.commands.gateway import embedded_broker
from otaplatform.models import DeadLetter, Heartbeat
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory
from tests.running import TIMEOUT, Platform, running_platform, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def platform(transactional_db: None) -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@pytest.fixture
def device() -> Device:
    return DeviceFactory.create(activated_at=None)


def is_online(device: Device) -> bool:
    return Device.objects.get(pk=device.pk).presence.is_online()


def version_of(device: Device) -> str | None:
    return DeviceVersion.objects.filter(device=device).values_list("version", flat=True).first()


def test_a_first_connection_activates_the_device_and_shows_it_online(
    platform: Platform, device: Device
) -> None:
    client = platform.device(device).connect()
    wait_until(lambda: is_online(device))
    device.refresh_from_db()
    assert device.activated_at is not None
    assert ProductCounter.objects.get(product=device.product, kind="activated").count == 1
    client.close()
    wait_until(lambda: not is_online(device))


def test_a_version_report_of_either_qos_is_stored(platform: Platform, device: Device) -> None:
    client = platform.device(device).connect()
    client.inform("1.0.0", qos=0)
    wait_until(lambda: version_of(device) == "1.0.0")
    client.inform("1.1.0", qos=1)
    assert version_of(device) == "1.1.0", "a QoS 1 report is acknowledged only after it is committed"
    client.close()


def test_a_take_over_leaves_the_device_online(platform: Platform, device: Device) -> None:
    platform.device(device).connect()
    wait_until(lambda: is_online(device))
    second = platform.device(device).connect()
    second.inform("1.0.0")
    assert is_online(device)
    second.close()


@pytest.mark.parametrize("change", [{"is_disabled": True}, {"removed_at": timezone.now()}])
def test_a_disabled_or_removed_device_is_refused(
    platform: Platform, device: Device, change: dict[str, Any]
) -> None:
    Device.objects.filter(pk=device.pk).update(**change)
    assert platform.device(device).connect().reason.is_failure
    device.refresh_from_db()
    assert device.activated_at is None


def test_a_wrong_secret_is_refused_like_an_unknown_device(platform: Platform, device: Device) -> None:
    wrong = platform.device(device, secret="f" * 32).connect()
    unknown = platform.device(Device(product=device.product, name="nobody-here"), secret="f" * 32)
    assert str(wrong.reason) == str(unknown.connect().reason)
    assert wrong.reason.is_failure


def test_bad_bytes_are_counted_and_the_next_report_is_stored(platform: Platform, device: Device) -> None:
    client = platform.device(device).connect()
    for nonsense in (b"", b"\xff\xfe", b"{", b'{"params":{"version":"\\u0000b"}}', b"[" * 2000):
        client.send("inform", nonsense)
    client.inform("1.0.0")
    assert version_of(device) == "1.0.0"
    assert platform.session.router.counts["refused"] == 5
    client.close()


def test_a_report_on_another_devices_topic_reaches_nobody(platform: Platform, device: Device) -> None:
    victim = DeviceFactory.create(product=device.product)
    client = platform.device(device).connect()
    client.name = victim.name
    client.inform("9.9.9")
    client.name = device.name
    client.inform("1.0.0")
    assert (version_of(device), version_of(victim)) == ("1.0.0", None)
    client.close()


def test_reports_sent_while_the_gateway_is_away_are_stored_when_it_is_back(
    platform: Platform, device: Device
) -> None:
    client = platform.device(device).connect()
    client.inform("1.0.0")
    platform.pause_gateway()
    client.client.publish(
        f"/ota/device/inform/{client.key}/{client.name}", b'{"id":1,"params":{"version":"1.2.0"}}', qos=1
    )
    platform.resume_gateway()
    wait_until(lambda: version_of(device) == "1.2.0")
    client.close()


def test_a_batch_that_the_database_did_not_take_comes_again(
    platform: Platform, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = platform.device(device).connect()
    failures: list[int] = []
    apply = reports.apply

    def away_at_first(*arguments: Any) -> Any:
        if len(failures) < 2:
            failures.append(1)
            raise OperationalError("the server is starting up")
        return apply(*arguments)

    monkeypatch.setattr(reports, "apply", away_at_first)
    client.inform("1.0.0")
    assert (version_of(device), len(failures)) == ("1.0.0", 2)
    client.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_killed_gateway_had_not_committed_comes_again(
    platform: Platform, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = platform.device(device).connect()
    wait_until(lambda: is_online(device))
    store, killed = Router.store, threading.Event()

    def killed_at_first(self: Router, work: Work) -> Any:
        if not killed.is_set():
            killed.set()
            raise SystemExit
        return store(self, work)

    monkeypatch.setattr(Router, "store", killed_at_first)
    receipt = client.publish("inform", {"params": {"version": "1.0.0"}})
    assert killed.wait(TIMEOUT)
    platform.pause_gateway()
    assert (version_of(device), receipt.is_published()) == (None, False)
    platform.resume_gateway()
    receipt.wait_for_publish(TIMEOUT)
    assert version_of(device) == "1.0.0"
    client.close()


def test_what_was_committed_but_not_acknowledged_is_not_applied_twice(
    platform: Platform, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = platform.device(device).connect()
    wait_until(lambda: is_online(device))
    acknowledge, cut = mqtt.Link.acknowledge, threading.Event()

    def cut_at_first(self: mqtt.Link, packet_id: int) -> None:
        if cut.is_set():
            acknowledge(self, packet_id)
        else:
            cut.set()
            self.drop()

    applied = platform.session.router.counts["applied"]
    monkeypatch.setattr(mqtt.Link, "acknowledge", cut_at_first)
    client.inform("1.0.0")
    counts = platform.session.router.counts
    assert (version_of(device), counts["applied"] - applied, counts["redelivered"]) == ("1.0.0", 1, 1)
    client.close()


def test_reports_are_stored_while_nothing_can_be_announced(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_arguments: Any, **_options: Any) -> None:
        failed.set()
        raise ConnectionError("no Redis")

    monkeypatch.setattr(live, "changed", fail)
    firmware = FirmwareFactory.create(version="2.0.0")
    device = DeviceFactory.create(product=firmware.product, version="1.0.0")
    expand.expand(CampaignFactory.create(firmware=firmware, expanded_at=None).pk)
    client = platform.device(device).connect()
    UpdateTask.objects.update(status="NOTIFIED", ready_at=None, pushed_at=timezone.now())
    client.inform("2.0.0")
    assert UpdateTask.objects.get().status == "SUCCEEDED"
    assert failed.wait(TIMEOUT)
    failed.clear()
    client.inform("1.0.0")
    assert failed.wait(TIMEOUT), "it goes on trying"
    client.close()


def test_a_message_that_cannot_be_applied_is_buried_alone(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = DeviceFactory.create_batch(2)
    apply = reports.apply

    def refuse_one(batch: Any, now: Any = None) -> Any:
        if any(isinstance(each, reports.Inform) and each.device_id == bad.pk for each in batch):
            raise RuntimeError("cannot be applied")
        return apply(batch, now)

    monkeypatch.setattr(reports, "apply", refuse_one)
    clients = [platform.device(each).connect() for each in (good, bad)]
    for client in clients:
        client.inform("1.0.0")
    assert version_of(good) == "1.0.0"
    letter = DeadLetter.objects.get()
    assert bad.name in letter.topic
    assert b"1.0.0" in bytes(letter.payload)
    for client in clients:
        client.close()


def test_a_device_that_asks_gets_its_package_on_the_topic_it_asked_on(platform: Platform) -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    device = DeviceFactory.create(product=firmware.product, version="1.0.0")
    campaign = CampaignFactory.create(firmware=firmware, expanded_at=None)
    expand.expand(campaign.pk)
    client = platform.device(device).connect()
    client.send("request", {"id": "0", "params": {"version": "1.0.0"}})
    assert client.wait_for_message("/ota/device/request/")["data"]["version"] == "2.0.0"
    client.client.publish(f"/sys/{client.key}/{client.name}/thing/ota/firmware/get", b'{"id":2, "params":{}}')
    reply = client.wait_for_message("get_reply")
    assert (reply["code"], reply["id"], reply["data"]["version"]) == (200, 2, "2.0.0")
    assert UpdateTask.objects.get().status == "NOTIFIED"
    client.close()


def test_a_device_that_asks_for_nothing_is_told_so_on_the_new_topic(
    platform: Platform, device: Device
) -> None:
    client = platform.device(device).connect()
    client.client.publish(f"/sys/{client.key}/{client.name}/thing/ota/firmware/get", b'{"id":7,"params":{}}')
    assert client.wait_for_message("get_reply") == {"id": 7, "code": 200, "data": {}}
    client.close()


def test_an_offline_device_gets_its_push_when_it_comes_online_without_subscribing(platform: Platform) -> None:
    firmware = FirmwareFactory.create(version="2.0.0")
    device = DeviceFactory.create(product=firmware.product, version="1.0.0")
    campaign = CampaignFactory.create(firmware=firmware, expanded_at=None)
    expand.expand(campaign.pk)
    dispatch.dispatch(mqtt.publisher().publish)
    assert UpdateTask.objects.get().status == "QUEUED"
    client = platform.device(device).connect()
    wait_until(lambda: UpdateTask.objects.filter(ready_at__isnull=False).exists())
    dispatch.dispatch(mqtt.publisher().publish)
    assert client.wait_for_message("/ota/device/upgrade/")["data"]["version"] == "2.0.0"
    assert UpdateTask.objects.get().acknowledged_at is not None
    client.progress(50)
    client.inform("2.0.0")
    assert UpdateTask.objects.get().status == "SUCCEEDED"
    client.close()


def test_a_gateway_that_was_away_learns_who_went_meanwhile(platform: Platform) -> None:
    stays, goes = DeviceFactory.create_batch(2)
    staying, going = platform.device(stays).connect(), platform.device(goes).connect()
    wait_until(lambda: is_online(stays) and is_online(goes))
    platform.pause_gateway()
    going.close()
    platform.resume_gateway()
    wait_until(lambda: not is_online(goes))
    assert is_online(stays)
    staying.close()


def test_the_gateway_shows_signs_of_life(platform: Platform) -> None:
    wait_until(lambda: Heartbeat.objects.filter(name="gateway").exists())


def test_the_messages_of_the_last_minute_are_told_with_the_signs_of_life(
    transactional_db: None, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.05)

    def told() -> int:
        beat = Heartbeat.objects.filter(name="gateway").first()
        return beat.detail["last_minute"] if beat else 0

    with running_platform() as platform:
        client = platform.device(device).connect()
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            client.inform(version)
        # The connection itself is a message of the broker.
        wait_until(lambda: told() >= 4)
        client.close()


def presence_is_told() -> bool | None:
    beat = Heartbeat.objects.filter(name="gateway").first()
    return beat.detail["presence"] if beat else None


@pytest.mark.parametrize("forgets_its_snapshot", [False, True])
def test_a_broker_that_never_tells_who_is_connected_is_told_with_the_signs_of_life(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, forgets_its_snapshot: bool
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(session, "PRESENCE_WITHIN", 0.2 if forgets_its_snapshot else TIMEOUT * 4)
    if forgets_its_snapshot:
        monkeypatch.setattr(Broker, "synchronise", lambda *arguments: None)
    with running_platform() as platform:
        if forgets_its_snapshot:
            wait_until(lambda: presence_is_told() is False)
        else:
            wait_until(lambda: platform.session.router.knows_presence)
            wait_until(lambda: presence_is_told() is True)


def test_a_kicked_device_is_disconnected(platform: Platform, device: Device) -> None:
    client = platform.device(device).connect()
    wait_until(lambda: is_online(device))
    Device.objects.filter(pk=device.pk).update(is_disabled=True)
    assert mqtt.kick(client.key, client.name)
    wait_until(lambda: not is_online(device))
    client.close()


def test_without_a_broker_nothing_is_published_and_nothing_raised(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OTA_MQTT_PORT, settings.MQTT_URL = 1, ""
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT", 0.2)
    publisher = mqtt.Publisher()
    assert publisher.publish([("a/b", b"x")]) == [False]
    publisher.close()


def test_a_push_after_a_restart_of_the_broker_waits_for_the_device(
    transactional_db: None, device: Device
) -> None:
    """Until the gateway has heard of the broker's new life, the device still looks connected."""
    firmware = FirmwareFactory.create(product=device.product, version="2.0.0")
    with running_platform() as first:
        client = first.device(device).connect()
        client.inform("1.0.0")
        first.pause_gateway()
        client.close()
    assert is_online(device)
    expand.expand(CampaignFactory.create(firmware=firmware, expanded_at=None).pk)
    with override_settings(OTA_MQTT_PORT=0, MQTT_URL=""):
        second = embedded_broker()
    with second, override_settings(OTA_MQTT_PORT=second.ports[0], MQTT_URL=""):
        dispatch.dispatch(mqtt.publisher().publish)
        mqtt.publisher().close()
    task = UpdateTask.objects.get()
    assert (task.status, task.pushed_at, task.returns) == ("QUEUED", None, 0)
    assert task.ready_at is not None, "it goes out when the broker's new life is known"
