from __future__ import annotations

import os
import random
import secrets
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.embedded import codec, properties
from devices.brokers.embedded.codec import MQTT_3_1, MQTT_3_1_1, MQTT_5, Decoder, MalformedPacket, encode
from devices.brokers.embedded.properties import Properties, Property

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
filters = texts.filter(bool)
names = filters.filter(lambda text: "+" not in text and "#" not in text)
ids = st.integers(1, 0xFFFF)
blobs = st.binary(max_size=300)
qos = st.integers(0, 2)


def values(name: Property) -> st.SearchStrategy[object]:
    lowest = int(name in properties._NEVER_ZERO)
    if name is Property.USER_PROPERTY:
        return st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(tuple)
    if name in properties._TEXTS:
        return texts
    if name in properties._BINARIES:
        return blobs
    if name in properties._FLAGS:
        return st.integers(0, 1)
    if name in properties._UINT16:
        return st.integers(lowest, 0xFFFF)
    if name in properties._UINT32:
        return st.integers(lowest, 0xFFFF_FFFF)
    return st.integers(lowest, 268_435_455)


def some(permitted: frozenset[Property], level: int) -> st.SearchStrategy[Properties | None]:
    """Any of these properties; none of them before MQTT 5."""
    if level != MQTT_5:
        return st.none()
    chosen = st.fixed_dictionaries({}, optional={name: values(name) for name in sorted(permitted)})
    return chosen.map(lambda found: found or None)


def publish(quality: int, level: int) -> st.SearchStrategy[codec.Publish]:
    return st.builds(
        codec.Publish,
        names,
        blobs,
        st.just(quality),
        ids if quality else st.none(),
        dup=st.booleans() if quality else st.just(False),
        retain=st.booleans(),
        properties=some(properties.PUBLISH, level),
    )


def connect(level: int, **credentials: st.SearchStrategy[object]) -> st.SearchStrategy[codec.Connect]:
    return st.builds(
        codec.Connect,
        texts,
        keep_alive=st.integers(0, 0xFFFF),
        clean=st.booleans(),
        will=st.none()
        | st.builds(codec.Will, filters, blobs, qos, st.booleans(), some(properties.WILL, level)),
        level=st.just(level),
        properties=some(properties.CONNECT, level),
        **credentials,
    )


def packets(level: int) -> st.SearchStrategy[codec.Packet]:
    """Any packet but CONNECT, as this version of MQTT can express it."""
    is_five = level == MQTT_5
    reasons = st.integers(0, 255) if is_five else st.just(0)
    codes: st.SearchStrategy[codec.ConnectCode | codec.ReasonCode]
    codes = st.sampled_from(codec.ReasonCode) if is_five else st.sampled_from(codec.ConnectCode)
    connack, ack = some(properties.CONNACK, level), some(properties.ACK, level)
    granted = [0, 1, 2, 0x80, *([0x87, 0x97] if is_five else [])]
    wanted = st.lists(st.tuples(filters, qos), min_size=1, max_size=5).map(tuple)
    return st.one_of(
        st.builds(codec.ConnAck, codes, properties=connack),
        st.builds(
            codec.ConnAck,
            st.just(codec.ReasonCode.SUCCESS if is_five else codec.ConnectCode.ACCEPTED),
            st.just(True),
            connack,
        ),
        *(publish(quality, level) for quality in range(3)),
        *(
            st.builds(kind, ids, reasons, ack)
            for kind in (codec.PubAck, codec.PubRec, codec.PubRel, codec.PubComp)
        ),
        st.builds(codec.Subscribe, ids, wanted, some(properties.SUBSCRIBE, level)),
        st.builds(
            codec.SubAck, ids, st.lists(st.sampled_from(granted), min_size=1, max_size=9).map(tuple), ack
        ),
        st.builds(
            codec.Unsubscribe,
            ids,
            st.lists(filters, min_size=1, max_size=5).map(tuple),
            some(properties.UNSUBSCRIBE, level),
        ),
        st.builds(
            codec.UnsubAck,
            ids,
            st.lists(st.integers(0, 255), min_size=1, max_size=5).map(tuple) if is_five else st.just(()),
            ack,
        ),
        st.builds(codec.PingReq),
        st.builds(codec.PingResp),
        st.builds(codec.Disconnect, reasons, some(properties.DISCONNECT, level)),
    )


