"""MQTT 3.1 and 3.1.1 packets as dataclasses, and their bytes. Both directions; no input or output of its own.

Sources: OASIS "MQTT Version 3.1.1" and IBM/Eurotech "MQTT V3.1 Protocol Specification".

Whatever bytes come from outside, `Decoder.feed` returns packets or raises `MalformedPacket`, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")

MQTT_3_1 = 3
MQTT_3_1_1 = 4
SUBSCRIBE_REFUSED = 0x80
DEFAULT_MAX_SIZE = 256 * 1024

_PROTOCOL_NAMES = {MQTT_3_1: b"MQIsdp", MQTT_3_1_1: b"MQTT"}
_LARGEST_REMAINING_LENGTH = 268_435_455


class MalformedPacket(Exception):  # noqa: N818 - the specification's own word
    """The bytes are not MQTT; the only right answer is to close the connection."""


class UnsupportedProtocol(MalformedPacket):
    """A CONNECT of a protocol other than MQTT 3.1 and 3.1.1 (the answer is CONNACK 1)."""


class PacketTooLarge(MalformedPacket):
    """The packet's announced length is above the decoder's bound."""


class ConnectCode(IntEnum):
    """Return codes of CONNACK."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


class Kind(IntEnum):
    """Control packet types: the upper half of a packet's first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


@dataclass(slots=True)
class Will:
    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(slots=True)
class Connect:
    client_id: str
    username: str | None = None
    password: bytes | None = None
    keep_alive: int = 60  # seconds; 0 is "never"
    clean: bool = True
    will: Will | None = None
    level: int = MQTT_3_1_1


@dataclass(slots=True)
class ConnAck:
    code: ConnectCode = ConnectCode.ACCEPTED
    session_present: bool = False


@dataclass(slots=True)
class Publish:
    topic: str
    payload: bytes = b""
    qos: int = 0
    packet_id: int | None = None  # 1..65535 when qos > 0, else None
    dup: bool = False
    retain: bool = False


@dataclass(slots=True)
class PubAck:
    packet_id: int


@dataclass(slots=True)
class PubRec:
    packet_id: int


@dataclass(slots=True)
class PubRel:
    packet_id: int


@dataclass(slots=True)
class PubComp:
    packet_id: int


@dataclass(slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[tuple[str, int], ...]  # (topic filter, wanted QoS)


@dataclass(slots=True)
class SubAck:
    packet_id: int
    codes: tuple[int, ...]  # granted QoS, or SUBSCRIBE_REFUSED, per filter


@dataclass(slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(slots=True)
class UnsubAck:
    packet_id: int


@dataclass(slots=True)
class PingReq:
    pass


@dataclass(slots=True)
class PingResp:
    pass


@dataclass(slots=True)
class Disconnect:
    pass


Ack = PubAck | PubRec | PubRel | PubComp | UnsubAck
Bare = PingReq | PingResp | Disconnect
Packet = Connect | ConnAck | Publish | Ack | Subscribe | SubAck | Unsubscribe | Bare

_ACKS: dict[int, type[Ack]] = {
    Kind.PUBACK: PubAck,
    Kind.PUBREC: PubRec,
    Kind.PUBREL: PubRel,
    Kind.PUBCOMP: PubComp,
    Kind.UNSUBACK: UnsubAck,
}
_BARE: dict[int, type[Bare]] = {
    Kind.PINGREQ: PingReq,
    Kind.PINGRESP: PingResp,
    Kind.DISCONNECT: Disconnect,
}
_KIND_OF: dict[type[Ack] | type[Bare], int] = {cls: kind for kind, cls in (*_ACKS.items(), *_BARE.items())}
_KINDS = frozenset(Kind)
_FLAGS_0010 = frozenset({Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE})


def encode(packet: Packet) -> bytes:
    """The bytes of `packet`. Raises ValueError for what MQTT cannot express (a text above 65,535 bytes)."""
    match packet:
        case Publish():
            return _encode_publish(packet)
        case PubAck() | PubRec() | PubRel() | PubComp() | UnsubAck():
            return _frame(_KIND_OF[type(packet)], _packet_id(packet.packet_id))
        case PingReq() | PingResp() | Disconnect():
            return _frame(_KIND_OF[type(packet)], b"")
        case Connect():
            return _encode_connect(packet)
        case ConnAck():
            return _frame(Kind.CONNACK, bytes((packet.session_present, packet.code)))
        case Subscribe():
            wanted = b"".join(_text(topic) + bytes((qos,)) for topic, qos in packet.filters)
            return _frame(Kind.SUBSCRIBE, _packet_id(packet.packet_id) + wanted)
        case SubAck():
            return _frame(Kind.SUBACK, _packet_id(packet.packet_id) + bytes(packet.codes))
        case Unsubscribe():
            return _frame(
                Kind.UNSUBSCRIBE, _packet_id(packet.packet_id) + b"".join(map(_text, packet.filters))
            )


class Decoder:
    """Turns a stream of bytes, cut anywhere, into packets.

    `max_size` bounds a packet's remaining length in bytes (its fixed header comes on top), `first_size` that
    of the first packet, which a server reads before it knows the client. After an error the decoder is of no
    further use.
    """

    def __init__(self, max_size: int = DEFAULT_MAX_SIZE, first_size: int | None = None) -> None:
        self._bound = max_size if first_size is None else first_size
        self._later_bound = max_size
        self._buffer = bytearray()
        self._level = MQTT_3_1_1

    def feed(self, data: bytes | bytearray) -> list[Packet]:
        """The packets completed by `data`. Raises MalformedPacket."""
        buffer = self._buffer
        buffer += data
        packets: list[Packet] = []
        start = 0
        while (body := self._locate_body(start)) is not None:
            packet = _decode(buffer[start], bytes(buffer[body]))
            if isinstance(packet, Connect):
                self._level = packet.level
            packets.append(packet)
            start, self._bound = body.stop, self._later_bound
        del buffer[:start]
        return packets

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
        if self._level == MQTT_3_1 and kind in _FLAGS_0010:
            flags &= 0b0111  # MQTT 3.1 sets DUP on these when it repeats them
        if kind not in _KINDS or flags != (0b0010 if kind in _FLAGS_0010 else 0):
            raise MalformedPacket(f"first byte {first:#04x}")


def _decode(first: int, content: bytes) -> Packet:
    kind, body = first >> 4, _Body(content)
    if kind == Kind.PUBLISH:
        return _decode_publish(first & 0x0F, body)
    packet = _decode_unflagged(kind, body)
    body.end()
    return packet


def _decode_unflagged(kind: int, body: _Body) -> Packet:
    if (ack := _ACKS.get(kind)) is not None:
        return ack(body.packet_id())
    if (bare := _BARE.get(kind)) is not None:
        return bare()
    match kind:
        case Kind.CONNECT:
            return _decode_connect(body)
        case Kind.CONNACK:
            return _decode_connack(body)
        case Kind.SUBSCRIBE:
            return Subscribe(body.packet_id(), body.some(lambda: (body.topic(), body.qos(body.byte()))))
        case Kind.SUBACK:
            return SubAck(body.packet_id(), body.some(body.granted))
        case _:
            return Unsubscribe(body.packet_id(), body.some(body.topic))


def _decode_publish(flags: int, body: _Body) -> Publish:
    qos = body.qos(flags >> 1 & 0b11)
    dup = bool(flags & 0b1000)
    if dup and not qos:
        raise MalformedPacket("DUP with QoS 0")
    topic = body.topic()
    if "+" in topic or "#" in topic:
        raise MalformedPacket("wildcard in a topic name")
    packet_id = body.packet_id() if qos else None
    return Publish(topic, body.rest(), qos, packet_id, dup, bool(flags & 1))


def _decode_connect(body: _Body) -> Connect:
    name, level = body.binary(), body.byte()
    if _PROTOCOL_NAMES.get(level) != name:
        raise UnsupportedProtocol(f"protocol {name[:16]!r} level {level}")
    flags, keep_alive = body.byte(), body.uint16()
    has_name, has_password, has_will = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x04)
    if flags & 0x01 or (has_password and not has_name) or (flags & 0x38 and not has_will):
        raise MalformedPacket(f"connect flags {flags:08b}")
    will_qos = body.qos(flags >> 3 & 0b11)
    client_id = body.text()
    return Connect(
        client_id=client_id,
        will=Will(body.topic(), body.binary(), will_qos, bool(flags & 0x20)) if has_will else None,
        username=body.text() if has_name else None,
        password=body.binary() if has_password else None,
        keep_alive=keep_alive,
        clean=bool(flags & 0x02),
        level=level,
    )


def _decode_connack(body: _Body) -> ConnAck:
    present, code = body.byte(), body.byte()
    if present > 1 or code > max(ConnectCode) or (present and code):
        raise MalformedPacket(f"CONNACK {present} {code}")
    return ConnAck(ConnectCode(code), bool(present))


class _Body:
    """A cursor over one packet's body; whatever is missing or wrong raises MalformedPacket."""

    __slots__ = ("content", "position")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.content):
            raise MalformedPacket("packet ends too early")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def rest(self) -> bytes:
        return self.take(len(self.content) - self.position)

    def end(self) -> None:
        if self.position != len(self.content):
            raise MalformedPacket("bytes left over")

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        return self.take(self.uint16())

    def text(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise MalformedPacket("text is not UTF-8") from None
        if "\0" in text:
            raise MalformedPacket("NUL in a text")
        return text

    def topic(self) -> str:
        if not (topic := self.text()):
            raise MalformedPacket("empty topic")
        return topic

    def packet_id(self) -> int:
        if not (packet_id := self.uint16()):
            raise MalformedPacket("packet id 0")
        return packet_id

    def qos(self, value: int) -> int:
        if value > 2:
            raise MalformedPacket(f"QoS {value}")
        return value

    def granted(self) -> int:
        code = self.byte()
        return code if code == SUBSCRIBE_REFUSED else self.qos(code)

    def some(self, read: Callable[[], T]) -> tuple[T, ...]:
        """All that `read` yields up to the packet's end, at least one."""
        items = [read()]
        while self.position < len(self.content):
            items.append(read())
        return tuple(items)


def _encode_publish(packet: Publish) -> bytes:
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    head = _text(packet.topic)
    if packet.qos:
        head += _packet_id(packet.packet_id)
    return _frame(Kind.PUBLISH, head + packet.payload, flags)


def _encode_connect(packet: Connect) -> bytes:
    flags = packet.clean << 1
    payload = _text(packet.client_id)
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        payload += _text(packet.will.topic) + _binary(packet.will.payload)
    if packet.username is not None:
        flags |= 0x80
        payload += _text(packet.username)
    if packet.password is not None:
        if packet.username is None:
            raise ValueError("a password needs a user name")
        flags |= 0x40
        payload += _binary(packet.password)
    name = _binary(_PROTOCOL_NAMES[packet.level])
    keep_alive = packet.keep_alive.to_bytes(2, "big")
    return _frame(Kind.CONNECT, name + bytes((packet.level, flags)) + keep_alive + payload)


def _frame(kind: int, body: bytes, flags: int = 0) -> bytes:
    length = len(body)
    if length > _LARGEST_REMAINING_LENGTH:
        raise ValueError(f"{length} bytes do not fit into a packet")
    head = bytearray(((kind << 4) | (0b0010 if kind in _FLAGS_0010 else flags),))
    while length > 0x7F:
        head.append(0x80 | length & 0x7F)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def _packet_id(value: int | None) -> bytes:
    if not value or value > 0xFFFF:
        raise ValueError(f"packet id {value}")
    return value.to_bytes(2, "big")


def _binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"{len(value)} bytes where 65,535 is the most")
    return len(value).to_bytes(2, "big") + value


def _text(value: str) -> bytes:
    return _binary(value.encode())
