"""The bytes of MQTT 3.1, 3.1.1 and 5 packets, both directions; no input or output of its own.

Sources: OASIS "MQTT Version 5.0" and "MQTT Version 3.1.1", IBM/Eurotech "MQTT V3.1 Protocol Specification".

Whatever bytes come from outside, `Decoder.feed` returns packets or raises `MalformedPacket`, nothing else.
"""

from __future__ import annotations

from collections.abc import Generator

from devices.brokers.embedded import properties
from devices.brokers.embedded.packets import (
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    REASON_OF_CONNECT_CODE,
    SUBSCRIBE_REFUSED,
    Ack,
    Bare,
    ConnAck,
    Connect,
    ConnectCode,
    Disconnect,
    Kind,
    Packet,
    PacketTooLarge,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    UnsupportedProtocol,
    Will,
)
from devices.brokers.embedded.properties import Properties
from devices.brokers.embedded.reader import (
    LARGEST_VARIABLE,
    MalformedPacket,
    Reader,
    ReasonCode,
    binary,
    packet_id,
    text,
    variable,
)

__all__ = [
    "DEFAULT_MAX_SIZE",
    "MQTT_3_1",
    "MQTT_3_1_1",
    "MQTT_5",
    "SUBSCRIBE_REFUSED",
    "ConnAck",
    "Connect",
    "ConnectCode",
    "Decoder",
    "Disconnect",
    "MalformedPacket",
    "Packet",
    "PacketTooLarge",
    "PingReq",
    "PingResp",
    "PubAck",
    "PubComp",
    "PubRec",
    "PubRel",
    "Publish",
    "ReasonCode",
    "SubAck",
    "Subscribe",
    "UnsubAck",
    "Unsubscribe",
    "UnsupportedProtocol",
    "Will",
    "encode",
]

DEFAULT_MAX_SIZE = 256 * 1024

_PROTOCOL_NAMES = {MQTT_3_1: b"MQIsdp", MQTT_3_1_1: b"MQTT", MQTT_5: b"MQTT"}

_ACKS: dict[int, type[Ack]] = {
    Kind.PUBACK: PubAck,
    Kind.PUBREC: PubRec,
    Kind.PUBREL: PubRel,
    Kind.PUBCOMP: PubComp,
}
_BARE: dict[int, type[Bare]] = {Kind.PINGREQ: PingReq, Kind.PINGRESP: PingResp}
_KIND_OF: dict[type[Ack] | type[Bare], int] = {cls: kind for kind, cls in (*_ACKS.items(), *_BARE.items())}
_KINDS = frozenset(Kind)
_FLAGS_0010 = frozenset({Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE})


class Decoder:
    """Turns a stream of bytes, cut anywhere, into packets.

    `max_size` bounds a packet's remaining length in bytes (its fixed header comes on top), `first_size` that
    of the first packet, which a server reads before it knows the client, and `max_filters` the topic filters
    in one packet. `level` is the protocol's version
    until a CONNECT says which it is. After an error the decoder is of no further use.
    """

    def __init__(
        self,
        max_size: int = DEFAULT_MAX_SIZE,
        first_size: int | None = None,
        level: int = MQTT_3_1_1,
        max_filters: int = 1000,
    ) -> None:
        self._bound = max_size if first_size is None else first_size
        self._max_filters = max_filters
        self.max_size = max_size
        self.level = level
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[Packet]:
        """The packets completed by `data`. Raises MalformedPacket."""
        self.add(data)
        return list(self.packets())

    def add(self, data: bytes | bytearray) -> None:
        """Bytes for `packets`."""
        self._buffer += data

    def packets(self) -> Generator[Packet, None, None]:
        """The complete packets, each read when it is asked for; what is not taken stays. Raises
        MalformedPacket."""
        start = 0
        try:
            while (body := self._locate_body(start)) is not None:
                packet = _decode(
                    self._buffer[start], bytes(self._buffer[body]), self.level, self._max_filters
                )
                if isinstance(packet, Connect):
                    self.level = packet.level
                start, self._bound = body.stop, self.max_size
                yield packet
        finally:
            del self._buffer[:start]

    def allow(self, max_size: int) -> None:
        """From now on packets may be so large."""
        self.max_size = self._bound = max_size

    def _locate_body(self, start: int) -> slice | None:
        """Where the body of the packet at `start` lies, or None while it is not complete."""
        buffer, length = self._buffer, 0
        if start < len(buffer):
            self._check_first_byte(buffer[start])
        for index in range(4):
            position = start + 1 + index
            if position >= len(buffer):
                return None
            length |= (buffer[position] & 0x7F) << (7 * index)
            if buffer[position] < 0x80:
                break
        else:
            raise MalformedPacket("remaining length has more than four bytes")
        if length > self._bound:
            raise PacketTooLarge(f"{length} bytes announced, {self._bound} allowed")
        body = slice(position + 1, position + 1 + length)
        return body if body.stop <= len(buffer) else None

    def _check_first_byte(self, first: int) -> None:
        kind, flags = first >> 4, first & 0x0F
        if kind == Kind.PUBLISH:
            return
        if self.level == MQTT_3_1 and kind in _FLAGS_0010:
            flags &= 0b0111  # MQTT 3.1 sets DUP on these when it repeats them
        if kind not in _KINDS or flags != (0b0010 if kind in _FLAGS_0010 else 0):
            raise MalformedPacket(f"first byte {first:#04x}")


