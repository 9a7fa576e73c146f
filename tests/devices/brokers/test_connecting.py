"""Who gets in, who does not, and what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest

from devices.brokers.contract import Identity, Refusal
from devices.brokers.embedded import BrokerThread, Listener, Options, codec
from devices.brokers.embedded.codec import ConnAck, ConnectCode, PingReq, PingResp, Publish
from devices.topics import Kind
from tests.devices.brokers.clients import PK, Device, Gateway, PahoClient, RawClient, authenticate


@pytest.mark.parametrize(
    ("client_id", "username", "password", "code"),
    [
        ("any", f"dn&{PK}", b"wrong", ConnectCode.BAD_CREDENTIALS),
        ("any", "", b"", ConnectCode.BAD_CREDENTIALS),
        ("any", f"disabled&{PK}", b"secret", ConnectCode.NOT_AUTHORIZED),
        ("unreadable", f"dn&{PK}", b"secret", ConnectCode.IDENTIFIER_REJECTED),
        ("crash", f"dn&{PK}", b"secret", ConnectCode.SERVER_UNAVAILABLE),
    ],
)
def test_a_refusal_is_one_code_and_the_end(
    broker: BrokerThread, port: int, client_id: str, username: str, password: bytes, code: ConnectCode
) -> None:
    with RawClient(port) as client:
        assert client.connect(client_id, username, password) == ConnAck(code)
        with pytest.raises(EOFError):
            client.receive()
    assert broker.broker.health() | {"refused": 1, "devices": 0} == broker.broker.health()


def test_a_refused_connection_does_not_disturb_the_device_it_claims(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device, RawClient(port) as stranger:
        assert gateway.receive_event().connected
        assert stranger.connect("x", f"dn&{PK}", b"wrong").code is ConnectCode.BAD_CREDENTIALS
        assert stranger.is_closed_by_broker()
        assert device.has_nothing_more()
        assert gateway.has_nothing_more()


def test_paho_sees_a_refusal_as_such(port: int) -> None:
    with PahoClient(port, "x", f"dn&{PK}", "wrong") as client:
        assert not client.is_connected()


@pytest.mark.parametrize("options", [Options(keep_alive_range=(30, 1200))])
@pytest.mark.parametrize("keep_alive", [0, 29, 1201])
def test_a_device_with_a_keep_alive_out_of_range_is_refused(port: int, keep_alive: int) -> None:
    with RawClient(port) as client:
        answer = client.connect("x", f"dn&{PK}", b"secret", keep_alive)
        assert answer.code is ConnectCode.NOT_AUTHORIZED


def test_a_second_connection_takes_over_whatever_its_client_id(port: int) -> None:
    with Device(port, "dn") as first, RawClient(port) as second:
        assert second.connect("quite|another|", f"dn&{PK}", b"secret").code is ConnectCode.ACCEPTED
        assert first.is_closed_by_broker()
        assert second.has_nothing_more()


def test_a_silent_device_is_dropped_after_its_keep_alive(port: int, gateway: Gateway) -> None:
    with Device(port, "talks"), Device(port, "silent", keep_alive=1) as silent:
        names = {gateway.receive_event().device_name for _ in range(2)}
        assert names == {"talks", "silent"}
        assert silent.is_closed_by_broker()
        event = gateway.receive_event()
        assert (event.device_name, event.connected, event.reason) == ("silent", False, "keep_alive")
        assert gateway.has_nothing_more()


@pytest.mark.parametrize("options", [Options(connect_timeout=0.1, sweep_interval=0.05)])
def test_who_does_not_say_connect_in_time_is_closed(port: int) -> None:
    with RawClient(port) as client:
        client.socket.sendall(codec.encode(codec.Connect("half"))[:7])
        assert client.is_closed_by_broker()


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 20,
        codec.encode(PingReq()),
        b"\x10\xff\xff\xff\x7f",
        codec.encode(codec.Connect("x" * 20_000)),
    ],
)
def test_bytes_that_are_not_mqtt_end_their_own_connection_only(
    broker: BrokerThread, port: int, stream: bytes
) -> None:
    with Device(port, "dn") as device, RawClient(port) as stranger:
        stranger.socket.sendall(stream)
        assert stranger.is_closed_by_broker()
        assert device.has_nothing_more()
    assert broker.broker.health()["malformed"] == 1


def test_a_device_that_turns_to_garbage_is_closed_and_others_are_not(port: int, gateway: Gateway) -> None:
    with Device(port, "good") as good, Device(port, "bad") as bad:
        gateway.receive_event(), gateway.receive_event()
        bad.socket.sendall(b"\xff\x00garbage")
        assert bad.is_closed_by_broker()
        assert gateway.receive_event().reason == "malformed"
        assert good.has_nothing_more()


def test_a_second_connect_on_one_connection_is_an_error(port: int) -> None:
    with Device(port, "dn") as device:
        device.send(codec.Connect("again"))
        assert device.is_closed_by_broker()


def test_what_no_version_of_ours_can_read_is_told_so(port: int) -> None:
    later = codec.encode(codec.Connect("x", level=codec.MQTT_5)).replace(b"MQTT\x05", b"MQTT\x06")
    with RawClient(port) as client:
        client.socket.sendall(later)
        assert client.socket.recv(100) == b"\x20\x03\x00\x84\x00"
        assert client.is_closed_by_broker()
    other = codec.encode(codec.Connect("x")).replace(b"MQTT\x04", b"MQTT\x03")
    with RawClient(port) as client:
        client.socket.sendall(other)
        assert client.receive() == ConnAck(ConnectCode.UNACCEPTABLE_PROTOCOL)
        assert client.is_closed_by_broker()


@pytest.mark.parametrize("level", [codec.MQTT_3_1, codec.MQTT_3_1_1])
def test_both_protocol_levels_get_in_and_a_will_is_ignored(port: int, level: int) -> None:
    will = codec.Will("/ota/device/upgrade/x/y", b"boo", retain=True)
    with RawClient(port) as client:
        packet = codec.Connect("c", f"dn&{PK}", b"secret", will=will, level=level)
        assert client.exchange(packet) == ConnAck()


def test_packets_sent_before_connack_are_handled_after_it(port: int) -> None:
    with RawClient(port) as client:
        client.send(codec.Connect("c", f"dn&{PK}", b"secret"), PingReq(), PingReq())
        assert [client.receive() for _ in range(3)] == [ConnAck(), PingResp(), PingResp()]


def test_a_registering_client_gets_its_secret_and_nothing_else(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as live, RawClient(port) as client:
        assert gateway.receive_event().connected
        assert client.connect("registers", f"dn&{PK}", b"secret", keep_alive=0).code is ConnectCode.ACCEPTED
        assert client.receive() == Publish("/ext/register", b'{"deviceSecret":"x"}')
        assert client.subscribe("/ext/register", f"/sys/{PK}/dn/#") == (1, 0x80)
        report = Publish(f"/ota/device/inform/{PK}/dn", b"{}", 1, 7)
        assert client.exchange(report) == codec.PubAck(7)
        assert live.has_nothing_more()
        assert gateway.has_nothing_more()


@pytest.mark.parametrize("options", [Options(registration_time=0.1, sweep_interval=0.05)])
def test_a_registering_client_that_stays_is_closed(port: int) -> None:
    with RawClient(port) as client:
        assert client.connect("registers", f"dn&{PK}", b"secret").code is ConnectCode.ACCEPTED
        assert client.is_closed_by_broker()


@pytest.mark.parametrize("options", [Options(max_connections=2, reserved_for_loopback=0)])
def test_no_more_connections_than_the_bound(broker: BrokerThread, port: int) -> None:
    with Device(port, "one"), Device(port, "two"), RawClient(port) as third:
        assert third.is_closed_by_broker()
    assert broker.broker.health()["turned_away"] == 1


@pytest.mark.parametrize(
    "options", [Options(connects_per_second=0.001, connect_burst=2, limit_loopback=True)]
)
def test_an_address_that_connects_too_often_is_turned_away(port: int) -> None:
    with Device(port, "one") as one, Device(port, "two"), RawClient(port) as third:
        assert third.is_closed_by_broker()
        assert one.has_nothing_more()


@pytest.mark.parametrize("options", [Options(cost_per_second=200, cost_burst=5)])
def test_a_device_that_sends_too_fast_is_read_slower_and_loses_nothing(
    broker: BrokerThread, port: int
) -> None:
    with Device(port, "fast") as fast, Device(port, "calm") as calm:
        fast.send(*[PingReq()] * 20)
        fast.send(PingReq())
        assert calm.has_nothing_more()
        assert [fast.receive() for _ in range(21)] == [PingResp()] * 21
    assert broker.broker.health()["throttled"]


def test_kick_ends_a_connection_with_its_reason(broker: BrokerThread, port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device, Device(port, "other") as other:
        gateway.receive_event(), gateway.receive_event()
        broker.kick(PK, "nobody")
        broker.kick(PK, "dn", "disabled")
        assert device.is_closed_by_broker()
        assert gateway.receive_event().reason == "disabled"
        assert other.has_nothing_more()


def test_the_platform_kicks_by_a_message_and_a_device_cannot(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device, Device(port, "evil") as evil:
        gateway.receive_event(), gateway.receive_event()
        assert evil.exchange(Publish(device.topic(Kind.KICK), b"", 1, 5)) == codec.PubAck(5)
        assert device.has_nothing_more()
        gateway.send(Publish(device.topic(Kind.KICK), b"deleted", 1, 9))
        assert device.is_closed_by_broker()
        assert {type(gateway.receive()) for _ in range(2)} == {Publish, codec.PubAck}


def test_stop_closes_every_connection_and_frees_the_port(broker: BrokerThread, port: int) -> None:
    with Device(port, "dn") as device:
        broker.stop()
        assert device.is_closed_by_broker()
    assert not broker.is_alive
    with BrokerThread(authenticate, [Listener(port)]) as next_one:
        assert next_one.ports == (port,)
        assert next_one.broker.epoch != broker.broker.epoch


def test_a_port_that_is_taken_is_an_error_of_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        thread = BrokerThread(authenticate, [Listener(0), Listener(taken.getsockname()[1])])
        with pytest.raises(OSError):
            thread.start()
        thread.stop()


class Lingering(BrokerThread):
    """A broker whose thread is still there for a while when its event loop is closed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.closed, self.may_end = threading.Event(), threading.Event()

    def _run(self) -> None:
        super()._run()
        self.closed.set()
        self.may_end.wait()


