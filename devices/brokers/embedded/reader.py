"""The data types of MQTT (section 1.5 of its specifications) in bytes: a cursor to read them, and writers."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")

LARGEST_VARIABLE = 268_435_455


class ReasonCode(IntEnum):
    """What MQTT 5 says in its answers (section 2.4); only those that occur here."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1


class MalformedPacket(Exception):  # noqa: N818 - the specification's own word
    """The bytes are not MQTT; the only right answer is to close the connection.

    `reason` is what MQTT 5 tells the client, where it is another one than "malformed packet".
    """

    def __init__(self, text: str, reason: ReasonCode | None = None) -> None:
        super().__init__(text)
        self.reason = reason


class Reader:
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

    def at_end(self) -> bool:
        return self.position == len(self.content)

    def rest(self) -> bytes:
        return self.take(len(self.content) - self.position)

    def end(self) -> None:
        if not self.at_end():
            raise MalformedPacket("bytes left over")

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def variable(self) -> int:
        """A number of one to four bytes, seven bits each, the lowest first."""
        value = 0
        for shift in range(0, 28, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedPacket("a variable byte integer has more than four bytes")

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

    def some(self, read: Callable[[], T], most: int = 0xFFFF) -> tuple[T, ...]:
        """All that `read` yields up to the packet's end, at least one and at most so many."""
        items = [read()]
        while self.position < len(self.content):
            if len(items) >= most:
                raise MalformedPacket(f"more than {most} in one packet", ReasonCode.QUOTA_EXCEEDED)
            items.append(read())
        return tuple(items)


def variable(value: int) -> bytes:
    if not 0 <= value <= LARGEST_VARIABLE:
        raise ValueError(f"{value} does not fit into four bytes of seven bits")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"{len(value)} bytes where 65,535 is the most")
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    return binary(value.encode())


def packet_id(value: int | None) -> bytes:
    if not value or value > 0xFFFF:
        raise ValueError(f"packet id {value}")
    return value.to_bytes(2, "big")