# ---- from bytes -------------------------------------------------------------------------------------------


def _decode(first: int, content: bytes, level: int, max_filters: int) -> Packet:
    kind, body, is_five = first >> 4, Reader(content), level == MQTT_5
    if kind == Kind.PUBLISH:
        return _decode_publish(first & 0x0F, body, is_five)
    packet = _decode_unflagged(kind, body, is_five, max_filters)
    body.end()
    return packet


def _decode_unflagged(kind: int, body: Reader, is_five: bool, max_filters: int) -> Packet:
    if (ack := _ACKS.get(kind)) is not None:
        return ack(body.packet_id(), *_reason(body, is_five, properties.ACK))
    if (bare := _BARE.get(kind)) is not None:
        return bare()
    match kind:
        case Kind.CONNECT:
            return _decode_connect(body)
        case Kind.CONNACK:
            return _decode_connack(body, is_five)
        case Kind.DISCONNECT:
            return Disconnect(*_reason(body, is_five, properties.DISCONNECT))
        case Kind.SUBSCRIBE:
            number, more = body.packet_id(), _more(body, is_five, properties.SUBSCRIBE)
            return Subscribe(
                number,
                body.some(lambda: (body.topic(), _wanted(body.byte(), body, is_five)), max_filters),
                more,
            )
        case Kind.SUBACK:
            number, more = body.packet_id(), _more(body, is_five, properties.ACK)
            return SubAck(number, body.some(lambda: _granted(body, is_five)), more)
        case Kind.UNSUBSCRIBE:
            number, more = body.packet_id(), _more(body, is_five, properties.UNSUBSCRIBE)
            return Unsubscribe(number, body.some(body.topic, max_filters), more)
        case _:
            number, more = body.packet_id(), _more(body, is_five, properties.ACK)
            return UnsubAck(number, body.some(body.byte) if is_five else (), more)


def _more(body: Reader, is_five: bool, permitted: frozenset[properties.Property]) -> Properties | None:
    return properties.read(body, permitted) if is_five else None


def _reason(
    body: Reader, is_five: bool, permitted: frozenset[properties.Property]
) -> tuple[int, Properties | None]:
    """The reason and properties that MQTT 5 may leave out at a packet's end."""
    if not is_five or body.at_end():
        return ReasonCode.SUCCESS, None
    reason = body.byte()
    return reason, None if body.at_end() else properties.read(body, permitted)


def _wanted(options: int, body: Reader, is_five: bool) -> int:
    """The QoS in a subscription's options. MQTT 5's others concern what does not occur here: retained
    messages, and messages of one's own."""
    if is_five:
        if options & 0b1100_0000 or options & 0b0011_0000 == 0b0011_0000:
            raise MalformedPacket(f"subscription options {options:08b}")
        options &= 0b11
    return body.qos(options)


def _granted(body: Reader, is_five: bool) -> int:
    code = body.byte()
    return code if code == SUBSCRIBE_REFUSED or (is_five and code > SUBSCRIBE_REFUSED) else body.qos(code)


def _decode_publish(flags: int, body: Reader, is_five: bool) -> Publish:
    qos = body.qos(flags >> 1 & 0b11)
    dup = bool(flags & 0b1000)
    if dup and not qos:
        raise MalformedPacket("DUP with QoS 0")
    topic = body.text()
    if "+" in topic or "#" in topic:
        raise MalformedPacket("wildcard in a topic name")
    number = body.packet_id() if qos else None
    more = _more(body, is_five, properties.PUBLISH)
    if not topic and not (more and properties.Property.TOPIC_ALIAS in more):
        raise MalformedPacket("empty topic")
    return Publish(topic, body.rest(), qos, number, dup, bool(flags & 1), more)


def _decode_connect(body: Reader) -> Connect:
    name, level = body.binary(), body.byte()
    if _PROTOCOL_NAMES.get(level) != name:
        is_newer = name == b"MQTT" and MQTT_5 < level < 0x80
        raise UnsupportedProtocol(f"protocol {name[:16]!r} level {level}", is_newer=is_newer)
    is_five = level == MQTT_5
    flags, keep_alive = body.byte(), body.uint16()
    has_name, has_password, has_will = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x04)
    if flags & 0x01 or (has_password and not has_name and not is_five) or (flags & 0x38 and not has_will):
        raise MalformedPacket(f"connect flags {flags:08b}")
    will_qos = body.qos(flags >> 3 & 0b11)
    more = _more(body, is_five, properties.CONNECT)
    return Connect(
        client_id=body.text(),
        will=_decode_will(body, will_qos, bool(flags & 0x20), is_five) if has_will else None,
        username=body.text() if has_name else None,
        password=body.binary() if has_password else None,
        keep_alive=keep_alive,
        clean=bool(flags & 0x02),
        level=level,
        properties=more,
    )


