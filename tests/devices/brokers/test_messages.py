"""What reaches whom, and who acknowledges what to whom."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from devices import topics
from devices.brokers.embedded import BrokerThread, Listener, Options, codec
from devices.brokers.embedded.codec import PubAck, PubComp, Publish, PubRec, PubRel
from devices.topics import Kind
from tests.devices.brokers.clients import PK, Device, Gateway, PahoClient, authenticate

# ---- to devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(topics.DOWNLINK))
@pytest.mark.parametrize("qos", [0, 1])
def test_a_push_arrives_without_a_subscription_and_only_at_its_device(
    port: int, gateway: Gateway, kind: Kind, qos: int
) -> None:
    with Device(port, "dn") as device, Device(port, "other") as other:
        gateway.send(Publish(device.topic(kind), b"push", qos, 1 if qos else None, retain=True))
        arrived = device.receive_publish()
        assert (arrived.topic, arrived.payload, arrived.qos) == (device.topic(kind), b"push", qos)
        assert not arrived.retain
        assert other.has_nothing_more()


def test_a_paho_device_gets_its_push_without_subscribing(port: int, gateway: Gateway) -> None:
    with PahoClient(port, "x|securemode=3|", f"dn&{PK}", "secret") as device:
        assert device.is_connected()
        gateway.send(Publish(topics.build(Kind.UPGRADE, PK, "dn"), b'{"code":"1000"}', 1, 1))
        assert device.receive().payload == b'{"code":"1000"}'


def test_a_push_comes_once_however_often_it_is_subscribed(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        reply = device.topic(Kind.FIRMWARE_GET_REPLY)
        assert device.subscribe(device.topic(Kind.UPGRADE), f"/sys/{PK}/dn/#", reply, qos=0) == (0, 0, 0)
        gateway.send(Publish(device.topic(Kind.UPGRADE), b"a", 1, 1), Publish(reply, b"b", 1, 2))
        arrived = [device.receive_publish() for _ in range(2)]
        assert [(each.payload, each.qos) for each in arrived] == [(b"a", 1), (b"b", 1)]
        assert device.has_nothing_more()


def test_a_push_to_an_absent_device_is_acknowledged_and_counted(
    broker: BrokerThread, port: int, gateway: Gateway
) -> None:
    assert gateway.exchange(Publish(topics.build(Kind.UPGRADE, PK, "away"), b"x", 1, 9)) == PubAck(9)
    with Device(port, "away") as device:
        assert device.has_nothing_more()
    assert broker.broker.health()["unreachable"] == 1


def test_subscriptions_beyond_firmware_updates_work_until_unsubscribed(port: int, gateway: Gateway) -> None:
    topic = f"/sys/{PK}/dn/rrpc/request/7"
    with Device(port, "dn") as device:
        gateway.receive_event()
        assert device.subscribe(f"/sys/{PK}/dn/rrpc/request/+", qos=2) == (1,)
        gateway.send(Publish(topic, b"first"))
        assert device.receive_publish().payload == b"first"
        unsubscribe = codec.Unsubscribe(3, (f"/sys/{PK}/dn/rrpc/request/+", "never/subscribed"))
        assert device.exchange(unsubscribe) == codec.UnsubAck(3)
        assert gateway.exchange(Publish(topic, b"second", 1, 5)) == PubAck(5)
        assert device.has_nothing_more()


def test_a_device_that_subscribes_elsewhere_is_refused_and_stays(broker: BrokerThread, port: int) -> None:
    with Device(port, "dn") as device:
        wanted = (f"/sys/{PK}/dn/#", "#", f"/sys/{PK}/other/#", "$ota/#", topics.EPOCH)
        assert device.subscribe(*wanted) == (1, 0x80, 0x80, 0x80, 0x80)
        assert device.has_nothing_more()
    assert broker.broker.health()["denied"] == 4


@pytest.mark.parametrize("options", [Options(max_subscriptions=20)])
def test_the_dozen_subscriptions_of_an_sdk_are_granted_and_a_flood_is_not(port: int) -> None:
    with Device(port, "dn") as device:
        assert device.subscribe(*[f"/sys/{PK}/dn/t{n}" for n in range(20)]) == (1,) * 20
        assert device.subscribe(f"/sys/{PK}/dn/t20", f"/sys/{PK}/dn/t0") == (0x80, 1)
        device.send(codec.Subscribe(3, tuple((f"/sys/{PK}/dn/t{n}", 1) for n in range(21))))
        assert device.is_closed_by_broker()


@pytest.mark.parametrize("options", [Options(device_window=2, device_queue=3)])
def test_a_device_that_never_acknowledges_is_dropped_at_its_bound(port: int, gateway: Gateway) -> None:
    with Device(port, "slow") as slow, Device(port, "good") as good:
        gateway.receive_event(), gateway.receive_event()
        for packet_id in range(1, 6):
            assert gateway.exchange(Publish(slow.topic(Kind.UPGRADE), b"x", 1, packet_id)) == PubAck(
                packet_id
            )
        gateway.send(Publish(slow.topic(Kind.UPGRADE), b"one too many", 1, 6))
        assert gateway.receive_event().reason == "slow_reader"
        gateway.send(Publish(good.topic(Kind.UPGRADE), b"x"))
        assert good.receive_publish().payload == b"x"
        assert slow.is_closed_by_broker()


@pytest.mark.parametrize("options", [Options(device_queue=50, device_queue_bytes=200_000)])
def test_a_device_that_does_not_read_is_dropped_at_its_bound(port: int, gateway: Gateway) -> None:
    with Device(port, "slow") as slow:
        gateway.receive_event()
        block = Publish(slow.topic(Kind.FILE_DOWNLOAD_REPLY), bytes(100_000))
        for _ in range(200):  # 20 MB, more than the system's socket buffers hold
            gateway.send(block)
        event = gateway.receive_event()
        assert (event.connected, event.reason) == (False, "slow_reader")


# ---- from devices -----------------------------------------------------------------------------------


def test_devices_do_not_hear_each_other_nor_themselves(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        assert device.subscribe(device.topic(Kind.REQUEST), f"/sys/{PK}/dn/#") == (1, 1)
        device.send(Publish(device.topic(Kind.REQUEST), b"question", 0))
        assert gateway.receive_publish().payload == b"question"
        gateway.send(Publish(device.topic(Kind.REQUEST), b"answer", 1, 4))
        assert device.receive_publish().payload == b"answer"
        assert gateway.receive() == PubAck(4)
        assert device.has_nothing_more()
        assert gateway.has_nothing_more()


def test_a_forbidden_publish_goes_nowhere_and_is_acknowledged(
    broker: BrokerThread, port: int, gateway: Gateway
) -> None:
    with Device(port, "evil") as evil:
        gateway.receive_event()
        forged = topics.build(Kind.INFORM, PK, "victim")
        assert evil.exchange(Publish(forged, b"x", 1, 3)) == PubAck(3)
        assert evil.exchange(Publish(topics.EPOCH, b"x", 2, 4)) == PubRec(4)
        assert evil.has_nothing_more()
        assert gateway.has_nothing_more()
    assert broker.broker.health()["denied"] == 2


def test_a_topic_nobody_listens_to_is_acknowledged_at_once(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        update = Publish(f"/sys/{PK}/dn/thing/deviceinfo/update", b"{}", 1, 8)
        assert device.exchange(update) == PubAck(8)


def test_a_report_is_acknowledged_when_the_gateway_has(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 11))
        assert device.has_nothing_more()
        report = gateway.receive_publish(acknowledge=False)
        assert (report.payload, report.qos, report.dup) == (b"v1", 1, False)
        assert device.has_nothing_more()
        assert report.packet_id is not None
        gateway.send(PubAck(report.packet_id))
        assert device.receive() == PubAck(11)


def test_a_qos_2_report_is_taken_once(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        report = Publish(device.topic(Kind.INFORM), b"v1", 2, 11)
        device.send(report)
        assert device.has_nothing_more()
        gateway.receive_publish()
        assert device.receive() == PubRec(11)
        report.dup = True
        assert device.exchange(report) == PubRec(11)
        assert device.exchange(PubRel(11)) == PubComp(11)
        assert gateway.has_nothing_more()
        report.dup = False
        device.send(report)
        assert gateway.receive_publish().payload == b"v1"


def test_a_qos_0_report_reaches_the_gateway_with_qos_1(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        device.send(Publish(device.topic(Kind.PROGRESS), b"10"))
        assert gateway.receive_publish().qos == 1


def test_a_resent_report_that_still_waits_is_not_passed_on_again(port: int, gateway: Gateway) -> None:
    with Device(port, "dn") as device:
        gateway.receive_event()
        report = Publish(device.topic(Kind.INFORM), b"v1", 1, 11)
        device.send(report)
        report.dup = True
        device.send(report)
        assert device.has_nothing_more()
        gateway.receive_publish()
        assert device.receive() == PubAck(11)
        assert gateway.has_nothing_more()


def test_reports_outlive_a_gateway_that_goes_away_and_comes_back(port: int) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Gateway(port))
        device = stack.enter_context(Device(port, "dn"))
        first.receive_event()
        device.send(Publish(device.topic(Kind.INFORM), b"seen", 1, 1))
        assert first.receive_publish(acknowledge=False).payload == b"seen"
        first.socket.close()
        device.send(Publish(device.topic(Kind.INFORM), b"kept", 1, 2))
        device.send(Publish(device.topic(Kind.PROGRESS), b"kept too"))
        assert device.has_nothing_more()
        second = stack.enter_context(Gateway(port, subscribe=False))
        assert second.resumed
        arrived = [second.receive_publish() for _ in range(3)]
        assert [(each.payload, each.dup) for each in arrived] == [
            (b"seen", True),
            (b"kept", False),
            (b"kept too", False),
        ]
        assert [device.receive() for _ in range(2)] == [PubAck(1), PubAck(2)]


def test_paho_as_a_gateway_acknowledges_by_hand_over_a_reconnect(port: int) -> None:
    with ExitStack() as stack:
        device = stack.enter_context(Device(port, "dn"))
        with PahoClient(port, "gw", "platform", "internal", clean=False, manual_ack=True) as first:
            assert first.is_connected()
            first.client.subscribe([(each, 1) for each in topics.REPORT_FILTERS])
            assert first.client.publish(device.topic(Kind.UPGRADE), b"go", 1).rc == 0
            assert device.receive_publish().payload == b"go"
            device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 5))
            assert first.receive().payload == b"v1"
        assert device.has_nothing_more()
        with PahoClient(port, "gw", "platform", "internal", clean=False, manual_ack=True) as second:
            again = second.receive()
            assert (again.payload, again.dup) == (b"v1", True)
            second.client.ack(again.mid, again.qos)
            assert device.receive() == PubAck(5)


def test_without_any_gateway_a_qos_1_report_stays_unacknowledged(broker: BrokerThread, port: int) -> None:
    with Device(port, "dn") as device:
        device.send(
            Publish(device.topic(Kind.INFORM), b"v1", 1, 1), Publish(device.topic(Kind.INFORM), b"v1")
        )
        assert device.has_nothing_more()
    health = broker.broker.health()
    assert (health["unaccepted"], health["dropped"]) == (1, 1)


@pytest.mark.parametrize("options", [Options(standing_sessions=("gateway",))])
def test_a_standing_session_keeps_what_comes_before_the_first_gateway(port: int) -> None:
    with Device(port, "early") as device:
        device.send(Publish(device.topic(Kind.INFORM), b"v1"))
        assert device.has_nothing_more()
        with Gateway(port, subscribe=False) as gateway:
            assert gateway.resumed
            assert gateway.receive_event().device_name == "early"
            assert gateway.receive_publish().payload == b"v1"
            assert gateway.receive_snapshot().connected[0][1] == "early"


@pytest.mark.parametrize("options", [Options(internal_window=2, internal_queue=3)])
def test_a_full_queue_takes_no_more_and_says_so_by_not_acknowledging(broker: BrokerThread, port: int) -> None:
    with Gateway(port) as gateway, Device(port, "dn") as device:
        gateway.receive_event()
        inform = device.topic(Kind.INFORM)
        device.send(*[Publish(inform, b"%d" % number, 1, number) for number in range(1, 8)])
        assert device.has_nothing_more()
        assert broker.broker.health()["unaccepted"] == 2
        assert [gateway.receive_publish().payload for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
        assert [device.receive() for _ in range(5)] == [PubAck(number) for number in range(1, 6)]
        assert gateway.has_nothing_more()
        device.send(Publish(inform, b"6", 1, 6, dup=True))
        assert gateway.receive_publish().payload == b"6"


@pytest.mark.parametrize("options", [Options(device_reports=3)])
def test_one_device_cannot_fill_the_gateways_queue(port: int, gateway: Gateway) -> None:
    with Device(port, "flood") as flood, Device(port, "calm") as calm:
        gateway.receive_event(), gateway.receive_event()
        flood.send(*[Publish(flood.topic(Kind.PROGRESS), b"flood")] * 10)
        assert flood.has_nothing_more()
        calm.send(Publish(calm.topic(Kind.INFORM), b"calm"))
        arrived = [gateway.receive_publish().payload for _ in range(4)]
        assert arrived == [b"flood"] * 3 + [b"calm"]


def test_a_debugging_subscriber_does_not_acknowledge_for_the_gateway(port: int, gateway: Gateway) -> None:
    with Gateway(port, "debug", clean=True, subscribe=False) as debug, Device(port, "dn") as device:
        gateway.receive_event()
        assert debug.subscribe("#") == (1,)
        device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 1))
        assert debug.receive_publish().payload == b"v1"
        assert debug.has_nothing_more()
        assert device.has_nothing_more()
        gateway.receive_publish()
        assert device.receive() == PubAck(1)


def test_a_clean_gateway_that_leaves_acknowledges_nothing(broker: BrokerThread, port: int) -> None:
    with Device(port, "dn") as device:
        with Gateway(port, clean=True) as gateway:
            device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 1))
            gateway.receive_publish(acknowledge=False)
        with Gateway(port, clean=True) as gateway:
            assert not gateway.resumed
            assert device.has_nothing_more()
            device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 1, dup=True))
            gateway.receive_publish()
            assert device.receive() == PubAck(1)


@pytest.mark.parametrize("options", [Options(internal_session_expiry=0.05, sweep_interval=0.02)])
def test_a_persistent_session_nobody_returns_to_ends(broker: BrokerThread, port: int) -> None:
    with Gateway(port):
        pass
    for _ in range(500):
        with Device(port, "dn") as device:
            device.send(Publish(device.topic(Kind.INFORM), b"v1"))
            assert device.has_nothing_more()
        if broker.broker.health()["dropped"]:
            break
    assert broker.broker.health()["dropped"]


def test_messages_beyond_the_packet_bound_end_the_connection() -> None:
    with (
        BrokerThread(authenticate, [Listener(0)], Options(device_packet=1000)) as broker,
        Device(broker.ports[0], "dn") as device,
    ):
        device.send(Publish(device.topic(Kind.INFORM), bytes(2000)))
        assert device.is_closed_by_broker()
