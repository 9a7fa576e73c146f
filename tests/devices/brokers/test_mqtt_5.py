"""What MQTT 5 adds to the broker: reasons, terms of a connection, the life of a session."""

from __future__ import annotations

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from devices import topics
from devices.brokers.embedded import BrokerThread, Options, codec
from devices.brokers.embedded.codec import PubAck, Publish, PubRec, ReasonCode
from devices.brokers.embedded.properties import FOREVER, Property
from devices.topics import Kind
from tests.devices.brokers.clients import PK, Device, DeviceOf5, Gateway, PahoClient, RawClient


class ClientOf5(RawClient):
    level = codec.MQTT_5


class PlatformOf5(Gateway):
    level = codec.MQTT_5


@pytest.mark.parametrize(
    ("client_id", "username", "password", "code"),
    [
        ("any", f"dn&{PK}", b"wrong", ReasonCode.BAD_CREDENTIALS),
        ("any", "", b"", ReasonCode.BAD_CREDENTIALS),
        ("any", f"disabled&{PK}", b"secret", ReasonCode.NOT_AUTHORIZED),
        ("unreadable", f"dn&{PK}", b"secret", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID),
        ("crash", f"dn&{PK}", b"secret", ReasonCode.SERVER_UNAVAILABLE),
    ],
)
def test_a_refusal_is_a_reason_code_without_a_word(
    port: int, client_id: str, username: str, password: bytes, code: ReasonCode
) -> None:
    with ClientOf5(port) as client:
        assert client.connect(client_id, username, password) == codec.ConnAck(code)
        assert client.is_closed_by_broker()


def test_a_device_learns_the_terms_of_its_connection(port: int, options: Options) -> None:
    with ClientOf5(port) as client:
        wish = {Property.SESSION_EXPIRY: FOREVER, Property.USER_PROPERTY: (("a", "b"),)}
        answer = client.connect("", f"dn&{PK}", b"secret", keep_alive=0, clean=False, more=wish)
        assert (answer.code, answer.session_present) == (ReasonCode.SUCCESS, False)
        assert answer.properties is not None
        terms = dict(answer.properties)
        assert terms.pop(Property.ASSIGNED_CLIENT_ID)
        assert terms == {
            Property.MAXIMUM_PACKET_SIZE: options.device_packet,
            Property.SUBSCRIPTION_IDENTIFIERS_AVAILABLE: 0,
            Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
            Property.SESSION_EXPIRY: 0,
            Property.SERVER_KEEP_ALIVE: options.keep_alive_range[1],
            Property.RECEIVE_MAXIMUM: options.device_reports,
        }


def test_a_device_that_gets_what_it_asked_for_is_told_nothing_of_it(port: int) -> None:
    with ClientOf5(port) as client:
        answer = client.connect("mine", f"dn&{PK}", b"secret")
        assert answer.properties is not None
        changed = {Property.ASSIGNED_CLIENT_ID, Property.SERVER_KEEP_ALIVE, Property.SESSION_EXPIRY}
        assert changed.isdisjoint(answer.properties)


def test_enhanced_authentication_is_refused_as_such(port: int) -> None:
    with ClientOf5(port) as client:
        answer = client.connect("x", f"dn&{PK}", b"secret", more={Property.AUTHENTICATION_METHOD: "SCRAM"})
        assert answer.code is ReasonCode.BAD_AUTHENTICATION_METHOD
        assert client.is_closed_by_broker()


def test_the_platform_learns_that_nobody_was_there_for_its_push(port: int) -> None:
    with PlatformOf5(port, subscribe=False) as platform:
        push = Publish(topics.build(Kind.UPGRADE, PK, "dn"), b"push", 1, 9)
        kick = Publish(topics.build(Kind.KICK, PK, "dn"), b"", 1, 9)
        nobody = PubAck(9, ReasonCode.NO_MATCHING_SUBSCRIBERS)
        assert (platform.exchange(push), platform.exchange(kick)) == (nobody, nobody)
        with Device(port, "dn") as device:
            assert platform.exchange(push) == PubAck(9)
            assert device.receive_publish().payload == b"push"
            assert platform.exchange(kick) == PubAck(9)
            assert device.is_closed_by_broker()


