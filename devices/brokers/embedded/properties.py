"""The properties of MQTT 5 (OASIS "MQTT Version 5.0", section 2.2.2): their table, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from devices.brokers.embedded.reader import MalformedPacket, Reader, binary, text, variable


class Property(IntEnum):
    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY = 0x11  # seconds; FOREVER is "never"
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


Properties = Mapping[Property, Any]
"""Property -> int, str or bytes by its type; USER_PROPERTY -> a tuple of (name, value) pairs."""

FOREVER = 0xFFFF_FFFF

P = Property
PUBLISH = frozenset(
    {
        P.PAYLOAD_FORMAT,
        P.MESSAGE_EXPIRY,
        P.CONTENT_TYPE,
        P.RESPONSE_TOPIC,
        P.CORRELATION_DATA,
        P.SUBSCRIPTION_IDENTIFIER,
        P.TOPIC_ALIAS,
        P.USER_PROPERTY,
    }
)
WILL = (PUBLISH | {P.WILL_DELAY}) - {P.SUBSCRIPTION_IDENTIFIER, P.TOPIC_ALIAS}
CONNECT = frozenset(
    {
        P.SESSION_EXPIRY,
        P.AUTHENTICATION_METHOD,
        P.AUTHENTICATION_DATA,
        P.REQUEST_PROBLEM_INFORMATION,
        P.REQUEST_RESPONSE_INFORMATION,
        P.RECEIVE_MAXIMUM,
        P.TOPIC_ALIAS_MAXIMUM,
        P.USER_PROPERTY,
        P.MAXIMUM_PACKET_SIZE,
    }
)
CONNACK = frozenset(
    {
        P.SESSION_EXPIRY,
        P.ASSIGNED_CLIENT_ID,
        P.SERVER_KEEP_ALIVE,
        P.AUTHENTICATION_METHOD,
        P.AUTHENTICATION_DATA,
        P.RESPONSE_INFORMATION,
        P.SERVER_REFERENCE,
        P.REASON_STRING,
        P.RECEIVE_MAXIMUM,
        P.TOPIC_ALIAS_MAXIMUM,
        P.MAXIMUM_QOS,
        P.RETAIN_AVAILABLE,
        P.USER_PROPERTY,
        P.MAXIMUM_PACKET_SIZE,
        P.WILDCARD_SUBSCRIPTION_AVAILABLE,
        P.SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        P.SHARED_SUBSCRIPTION_AVAILABLE,
    }
)
ACK = frozenset({P.REASON_STRING, P.USER_PROPERTY})
SUBSCRIBE = frozenset({P.SUBSCRIPTION_IDENTIFIER, P.USER_PROPERTY})
UNSUBSCRIBE = frozenset({P.USER_PROPERTY})
DISCONNECT = frozenset({P.SESSION_EXPIRY, P.SERVER_REFERENCE, P.REASON_STRING, P.USER_PROPERTY})

_FLAGS = frozenset(
    {
        P.PAYLOAD_FORMAT,
        P.REQUEST_PROBLEM_INFORMATION,
        P.REQUEST_RESPONSE_INFORMATION,
        P.MAXIMUM_QOS,
        P.RETAIN_AVAILABLE,
        P.WILDCARD_SUBSCRIPTION_AVAILABLE,
        P.SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        P.SHARED_SUBSCRIPTION_AVAILABLE,
    }
)
_NEVER_ZERO = frozenset({P.RECEIVE_MAXIMUM, P.MAXIMUM_PACKET_SIZE, P.SUBSCRIPTION_IDENTIFIER, P.TOPIC_ALIAS})
_TEXTS = frozenset(
    {
        P.CONTENT_TYPE,
        P.RESPONSE_TOPIC,
        P.ASSIGNED_CLIENT_ID,
        P.AUTHENTICATION_METHOD,
        P.RESPONSE_INFORMATION,
        P.SERVER_REFERENCE,
        P.REASON_STRING,
    }
)
_BINARIES = frozenset({P.CORRELATION_DATA, P.AUTHENTICATION_DATA})
_UINT16 = frozenset({P.SERVER_KEEP_ALIVE, P.RECEIVE_MAXIMUM, P.TOPIC_ALIAS_MAXIMUM, P.TOPIC_ALIAS})
_UINT32 = frozenset({P.MESSAGE_EXPIRY, P.SESSION_EXPIRY, P.WILL_DELAY, P.MAXIMUM_PACKET_SIZE})


def read(reader: Reader, permitted: frozenset[Property]) -> Properties | None:
    """The properties at the cursor; None for an empty list. Raises MalformedPacket."""
    length = reader.variable()
    if not length:
        return None
    body = Reader(reader.take(length))
    found: dict[Property, Any] = {}
    while not body.at_end():
        identifier = body.variable()
        try:
            name = Property(identifier)
        except ValueError:
            raise MalformedPacket(f"property {identifier:#x}") from None
        if name not in permitted:
            raise MalformedPacket(f"{name.name} does not belong here")
        if name is P.USER_PROPERTY:
            found.setdefault(name, []).append((body.text(), body.text()))
            continue
        if name in found:
            raise MalformedPacket(f"{name.name} twice")
        found[name] = value = _reader_of(name, body)()
        if (name in _FLAGS and value > 1) or (name in _NEVER_ZERO and not value):
            raise MalformedPacket(f"{name.name} {value}")
    if P.USER_PROPERTY in found:
        found[P.USER_PROPERTY] = tuple(found[P.USER_PROPERTY])
    return found


def _reader_of(name: Property, body: Reader) -> Callable[[], Any]:
    if name in _TEXTS:
        return body.text
    if name in _BINARIES:
        return body.binary
    if name in _UINT16:
        return body.uint16
    if name in _UINT32:
        return body.uint32
    return body.byte if name in _FLAGS else body.variable


def write(properties: Properties | None) -> bytes:
    """The bytes of a list of properties, its length in front. Raises ValueError or OverflowError."""
    body = b"".join(_entry(name, value) for name, value in (properties or {}).items())
    return variable(len(body)) + body


def _entry(name: Property, value: Any) -> bytes:
    head = bytes((name,))
    if name is P.USER_PROPERTY:
        return b"".join(head + text(key) + text(each) for key, each in value)
    if name in _TEXTS:
        return head + text(value)
    if name in _BINARIES:
        return head + binary(value)
    if name in _UINT16:
        return head + int(value).to_bytes(2, "big")
    if name in _UINT32:
        return head + int(value).to_bytes(4, "big")
    return head + (bytes((value,)) if name in _FLAGS else variable(value))