def test_a_broker_whose_loop_has_just_closed_can_be_stopped() -> None:
    thread = Lingering(authenticate, [Listener(0)])
    thread.start()
    thread.stop(timeout=0)
    assert thread.closed.wait(10)
    assert thread.is_alive
    thread.stop(timeout=0)
    thread.kick("product", "device")
    thread.may_end.set()


def test_several_listeners_share_one_broker() -> None:
    with BrokerThread(authenticate, [Listener(0), Listener(0)]) as broker:
        one, two = broker.ports
        with Device(one, "dn") as first, Device(two, "dn") as second:
            assert first.is_closed_by_broker()
            assert second.has_nothing_more()


def test_an_authenticator_that_never_answers_blocks_nobody_else() -> None:
    never = asyncio.Event()

    async def slow_for_some(client_id: str, username: str, password: bytes, peer: str) -> Identity | Refusal:
        if client_id == "slow":
            await never.wait()
        return await authenticate(client_id, username, password, peer)

    options = Options(authenticate_timeout=0.2)
    with BrokerThread(slow_for_some, [Listener(0)], options) as broker, RawClient(broker.ports[0]) as client:
        client.send(codec.Connect("slow", f"dn&{PK}", b"secret"))
        with Device(broker.ports[0], "quick") as quick:
            assert quick.has_nothing_more()
        assert client.receive() == ConnAck(ConnectCode.SERVER_UNAVAILABLE)
        with contextlib.suppress(EOFError):
            client.receive()
