"""The stream that tells the gateway who is connected."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from devices import topics
from devices.brokers.contract import PresenceEvent, PresenceSnapshot
from devices.brokers.embedded import BrokerThread, Options, snapshot
from devices.brokers.embedded.codec import Disconnect, PubAck, Publish
from devices.topics import Kind
from tests.devices.brokers.clients import PK, Device, Gateway


def names(snapshot: PresenceSnapshot) -> set[str]:
    return {device_name for _, device_name, _ in snapshot.connected}


def test_connected_comes_before_the_first_report_and_disconnected_after_the_last(
    broker: BrokerThread, port: int, gateway: Gateway
) -> None:
    with Device(port, "dn") as device:
        device.send(Publish(device.topic(Kind.INFORM), b"v1"), Disconnect())
        up, report, down = gateway.receive_event(), gateway.receive_publish(), gateway.receive_event()
    assert report.payload == b"v1"
    assert (up.product_key, up.device_name, up.connected, up.reason) == (PK, "dn", True, "")
    assert (down.connected, down.reason, down.connection_id) == (False, "disconnect", up.connection_id)
    assert up.epoch == down.epoch == broker.broker.epoch
    assert up.peer.startswith("127.0.0.1:")
    assert len(up.connection_id) <= 40


def test_a_connection_that_just_ends_is_told_as_closed(port: int, gateway: Gateway) -> None:
    with Device(port, "dn"):
        assert gateway.receive_event().connected
    assert gateway.receive_event().reason in ("closed", "lost")


def test_a_take_over_tells_the_new_connection_first_and_ends_only_the_old_one(
    port: int, gateway: Gateway
) -> None:
    with Device(port, "dn"), Device(port, "dn"):
        first, second, end = [gateway.receive_event() for _ in range(3)]
        assert (first.connected, second.connected, end.connected) == (True, True, False)
        assert first.connection_id != second.connection_id
        assert (end.connection_id, end.reason) == (first.connection_id, "taken_over")
        assert gateway.has_nothing_more()
    last = gateway.receive_event()
    assert (last.connection_id, last.connected) == (second.connection_id, False)


def test_a_new_gateway_begins_with_the_list_of_who_is_connected(broker: BrokerThread, port: int) -> None:
    with Device(port, "one"), Device(port, "two"), Gateway(port) as gateway:
        assert names(gateway.snapshot) == {"one", "two"}
        assert gateway.snapshot.epoch == broker.broker.epoch
        assert (gateway.snapshot.part, gateway.snapshot.parts) == (0, 1)
        assert gateway.subscribe(topics.EPOCH) == (1,)
        assert gateway.has_nothing_more()


def test_an_empty_broker_says_that_nobody_is_there(gateway: Gateway) -> None:
    assert gateway.snapshot.connected == ()


def test_a_long_list_comes_in_parts(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PART", 2)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(Device(port, f"d{number}"))
        gateway = stack.enter_context(Gateway(port))
        parts = [gateway.snapshot, gateway.receive_snapshot(), gateway.receive_snapshot()]
        assert [(each.part, each.parts, len(each.connected)) for each in parts] == [
            (0, 3, 2),
            (1, 3, 2),
            (2, 3, 1),
        ]
        assert len({each.sync for each in parts}) == 1
        assert set.union(*map(names, parts)) == {f"d{number}" for number in range(5)}


def test_a_gateway_that_was_away_reads_the_history_and_then_the_state(port: int) -> None:
    with Gateway(port), Device(port, "stays"):
        pass
    with Device(port, "gone"):
        pass
    with Device(port, "here"), Gateway(port, subscribe=False) as gateway:
        history = []
        while (packet := gateway.receive_publish()).topic != topics.EPOCH:
            history.append(PresenceEvent.from_json(packet.topic, packet.payload))
        up = {each.device_name for each in history if each.connected}
        assert {"gone", "here"} <= up
        assert names(PresenceSnapshot.from_json(packet.payload)) == {"here"}
        assert gateway.has_nothing_more()


@pytest.mark.parametrize("options", [Options(internal_window=1, internal_queue=2)])
def test_events_that_found_no_room_are_made_good_by_a_list(port: int, gateway: Gateway) -> None:
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(Device(port, f"d{number}"))
        seen = []
        while (packet := gateway.receive_publish(acknowledge=False)).topic != topics.EPOCH:
            seen.append(packet.topic)
            assert packet.packet_id is not None
            gateway.send(PubAck(packet.packet_id))
        assert len(seen) < 6
        assert names(PresenceSnapshot.from_json(packet.payload)) == {f"d{number}" for number in range(6)}


def test_the_platforms_own_connections_are_not_presence(port: int, gateway: Gateway) -> None:
    with Gateway(port, "worker", clean=True, subscribe=False):
        assert gateway.has_nothing_more()


def test_nobody_can_forge_presence(broker: BrokerThread, gateway: Gateway) -> None:
    forged = Publish(topics.build(Kind.PRESENCE, PK, "dn"), b"{}", 1, 3)
    assert gateway.exchange(forged) == PubAck(3)
    assert gateway.has_nothing_more()
    assert broker.broker.health()["denied"] == 1