def connects(level: int) -> st.SearchStrategy[codec.Connect]:
    named = connect(level, username=texts, password=st.none() | blobs)
    if level == MQTT_5:
        return connect(level, password=blobs) | connect(level) | named
    return connect(level) | named


levels = st.sampled_from([MQTT_3_1, MQTT_3_1_1, MQTT_5])
Conversation = tuple[int, list[codec.Packet]]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A version of MQTT, and a CONNECT of it with what may follow."""
    level = draw(levels)
    first: list[codec.Packet] = [draw(connects(level))]
    return level, first + draw(st.lists(packets(level), max_size=5))


@given(conversations(), st.lists(st.integers(0, 2000), max_size=8))
def test_packets_survive_the_wire_wherever_the_stream_is_cut(
    conversation: Conversation, cuts: list[int]
) -> None:
    level, sent = conversation
    stream = b"".join(encode(packet, level) for packet in sent)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    decoder = Decoder()
    received = [packet for start, end in pairwise(edges) for packet in decoder.feed(stream[start:end])]
    assert received == sent


@given(levels.flatmap(lambda level: st.tuples(st.just(level), packets(level))))
def test_packets_arrive_byte_by_byte(case: tuple[int, codec.Packet]) -> None:
    level, packet = case
    *early, last = encode(packet, level)
    decoder = Decoder(level=level)
    assert not any(decoder.feed(bytes((byte,))) for byte in early)
    assert decoder.feed(bytes((last,))) == [packet]


@given(levels, st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_is_malformed_and_nothing_else(level: int, chunks: list[bytes]) -> None:
    feed_tolerantly(level, chunks)


@given(levels, st.integers(0, 255), st.binary(max_size=120))
def test_a_well_framed_garbage_body_is_malformed_and_nothing_else(
    level: int, first: int, body: bytes
) -> None:
    feed_tolerantly(level, [bytes((first, len(body))), body])


@given(conversations(), st.data())
def test_a_damaged_packet_is_malformed_and_nothing_else(
    conversation: Conversation, data: st.DataObject
) -> None:
    level, sent = conversation
    damaged = bytearray(b"".join(encode(packet, level) for packet in sent))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    feed_tolerantly(level, [bytes(damaged)])


MUTATIONS = int(os.environ.get("OTA_TEST_MUTATIONS", "3000"))
"""How many damaged streams the decoder is fed; 100,000 take about a minute."""


def test_streams_damaged_in_many_places_end_in_packets_or_as_malformed() -> None:
    seed = secrets.randbits(32)
    chance = random.Random(seed)  # noqa: S311
    whole = [
        CONNECT_5 + encode(codec.Publish("/ota/device/inform/a/b", b"{}", 1, 7), MQTT_5),
        CONNECT + encode(codec.Subscribe(1, (("a/+", 1), ("b/#", 0)))) + encode(codec.Disconnect()),
        CONNECT_5 + encode(codec.Disconnect(4, {Property.SESSION_EXPIRY: 9}), MQTT_5),
    ]
    for _ in range(MUTATIONS):
        stream = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(stream) + 1)
            match chance.randrange(4):
                case 0:
                    stream[at : at + 1] = chance.randbytes(1)
                case 1:
                    stream[at:at] = chance.randbytes(chance.randint(1, 8))
                case 2:
                    del stream[at : at + chance.randint(1, 8)]
                case _:
                    stream[at:at] = chance.choice((b"\xff\xff\xff\x7f", b"\0\0", b"\xff\xff", b"\x26"))
        try:
            feed_tolerantly(MQTT_3_1_1, [bytes(stream)])
        except Exception as error:
            raise AssertionError(f"seed {seed}: {bytes(stream)!r}") from error


def feed_tolerantly(level: int, chunks: list[bytes]) -> None:
    decoder = Decoder(max_size=1000, level=level)
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                assert isinstance(packet, codec.Packet)
    except MalformedPacket:
        pass


CONNECT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab"
# With receive maximum 5 and the user property a=b.
CONNECT_5 = b"\x10\x19\x00\x04MQTT\x05\x02\x00\x3c\x0a\x21\x00\x05\x26\x00\x01a\x00\x01b\x00\x02ab"


def test_connect_as_the_specification_writes_it() -> None:
    assert Decoder().feed(CONNECT) == [codec.Connect("ab")]
    assert encode(codec.Connect("ab")) == CONNECT


def test_connect_of_mqtt_5_as_the_specification_writes_it() -> None:
    more = {Property.RECEIVE_MAXIMUM: 5, Property.USER_PROPERTY: (("a", "b"),)}
    assert Decoder().feed(CONNECT_5) == [codec.Connect("ab", level=MQTT_5, properties=more)]
    assert encode(codec.Connect("ab", level=MQTT_5, properties=more)) == CONNECT_5


@pytest.mark.parametrize(
    ("before_5", "of_5", "packet"),
    [
        (b"\x20\x02\x00\x04", b"\x20\x03\x00\x86\x00", codec.ConnAck(codec.ConnectCode.BAD_CREDENTIALS)),
        (b"\x40\x02\x00\x07", b"\x40\x02\x00\x07", codec.PubAck(7)),
        (b"\x40\x02\x00\x07", b"\x40\x03\x00\x07\x10", codec.PubAck(7, 16)),
        (b"\x90\x03\x00\x07\x80", b"\x90\x04\x00\x07\x00\x97", codec.SubAck(7, (0x97,))),
        (b"\xb0\x02\x00\x07", b"\xb0\x04\x00\x07\x00\x11", codec.UnsubAck(7, (0x11,))),
        (b"\xe0\x00", b"\xe0\x01\x8e", codec.Disconnect(0x8E)),
    ],
)
def test_an_answer_is_said_as_the_version_can_say_it(
    before_5: bytes, of_5: bytes, packet: codec.Packet
) -> None:
    assert encode(packet) == before_5
    assert encode(packet, MQTT_5) == of_5


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x30\x04\x00\x00\x00x", id="empty topic without an alias"),
        pytest.param(b"\x30\x05\x00\x01a\x01\x7f", id="unknown property"),
        pytest.param(b"\x30\x07\x00\x01a\x03\x21\x00\x05", id="receive maximum on PUBLISH"),
        pytest.param(b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00", id="a property twice"),
        pytest.param(b"\x30\x06\x00\x01a\x02\x01\x02", id="a flag of 2"),
        pytest.param(b"\x30\x07\x00\x01a\x03\x23\x00\x00", id="topic alias 0"),
        pytest.param(b"\x30\x05\x00\x01a\x05\x01", id="properties longer than the packet"),
        pytest.param(b"\x30\x07\x00\x01a\xff\xff\xff\xff", id="property length of five bytes"),
        pytest.param(b"\x82\x07\x00\x01\x00\x00\x01a\x40", id="reserved subscription option"),
        pytest.param(b"\x82\x07\x00\x01\x00\x00\x01a\x30", id="retain handling 3"),
        pytest.param(b"\xf0\x00", id="AUTH"),
    ],
)
def test_what_mqtt_5_forbids_is_malformed(stream: bytes) -> None:
    with pytest.raises(MalformedPacket):
        Decoder(level=MQTT_5).feed(stream)


def test_the_other_options_of_a_subscription_are_read_over() -> None:
    stream = b"\x82\x07\x00\x01\x00\x00\x01a\x2d"
    assert Decoder(level=MQTT_5).feed(stream) == [codec.Subscribe(1, (("a", 1),))]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x00\x00", id="packet type 0"),
        pytest.param(b"\xf0\x00", id="packet type 15"),
        pytest.param(b"\xc1\x00", id="flags on PINGREQ"),
        pytest.param(b"G", id="the first byte of GET, before any other"),
        pytest.param(b"\xc0\x01\x00", id="body on PINGREQ"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="length of five bytes"),
        pytest.param(b"\x36\x05\x00\x01a\x00\x01", id="QoS 3"),
        pytest.param(b"\x32\x05\x00\x01a\x00\x00", id="packet id 0"),
        pytest.param(b"\x38\x03\x00\x01a", id="DUP with QoS 0"),
        pytest.param(b"\x30\x03\x00\x01+", id="publish to a wildcard"),
        pytest.param(b"\x30\x02\x00\x00", id="empty topic"),
        pytest.param(b"\x30\x03\x00\x01\x00", id="NUL in the topic"),
        pytest.param(b"\x30\x03\x00\x01\xff", id="topic not UTF-8"),
        pytest.param(b"\x30\x05\x00\x03\xed\xa0\x80", id="surrogate in the topic"),
        pytest.param(b"\x82\x02\x00\x01", id="SUBSCRIBE without a filter"),
        pytest.param(b"\x80\x06\x00\x01\x00\x01a\x00", id="SUBSCRIBE without its flag"),
        pytest.param(b"\x8a\x06\x00\x01\x00\x01a\x00", id="SUBSCRIBE with DUP on 3.1.1"),
        pytest.param(CONNECT.replace(b"\x04\x02", b"\x04\x03"), id="reserved connect flag"),
        pytest.param(CONNECT.replace(b"\x04\x02", b"\x04\x42"), id="password without user name"),
        pytest.param(CONNECT.replace(b"\x04\x02", b"\x04\x22"), id="will bits without will"),
    ],
)
def test_what_the_specification_forbids_is_malformed(stream: bytes) -> None:
    with pytest.raises(MalformedPacket):
        Decoder().feed(stream)


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 6), (b"MQTT", 3), (b"HTTP", 4), (b"MQTT", 0x84)])
def test_other_protocols_are_told_apart_from_garbage(name: bytes, level: int) -> None:
    with pytest.raises(codec.UnsupportedProtocol):
        Decoder().feed(CONNECT.replace(b"MQTT\x04", name + bytes((level,))))


def test_mqtt_3_1_may_repeat_a_subscribe_with_dup() -> None:
    decoder = Decoder()
    decoder.feed(encode(codec.Connect("ab", level=codec.MQTT_3_1)))
    assert decoder.feed(b"\x8a\x06\x00\x01\x00\x01a\x01") == [codec.Subscribe(1, (("a", 1),))]


def test_a_packet_above_the_bound_is_refused_before_its_body_arrives() -> None:
    assert Decoder(max_size=200).feed(b"\x30\xc8\x01") == []
    with pytest.raises(codec.PacketTooLarge):
        Decoder(max_size=200).feed(b"\x30\xc9\x01")


def test_the_first_packet_may_have_a_bound_of_its_own() -> None:
    long = encode(codec.Publish("a", bytes(50)))
    decoder = Decoder(max_size=200, first_size=20)
    assert len(decoder.feed(CONNECT + long)) == 2
    with pytest.raises(codec.PacketTooLarge):
        Decoder(max_size=200, first_size=20).feed(long)


@pytest.mark.parametrize(
    "encoding",
    [
        partial(encode, codec.Publish("a", qos=1)),
        partial(encode, codec.PubAck(0)),
        partial(encode, codec.PubAck(0x10000)),
        partial(encode, codec.Publish("a" * 0x10000)),
        partial(encode, codec.Connect("a", password=b"secret")),
    ],
)
def test_what_mqtt_cannot_express_is_refused_when_encoding(encoding: partial[bytes]) -> None:
    with pytest.raises(ValueError):
        encoding()
