"""A device that floods the broker hurts itself: the others are heard, and their reports are taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from devices.brokers.embedded import BrokerThread, Options, codec
from devices.brokers.embedded.codec import PubAck, Publish
from devices.topics import MAX_REPORT, Kind
from tests.devices.brokers.clients import PK, TIMEOUT, Device, Gateway


def of_reports(device: Device) -> bytes:
    return codec.encode(Publish(device.topic(Kind.INFORM), b'{"params":{"version":"1"}}')) * 200


def of_quotes(device: Device) -> bytes:
    return codec.encode(Publish(device.topic(Kind.PROGRESS), b'"' * 60_000)) * 4


def of_subscriptions(device: Device) -> bytes:
    filters = tuple((f"/sys/{PK}/{device.name}/{n}", 1) for n in range(100))
    return codec.encode(codec.Subscribe(1, filters)) * 20


def of_pings(_device: Device) -> bytes:
    return codec.encode(codec.PingReq()) * 20_000


FLOODS = [of_reports, of_quotes, of_subscriptions, of_pings]


@contextmanager
def flooding(port: int, flood: Callable[[Device], bytes], count: int) -> Iterator[None]:
    """Devices that write as fast as the broker reads, until the context is left."""
    stopping = threading.Event()

    def pour(device: Device) -> None:
        data = flood(device)
        device.socket.settimeout(0.2)
        left = memoryview(data)
        while not stopping.is_set():
            try:
                left = left[device.socket.send(left) :] or memoryview(data)
            except TimeoutError:
                continue
            except OSError:
                return

    devices = [Device(port, f"flood{n}") for n in range(count)]
    threads = [threading.Thread(target=pour, args=(each,)) for each in devices]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for device, thread in zip(devices, threads, strict=True):
            thread.join(TIMEOUT)
            device.socket.shutdown(socket.SHUT_RDWR)
            device.socket.close()


@pytest.mark.parametrize("flood", FLOODS)
def test_each_report_of_a_quiet_device_is_taken_beside_a_flood(
    broker: BrokerThread, port: int, flood: Callable[[Device], bytes]
) -> None:
    with Gateway(port) as gateway, Device(port, "quiet") as quiet, flooding(port, flood, 3):
        inform = quiet.topic(Kind.INFORM)
        for number in range(1, 21):
            quiet.send(Publish(inform, b"%d" % number, 1, number))
            before = 0
            while (packet := gateway.receive_publish()).topic != inform:
                before += packet.topic.startswith("/ota")
            assert packet.payload == b"%d" % number
            # Those on their way of three devices, and what each may send in one turn of the loop.
            assert before <= 3 * (Options().device_reports_sent + 20)
            assert quiet.receive() == PubAck(number)
    assert broker.broker.health()["throttled"] > 0


@pytest.mark.parametrize(
    "options", [Options(internal_window=1, internal_queue=5, device_reports=5, cost_burst=10_000)]
)
def test_a_device_with_nothing_waiting_gets_in_whoever_has_filled_the_queue(port: int) -> None:
    with Gateway(port) as gateway, Device(port, "flood") as flood, Device(port, "calm") as calm:
        gateway.receive_event(), gateway.receive_event()
        flood.send(*[Publish(flood.topic(Kind.PROGRESS), b"flood")] * 5)
        assert flood.has_nothing_more()
        second = Device(port, "second")
        second.send(*[Publish(second.topic(Kind.PROGRESS), b"flood")] * 5)
        assert second.has_nothing_more()
        calm.send(Publish(calm.topic(Kind.INFORM), b"calm", 1, 1))
        assert calm.has_nothing_more()
        arrived = []
        while b"calm" not in arrived:
            arrived.append(gateway.receive_publish().payload)
        assert len(arrived) <= 5
        assert calm.receive() == PubAck(1)
        second.socket.close()


def test_of_a_long_report_the_gateway_gets_enough_to_refuse_it(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        for length in (MAX_REPORT, MAX_REPORT + 1, 60_000):
            device.send(Publish(device.topic(Kind.INFORM), b"x" * length, 1, 1))
            assert len(gateway.receive_publish().payload) == min(length, MAX_REPORT + 1)
            assert device.receive() == PubAck(1)


@pytest.mark.parametrize("options", [Options(device_reports_sent=2)])
def test_no_more_of_one_device_is_on_its_way_than_allowed(port: int, gateway: Gateway) -> None:
    with Device(port, "busy") as busy, Device(port, "calm") as calm:
        gateway.receive_event(), gateway.receive_event()
        busy.send(*[Publish(busy.topic(Kind.PROGRESS), b"%d" % n) for n in range(5)])
        assert busy.has_nothing_more()
        calm.send(Publish(calm.topic(Kind.PROGRESS), b"calm"))
        assert calm.has_nothing_more()
        first = [gateway.receive_publish(acknowledge=False) for _ in range(3)]
        assert [packet.payload for packet in first] == [b"0", b"1", b"calm"]
        assert gateway.has_nothing_more()
        gateway.send(*[PubAck(packet.packet_id or 0) for packet in first])
        assert [gateway.receive_publish().payload for _ in range(3)] == [b"2", b"3", b"4"]


def test_a_devices_own_redelivery_is_passed_on_as_such(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        device.send(Publish(device.topic(Kind.PROGRESS), b"-1", 1, 5, dup=True))
        again = gateway.receive_publish()
        assert (again.payload, again.dup) == (b"-1", True)


def test_a_device_may_not_send_what_the_platform_may(port: int, gateway: Gateway) -> None:
    large = 100_000
    with Device(port, "dn") as device:
        gateway.receive_event()
        gateway.send(Publish(device.topic(Kind.FILE_DOWNLOAD_REPLY), bytes(large)))
        assert len(device.receive_publish().payload) == large
        device.send(Publish(device.topic(Kind.INFORM), bytes(large)))
        assert device.is_closed_by_broker()
