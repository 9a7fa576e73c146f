"""Who is connected at one moment, as the messages of `contract.PresenceSnapshot`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from devices import topics
from devices.brokers.contract import PresenceSnapshot
from devices.brokers.embedded.session import Message

PART = 1_000


def messages(epoch: str, number: int, connected: Sequence[tuple[str, str, str]]) -> Iterator[Message]:
    """`connected` holds (ProductKey, DeviceName, connection id); `number` is unique in the epoch."""
    starts = range(0, len(connected) or 1, PART)
    snapshot = PresenceSnapshot(epoch, f"{epoch}-{number}", 0, len(starts), milliseconds())
    for part, start in enumerate(starts):
        rows = tuple(connected[start : start + PART])
        yield Message(topics.EPOCH, replace(snapshot, part=part, connected=rows).to_json(), 1)


def milliseconds() -> int:
    return time.time_ns() // 1_000_000