def test_a_device_learns_what_became_of_its_message(port: int, gateway: Gateway) -> None:
    with DeviceOf5(port, "dn") as device:
        gateway.receive_event()
        foreign, silent = topics.build(Kind.INFORM, PK, "victim"), f"/sys/{PK}/dn/thing/event/post"
        assert device.exchange(Publish(foreign, b"x", 1, 3)) == PubAck(3, ReasonCode.NOT_AUTHORIZED)
        assert device.exchange(Publish(foreign, b"x", 2, 4)) == PubRec(4, ReasonCode.NOT_AUTHORIZED)
        assert device.exchange(Publish(silent, b"x", 1, 5)) == PubAck(5, ReasonCode.NO_MATCHING_SUBSCRIBERS)
        device.send(Publish(device.topic(Kind.INFORM), b"v1", 1, 6, properties={Property.CONTENT_TYPE: "x"}))
        assert gateway.receive_publish().payload == b"v1"
        assert device.receive() == PubAck(6)
        # A QoS 2 message that was refused is over: its packet id may be used again.
        device.send(Publish(device.topic(Kind.INFORM), b"v2", 2, 4))
        assert gateway.receive_publish().payload == b"v2"
        assert device.receive() == PubRec(4)


def test_each_filter_of_a_subscription_has_its_reason(port: int) -> None:
    with DeviceOf5(port, "dn") as device:
        wanted = (f"/sys/{PK}/dn/#", f"/sys/{PK}/other/#", "a#", f"$share/g/sys/{PK}/dn/#")
        assert device.subscribe(*wanted) == (
            1,
            ReasonCode.NOT_AUTHORIZED,
            ReasonCode.TOPIC_FILTER_INVALID,
            ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        )
        numbered = codec.Subscribe(2, ((f"/sys/{PK}/dn/a", 1),), {Property.SUBSCRIPTION_IDENTIFIER: 1})
        code = ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
        assert device.exchange(numbered) == codec.SubAck(2, (code,))
        leaving = codec.Unsubscribe(3, (f"/sys/{PK}/dn/#", "never/subscribed"))
        assert device.exchange(leaving) == codec.UnsubAck(3, (0, ReasonCode.NO_SUBSCRIPTION_EXISTED))


def test_a_device_learns_why_its_connection_ends(port: int, gateway: Gateway) -> None:
    with DeviceOf5(port, "dn") as first, DeviceOf5(port, "dn") as second:
        assert first.is_told_goodbye(ReasonCode.SESSION_TAKEN_OVER)
        gateway.send(Publish(topics.build(Kind.KICK, PK, "dn"), b"bye"))
        assert second.is_told_goodbye(ReasonCode.ADMINISTRATIVE_ACTION)


def test_a_silent_device_and_a_malformed_packet_are_told_apart(port: int) -> None:
    with DeviceOf5(port, "silent", keep_alive=1) as silent, DeviceOf5(port, "odd") as odd:
        odd.socket.sendall(b"\xf0\x00")
        assert odd.is_told_goodbye(ReasonCode.MALFORMED_PACKET)
        assert silent.is_told_goodbye(ReasonCode.KEEP_ALIVE_TIMEOUT)


def test_a_topic_alias_was_not_agreed_upon(port: int) -> None:
    with DeviceOf5(port, "dn") as device:
        device.send(Publish("", b"x", properties={Property.TOPIC_ALIAS: 1}))
        assert device.is_told_goodbye(ReasonCode.TOPIC_ALIAS_INVALID)