def _decode_will(body: Reader, qos: int, retain: bool, is_five: bool) -> Will:
    more = _more(body, is_five, properties.WILL)
    return Will(body.topic(), body.binary(), qos, retain, more)


def _decode_connack(body: Reader, is_five: bool) -> ConnAck:
    present, value = body.byte(), body.byte()
    if present > 1 or (present and value):
        raise MalformedPacket(f"CONNACK {present} {value}")
    try:
        code = ReasonCode(value) if is_five else ConnectCode(value)
    except ValueError:
        raise MalformedPacket(f"CONNACK {value}") from None
    return ConnAck(code, bool(present), _more(body, is_five, properties.CONNACK))


# ---- to bytes ---------------------------------------------------------------------------------------------


def encode(packet: Packet, level: int = MQTT_3_1_1) -> bytes:
    """The bytes of `packet`. Raises ValueError for what MQTT cannot express (a text above 65,535 bytes).

    `level` is the version that the connection speaks; a CONNECT says its own.
    """
    is_five = level == MQTT_5
    match packet:
        case Publish():
            return _encode_publish(packet, is_five)
        case PubAck() | PubRec() | PubRel() | PubComp():
            body = packet_id(packet.packet_id) + _encode_reason(packet, is_five)
            return _frame(_KIND_OF[type(packet)], body)
        case PingReq() | PingResp():
            return _frame(_KIND_OF[type(packet)], b"")
        case Disconnect():
            return _frame(Kind.DISCONNECT, _encode_reason(packet, is_five))
        case Connect():
            return _encode_connect(packet)
        case ConnAck():
            return _encode_connack(packet, is_five)
        case Subscribe():
            wanted = b"".join(text(topic) + bytes((qos,)) for topic, qos in packet.filters)
            return _frame(Kind.SUBSCRIBE, _numbered(packet, is_five) + wanted)
        case SubAck():
            codes = packet.codes if is_five else (min(code, SUBSCRIBE_REFUSED) for code in packet.codes)
            return _frame(Kind.SUBACK, _numbered(packet, is_five) + bytes(codes))
        case Unsubscribe():
            return _frame(Kind.UNSUBSCRIBE, _numbered(packet, is_five) + b"".join(map(text, packet.filters)))
        case UnsubAck():
            return _frame(Kind.UNSUBACK, _numbered(packet, is_five) + bytes(packet.codes if is_five else ()))


def _numbered(packet: Subscribe | SubAck | Unsubscribe | UnsubAck, is_five: bool) -> bytes:
    return packet_id(packet.packet_id) + (properties.write(packet.properties) if is_five else b"")


def _encode_reason(packet: Ack | Disconnect, is_five: bool) -> bytes:
    if not is_five or (not packet.reason and not packet.properties):
        return b""
    more = properties.write(packet.properties) if packet.properties else b""
    return bytes((packet.reason,)) + more


def _encode_publish(packet: Publish, is_five: bool) -> bytes:
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    head = text(packet.topic)
    if packet.qos:
        head += packet_id(packet.packet_id)
    if is_five:
        head += properties.write(packet.properties)
    return _frame(Kind.PUBLISH, head + packet.payload, flags)


def _encode_connect(packet: Connect) -> bytes:
    is_five = packet.level == MQTT_5
    flags = packet.clean << 1
    payload = properties.write(packet.properties) if is_five else b""
    payload += text(packet.client_id)
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        payload += properties.write(packet.will.properties) if is_five else b""
        payload += text(packet.will.topic) + binary(packet.will.payload)
    if packet.username is not None:
        flags |= 0x80
        payload += text(packet.username)
    if packet.password is not None:
        if packet.username is None and not is_five:
            raise ValueError("a password needs a user name")
        flags |= 0x40
        payload += binary(packet.password)
    name = binary(_PROTOCOL_NAMES[packet.level])
    keep_alive = packet.keep_alive.to_bytes(2, "big")
    return _frame(Kind.CONNECT, name + bytes((packet.level, flags)) + keep_alive + payload)


def _encode_connack(packet: ConnAck, is_five: bool) -> bytes:
    code: int = packet.code
    if not is_five:
        return _frame(Kind.CONNACK, bytes((packet.session_present, code)))
    if isinstance(packet.code, ConnectCode):
        code = REASON_OF_CONNECT_CODE[packet.code]
    return _frame(Kind.CONNACK, bytes((packet.session_present, code)) + properties.write(packet.properties))


def _frame(kind: int, body: bytes, flags: int = 0) -> bytes:
    if len(body) > LARGEST_VARIABLE:
        raise ValueError(f"{len(body)} bytes do not fit into a packet")
    first = (kind << 4) | (0b0010 if kind in _FLAGS_0010 else flags)
    return bytes((first,)) + variable(len(body)) + body
