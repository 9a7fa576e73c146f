"""What the platform and an MQTT broker say to each other about devices. No Django, no network.

The platform answers "who is this?" (`Authenticator`); the broker tells who comes and goes (`PresenceEvent`,
`PresenceSnapshot`, published as JSON on `$ota/...`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from typing import Any, Protocol

from devices import topics

MAX_KICK_REASON = 64


class Role(StrEnum):
    DEVICE = "device"
    INTERNAL = "internal"  # gateway and workers: every topic, sessions by clientId, any keep-alive


class Refusal(Enum):
    """Why a connection is refused. The client only ever learns the CONNACK code."""

    BAD_CREDENTIALS = "bad_credentials"  # also for an unknown device: the two must look the same
    BAD_IDENTIFIER = "bad_identifier"  # the clientId cannot be read
    DISABLED = "disabled"
    NOT_AUTHORIZED = "not_authorized"
    UNAVAILABLE = "unavailable"  # the answer is not known now; the client should try again


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection belongs to.

    `welcome` is published to the client right after CONNACK as (topic, payload). With `registration_only`
    that is all there is: no session, no presence, and the connection ends soon.
    """

    product_key: str = ""
    device_name: str = ""
    role: Role = Role.DEVICE
    welcome: tuple[tuple[str, bytes], ...] = ()
    registration_only: bool = False

    def __post_init__(self) -> None:
        if self.role is Role.DEVICE:
            for name in (self.product_key, self.device_name):
                if not name or not set(name).isdisjoint("/+#\0"):
                    raise ValueError(f"{name!r} cannot be part of a topic")

    @property
    def is_internal(self) -> bool:
        return self.role is Role.INTERNAL


INTERNAL = Identity(role=Role.INTERNAL)


class Authenticator(Protocol):
    """Decides about a CONNECT. What it raises counts as `Refusal.UNAVAILABLE`."""

    async def __call__(
        self, client_id: str, username: str, password: bytes, peer: str
    ) -> Identity | Refusal: ...


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """A connection began or ended.

    `connection_id` is unique for ever, `epoch` for each start of the broker; `at` is epoch milliseconds and
    `peer` "address:port". `reason` of an end: disconnect (the client said so), closed, lost, keep_alive,
    taken_over, slow_reader, malformed, error, or what the kick said.
    """

    product_key: str
    device_name: str
    connected: bool
    connection_id: str
    epoch: str
    at: int
    peer: str = ""
    reason: str = ""

    @property
    def topic(self) -> str:
        return topics.build(topics.Kind.PRESENCE, self.product_key, self.device_name)

    def to_json(self) -> bytes:
        body = asdict(self)
        del body["product_key"], body["device_name"]
        return dumps({"event": "connected" if body.pop("connected") else "disconnected", **body})

    @classmethod
    def from_json(cls, topic: str, payload: bytes) -> PresenceEvent:
        """Raises ValueError for anything else than what `to_json` writes."""
        known, body = topics.parse(topic), _load(payload)
        if known is None or known.kind is not topics.Kind.PRESENCE:
            raise ValueError(f"not a presence topic: {topic!r}")
        if (event := body.pop("event", None)) not in ("connected", "disconnected"):
            raise ValueError(f"not a presence event: {event!r}")
        try:
            return cls(known.product_key, known.device_name, event == "connected", **body)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True)
class PresenceSnapshot:
    """Part `part` of `parts` (from 0) of the list of everybody who is connected at one moment.

    `sync` names the snapshot; `connected` holds (ProductKey, DeviceName, connection id).
    """

    epoch: str
    sync: str
    part: int
    parts: int
    at: int
    connected: tuple[tuple[str, str, str], ...] = ()

    topic = topics.EPOCH

    def to_json(self) -> bytes:
        return dumps(asdict(self))

    @classmethod
    def from_json(cls, payload: bytes) -> PresenceSnapshot:
        """Raises ValueError for anything else than what `to_json` writes."""
        body = _load(payload)
        try:
            rows = tuple((str(pk), str(dn), str(cid)) for pk, dn, cid in body.pop("connected"))
            return cls(connected=rows, **body)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a presence snapshot: {error}") from None


def dumps(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _load(payload: bytes) -> dict[str, Any]:
    body = json.loads(payload)
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    return body