@pytest.mark.parametrize("options", [Options(device_packet=1000)])
def test_a_packet_beyond_the_bound_is_named_as_such(port: int) -> None:
    with DeviceOf5(port, "dn") as device:
        device.send(Publish(device.topic(Kind.INFORM), bytes(2000)))
        assert device.is_told_goodbye(ReasonCode.PACKET_TOO_LARGE)


def test_no_more_is_in_flight_than_the_client_receives_at_once(port: int, gateway: Gateway) -> None:
    with ClientOf5(port) as device:
        device.connect("x", f"dn&{PK}", b"secret", more={Property.RECEIVE_MAXIMUM: 2})
        gateway.receive_event()
        for number in range(1, 4):
            gateway.exchange(Publish(topics.build(Kind.UPGRADE, PK, "dn"), b"%d" % number, 1, number))
        first, second = (device.receive_publish(acknowledge=False) for _ in range(2))
        assert (first.payload, second.payload) == (b"1", b"2")
        assert device.has_nothing_more()
        device.send(PubAck(first.packet_id or 0))
        assert device.receive_publish().payload == b"3"


def test_what_is_too_large_for_a_client_counts_as_done(
    broker: BrokerThread, port: int, gateway: Gateway
) -> None:
    with ClientOf5(port) as device:
        device.connect("x", f"dn&{PK}", b"secret", more={Property.MAXIMUM_PACKET_SIZE: 200})
        gateway.receive_event()
        upgrade = topics.build(Kind.UPGRADE, PK, "dn")
        gateway.exchange(Publish(upgrade, bytes(300), 1, 1))
        gateway.exchange(Publish(upgrade, b"small", 1, 2))
        assert device.receive_publish().payload == b"small"
        assert device.has_nothing_more()
    assert broker.broker.health()["dropped"] == 1


def test_a_session_of_the_platform_lasts_as_long_as_it_asks(port: int) -> None:
    with Device(port, "dn") as device:
        for kept in (False, True):
            more = {Property.SESSION_EXPIRY: 60} if kept else None
            with ClientOf5(port) as first:
                first.connect("gw", "platform", b"internal", 0, clean=False, more=more)
                first.subscribe(device.topic(Kind.INFORM))
            device.send(Publish(device.topic(Kind.INFORM), b"v1"))
            assert device.has_nothing_more()
            with ClientOf5(port) as second:
                answer = second.connect("gw", "platform", b"internal", 0, clean=False)
                assert answer.session_present is kept
                assert not kept or second.receive_publish().payload == b"v1"


def test_a_session_may_be_given_up_in_leaving(port: int) -> None:
    for expiry, is_there in ((0, False), (60, True)):
        with ClientOf5(port) as first:
            first.connect("gw", "platform", b"internal", 0, False, {Property.SESSION_EXPIRY: 60})
            first.send(codec.Disconnect(properties={Property.SESSION_EXPIRY: expiry}))
            assert first.is_closed_by_broker()
        with ClientOf5(port) as second:
            answer = second.connect("gw", "platform", b"internal", 0, False, {Property.SESSION_EXPIRY: 60})
            assert answer.session_present is is_there


def test_paho_of_5_reports_and_is_pushed_to(port: int, gateway: Gateway) -> None:
    five = MQTTProtocolVersion.MQTTv5
    with PahoClient(port, "x|securemode=3|", f"dn&{PK}", "secret", protocol=five) as device:
        assert device.is_connected()
        assert gateway.receive_event().connected
        sent = device.client.publish(topics.build(Kind.INFORM, PK, "dn"), b"v1", 1)
        assert gateway.receive_publish().payload == b"v1"
        sent.wait_for_publish(10)
        gateway.send(Publish(topics.build(Kind.UPGRADE, PK, "dn"), b"push", 1, 1))
        assert device.receive().payload == b"push"
    with PahoClient(port, "x", f"dn&{PK}", "wrong", protocol=five) as stranger:
        assert not stranger.is_connected()
