from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.embedded import codec
from devices.brokers.embedded.codec import Decoder, MalformedPacket, encode

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
filters = texts.filter(bool)
names = filters.filter(lambda text: "+" not in text and "#" not in text)
ids = st.integers(1, 0xFFFF)
blobs = st.binary(max_size=300)
qos = st.integers(0, 2)


def publish(level: int) -> st.SearchStrategy[codec.Publish]:
    return st.builds(
        codec.Publish,
        names,
        blobs,
        st.just(level),
        ids if level else st.none(),
        dup=st.booleans() if level else st.just(False),
        retain=st.booleans(),
    )


def connect(**credentials: st.SearchStrategy[object]) -> st.SearchStrategy[codec.Connect]:
    return st.builds(
        codec.Connect,
        texts,
        keep_alive=st.integers(0, 0xFFFF),
        clean=st.booleans(),
        will=st.none() | st.builds(codec.Will, filters, blobs, qos, st.booleans()),
        level=st.sampled_from([codec.MQTT_3_1, codec.MQTT_3_1_1]),
        **credentials,
    )


packets: st.SearchStrategy[codec.Packet] = st.one_of(
    connect(),
    connect(username=texts, password=st.none() | blobs),
    st.builds(codec.ConnAck, st.sampled_from(codec.ConnectCode)),
    st.just(codec.ConnAck(session_present=True)),
    *map(publish, range(3)),
    *(
        st.builds(ack, ids)
        for ack in (codec.PubAck, codec.PubRec, codec.PubRel, codec.PubComp, codec.UnsubAck)
    ),
    st.builds(codec.Subscribe, ids, st.lists(st.tuples(filters, qos), min_size=1, max_size=5).map(tuple)),
    st.builds(codec.SubAck, ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1).map(tuple)),
    st.builds(codec.Unsubscribe, ids, st.lists(filters, min_size=1, max_size=5).map(tuple)),
    st.builds(codec.PingReq),
    st.builds(codec.PingResp),
    st.builds(codec.Disconnect),
)


@given(st.lists(packets, max_size=6), st.lists(st.integers(0, 2000), max_size=8))
def test_packets_survive_the_wire_wherever_the_stream_is_cut(
    sent: list[codec.Packet], cuts: list[int]
) -> None:
    stream = b"".join(map(encode, sent))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    decoder = Decoder()
    received = [packet for start, end in pairwise(edges) for packet in decoder.feed(stream[start:end])]
    assert received == sent


@given(packets)
def test_packets_arrive_byte_by_byte(packet: codec.Packet) -> None:
    *early, last = encode(packet)
    decoder = Decoder()
    assert not any(decoder.feed(bytes((byte,))) for byte in early)
    assert decoder.feed(bytes((last,))) == [packet]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_is_malformed_and_nothing_else(chunks: list[bytes]) -> None:
    feed_tolerantly(chunks)


@given(st.integers(0, 255), st.binary(max_size=120))
def test_a_well_framed_garbage_body_is_malformed_and_nothing_else(first: int, body: bytes) -> None:
    feed_tolerantly([bytes((first, len(body))), body])


@given(packets, st.data())
def test_a_damaged_packet_is_malformed_and_nothing_else(packet: codec.Packet, data: st.DataObject) -> None:
    damaged = bytearray(encode(packet))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    feed_tolerantly([bytes(damaged)])


def feed_tolerantly(chunks: list[bytes]) -> None:
    decoder = Decoder(max_size=1000)
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                assert isinstance(packet, codec.Packet)
    except MalformedPacket:
        pass


CONNECT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab"


def test_connect_as_the_specification_writes_it() -> None:
    assert Decoder().feed(CONNECT) == [codec.Connect("ab")]
    assert encode(codec.Connect("ab")) == CONNECT


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


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 5), (b"MQTT", 3), (b"HTTP", 4), (b"MQTT", 0x84)])
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
