"""The platform's own MQTT clients, against the embedded broker and a scripted one."""

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devices import mqtt
from devices.brokers.embedded import BrokerThread, Listener
from devices.mqtt import Address, Delivery, Link, Publisher
from tests.devices.brokers.clients import PK, Device, authenticate

TIMEOUT = 10.0


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread(authenticate, [Listener(0)]) as running:
        yield running


def where(port: int, **options: Any) -> Address:
    return Address("127.0.0.1", port, username="platform", password="internal", **options)


@contextmanager
def scripted_broker(connack: bytes, puback: Callable[[bytes], bytes]) -> Iterator[int]:
    """Answers CONNECT and each PUBLISH with given bytes; `puback` gets the packet id."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                connection.recv(4096)
                connection.sendall(connack)
                while data := connection.recv(4096):
                    if data[0] >> 4 == 3:
                        name = 4 + int.from_bytes(data[2:4], "big")
                        connection.sendall(puback(data[name : name + 2]))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", Address("broker", 1883, password="own")),
        ("mqtts://a%40b:p%2Fw@broker", Address("broker", 8883, True, "a@b", "p/w")),
        ("mqtt://u:p@[::1]:1884?protocol=5", Address("::1", 1884, False, "u", "p", 5)),
        ("mqtts://u:p@b?share=g&ca=/ca.pem", Address("b", 8883, True, "u", "p", 4, "g", "/ca.pem")),
    ],
)
def test_the_address_of_the_broker_is_read_from_its_url(settings: Any, url: str, expected: Address) -> None:
    settings.MQTT_URL, settings.OTA_MQTT_PASSWORD = url, "own"
    assert mqtt.address() == expected


@pytest.mark.parametrize(
    "url",
    ["http://broker", "mqtt://", "broker:1883", "mqtt://b:99999", "mqtt://b?protocol=3", "mqtt://b?sahre=g"],
)
def test_another_url_is_refused(settings: Any, url: str) -> None:
    settings.MQTT_URL = url
    with pytest.raises(ValueError):
        mqtt.address()


def test_every_message_of_a_batch_is_published_and_acknowledged(broker: BrokerThread) -> None:
    publisher = Publisher(where(broker.ports[0]))
    with Device(broker.ports[0], "device-1") as device:
        messages = [(f"/ota/device/upgrade/{PK}/device-1", b"%d" % number) for number in range(15)]
        assert publisher.publish(messages, window=4) == [Delivery.TAKEN] * 15
        assert [device.receive_publish().payload for _ in messages] == [body for _, body in messages]
    publisher.close()


def test_a_publisher_finds_the_broker_again_after_its_restart(broker: BrokerThread) -> None:
    port = broker.ports[0]
    publisher = Publisher(where(port))
    assert publisher.publish([("a/b", b"1")]) == [Delivery.TAKEN]
    broker.stop()
    assert publisher.publish([("a/b", b"2")]) == [Delivery.UNKNOWN]
    assert not publisher.ready()
    with BrokerThread(authenticate, [Listener(port)]):
        assert publisher.ready()
        assert publisher.publish([("a/b", b"3")]) == [Delivery.TAKEN]
        publisher.close()


def test_a_wrong_password_publishes_nothing(broker: BrokerThread) -> None:
    publisher = Publisher(Address("127.0.0.1", broker.ports[0], username="platform", password="wrong"))
    assert publisher.publish([("a/b", b"1"), ("a/b", b"2")]) == [Delivery.UNKNOWN] * 2


def test_a_broker_that_acknowledges_nothing_costs_the_time_out_and_no_more() -> None:
    with scripted_broker(b"\x20\x02\0\0", lambda _: b"") as port:
        publisher = Publisher(where(port))
        assert publisher.publish([("a/b", b"1")], timeout=0.2) == [Delivery.UNKNOWN]


def test_a_message_nobody_was_there_for_is_told_apart() -> None:
    with scripted_broker(b"\x20\x03\0\0\0", lambda packet_id: b"\x40\x03" + packet_id + b"\x10") as port:
        publisher = Publisher(where(port, protocol=5))
        assert publisher.publish([("a/b", b"1")]) == [Delivery.NO_SUBSCRIBER]
        publisher.close()


def test_the_embedded_broker_says_who_was_not_there(broker: BrokerThread) -> None:
    publisher = Publisher(where(broker.ports[0], protocol=5))
    with Device(broker.ports[0], "here"):
        said = publisher.publish([(f"/ota/device/upgrade/{PK}/{name}", b"x") for name in ("here", "away")])
        assert said == [Delivery.TAKEN, Delivery.NO_SUBSCRIBER]
    publisher.close()


def test_a_link_works_beside_more_open_files_than_select_can_watch(broker: BrokerThread) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 1024:
            opened.append(os.dup(0))
        link = Link(where(broker.ports[0]), "many-files")
        link.connect()
        assert link.publish("a/b", b"1") is not None
        link.close()
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_each_process_and_each_broker_has_its_own_publisher(settings: Any) -> None:
    settings.MQTT_URL = "mqtt://one"
    first = mqtt.publisher()
    assert mqtt.publisher() is first
    settings.MQTT_URL = "mqtt://two"
    assert mqtt.publisher() is not first
