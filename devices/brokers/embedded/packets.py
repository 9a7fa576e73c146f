"""MQTT packets as dataclasses, of the versions 3.1, 3.1.1 and 5.

What only MQTT 5 knows (properties, reason codes) is left out when an older version is encoded, and has its
neutral value when one is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from devices.brokers.embedded.properties import Properties
from devices.brokers.embedded.reader import MalformedPacket, ReasonCode

MQTT_3_1 = 3
MQTT_3_1_1 = 4
MQTT_5 = 5
SUBSCRIBE_REFUSED = 0x80


class UnsupportedProtocol(MalformedPacket):
    """A CONNECT of a protocol that is none of ours; `is_newer` if it is MQTT beyond version 5."""

    def __init__(self, text: str, *, is_newer: bool = False) -> None:
        super().__init__(text)
        self.is_newer = is_newer


class PacketTooLarge(MalformedPacket):
    """The packet's announced length is above the decoder's bound."""


class ConnectCode(IntEnum):
    """Return codes of CONNACK before MQTT 5."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


REASON_OF_CONNECT_CODE = {
    ConnectCode.ACCEPTED: ReasonCode.SUCCESS,
    ConnectCode.UNACCEPTABLE_PROTOCOL: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    ConnectCode.IDENTIFIER_REJECTED: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    ConnectCode.SERVER_UNAVAILABLE: ReasonCode.SERVER_UNAVAILABLE,
    ConnectCode.BAD_CREDENTIALS: ReasonCode.BAD_CREDENTIALS,
    ConnectCode.NOT_AUTHORIZED: ReasonCode.NOT_AUTHORIZED,
}


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
    properties: Properties | None = None


@dataclass(slots=True)
class Connect:
    client_id: str
    username: str | None = None
    password: bytes | None = None
    keep_alive: int = 60  # seconds; 0 is "never"
    clean: bool = True
    will: Will | None = None
    level: int = MQTT_3_1_1
    properties: Properties | None = None


@dataclass(slots=True)
class ConnAck:
    code: ConnectCode | ReasonCode = ConnectCode.ACCEPTED
    session_present: bool = False
    properties: Properties | None = None


@dataclass(slots=True)
class Publish:
    topic: str
    payload: bytes = b""
    qos: int = 0
    packet_id: int | None = None  # 1..65535 when qos > 0, else None
    dup: bool = False
    retain: bool = False
    properties: Properties | None = None


@dataclass(slots=True)
class PubAck:
    packet_id: int
    reason: int = ReasonCode.SUCCESS
    properties: Properties | None = None


@dataclass(slots=True)
class PubRec:
    packet_id: int
    reason: int = ReasonCode.SUCCESS
    properties: Properties | None = None


@dataclass(slots=True)
class PubRel:
    packet_id: int
    reason: int = ReasonCode.SUCCESS
    properties: Properties | None = None


@dataclass(slots=True)
class PubComp:
    packet_id: int
    reason: int = ReasonCode.SUCCESS
    properties: Properties | None = None


@dataclass(slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[tuple[str, int], ...]  # (topic filter, wanted QoS)
    properties: Properties | None = None


@dataclass(slots=True)
class SubAck:
    packet_id: int
    codes: tuple[int, ...]  # granted QoS, or a reason from 0x80 (SUBSCRIBE_REFUSED before MQTT 5), per filter
    properties: Properties | None = None


@dataclass(slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties | None = None


@dataclass(slots=True)
class UnsubAck:
    packet_id: int
    codes: tuple[int, ...] = ()  # per filter; none before MQTT 5
    properties: Properties | None = None


@dataclass(slots=True)
class PingReq:
    pass


@dataclass(slots=True)
class PingResp:
    pass


@dataclass(slots=True)
class Disconnect:
    reason: int = ReasonCode.SUCCESS
    properties: Properties | None = None


Ack = PubAck | PubRec | PubRel | PubComp
Bare = PingReq | PingResp
Packet = Connect | ConnAck | Publish | Ack | Subscribe | SubAck | Unsubscribe | UnsubAck | Bare | Disconnect
