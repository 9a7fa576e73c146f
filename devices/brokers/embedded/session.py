"""What a client has coming: its queue, the QoS 1 messages on their way, and who waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from devices.brokers.contract import Identity
from devices.brokers.embedded.codec import Publish, ReasonCode
from devices.brokers.embedded.fair import FairQueue


class Receipt:
    """The one answer to a device's report that several sessions may have to give.

    `answer(True)` is called at the first acknowledgement, `answer(False)` if every session let go without.
    """

    __slots__ = ("_answer", "_waiting")

    def __init__(self, waiting: int, answer: Callable[[bool], None]) -> None:
        self._waiting = waiting
        self._answer: Callable[[bool], None] | None = answer

    def settle(self, acknowledged: bool) -> None:
        self._waiting -= 1
        if self._answer is not None and (acknowledged or not self._waiting):
            answer, self._answer = self._answer, None
            answer(acknowledged)


@dataclass(slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    receipt: Receipt | None = None
    dup: bool = False  # a device's own redelivery
    source: str = ""  # the device it is of: sources take turns, and none of them fills the window alone

    @property
    def size(self) -> int:
        return len(self.topic) + len(self.payload)


class Link(Protocol):
    """The connection a session is attached to, as far as the session needs it."""

    id: str
    is_writable: bool

    def deliver(self, packet: Publish) -> bool:
        """Send a message. False if the client takes none of this size: then it counts as done."""
        ...

    def close(self, reason: str, code: ReasonCode | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    window: int  # QoS 1 messages sent and not acknowledged
    messages: int  # queued
    size: int  # bytes queued
    # Of one source, sent and not acknowledged. At least one message always goes out.
    source_window: int = 0xFFFF
    source_size: int = 0xFFFF_FFFF


@dataclass(slots=True, eq=False)
class Session:
    """One client's subscriptions and outgoing messages.

    A persistent session outlives its connection: it keeps what was not acknowledged and sends it again, in
    order and with DUP set, before anything newer.
    """

    key: str
    identity: Identity
    bounds: Bounds
    persistent: bool = False
    link: Link | None = None
    subscriptions: dict[str, int] = field(default_factory=dict)
    expiry: float = 0.0  # seconds that a persistent session lasts without a connection
    missed_presence: bool = False  # an event found no room: only a snapshot can repair that
    synced: bool = False  # this connection has got its snapshot
    left_at: float = 0.0
    _queue: FairQueue[Message] = field(default_factory=FairQueue)
    _queued_size: int = 0
    _in_flight: dict[int, Message] = field(default_factory=dict)
    _sent: dict[str, tuple[int, int]] = field(default_factory=dict)  # of a source: messages, bytes in flight
    _last_id: int = 0

    @property
    def backlog(self) -> int:
        """Messages not yet sent."""
        return len(self._queue)

    def has_room(self, share: float = 1.0) -> bool:
        """Whether less than this share of the queue is taken."""
        bounds = self.bounds
        return len(self._queue) < bounds.messages * share and self._queued_size < bounds.size * share

    def offer(self, message: Message, beyond_bounds: bool = False) -> bool:
        """Send or queue a message. False if there is no room; then nothing happened."""
        if not (beyond_bounds or self.has_room()):
            return False
        if message.qos or self.link is not None:  # QoS 0 does not wait for a client to come back
            self._queue.push(message.source, message)
            self._queued_size += message.size
            self.pump()
        return True

    def offer_in_order(self, message: Message) -> None:
        """Queue a message behind everything before it and before everything later, whatever the bounds."""
        self._queue.push_barrier(message)
        self._queued_size += message.size
        self.pump()

    def pump(self) -> None:
        """Send from the queue while the link takes it and the window is open."""
        queue, in_flight = self._queue, self._in_flight
        while self.link is not None and self.link.is_writable and len(in_flight) < self.bounds.window:
            message = queue.pop()
            if message is None:
                return
            self._queued_size -= message.size
            packet_id = None
            if message.qos:
                packet_id = self._next_id()
                in_flight[packet_id] = message
                self._count_sent(message, 1)
            dup = message.dup and packet_id is not None
            if not self.link.deliver(Publish(message.topic, message.payload, message.qos, packet_id, dup)):
                self._done(packet_id, message)

    def attach(self, link: Link) -> None:
        """The client is (back) on this link: what it has not acknowledged goes out again, then the queue."""
        self.link, self.synced = link, False
        for packet_id, message in list(self._in_flight.items()):
            again = Publish(message.topic, message.payload, message.qos, packet_id, dup=True)
            if not link.deliver(again):
                self._done(packet_id, message)
        self.pump()

    def detach(self, now: float) -> None:
        self.link, self.left_at = None, now

    def acknowledge(self, packet_id: int) -> None:
        """The client has this message. An unknown id means nothing."""
        message = self._in_flight.get(packet_id)
        if message is not None:
            self._done(packet_id, message)
            self.pump()

    def _done(self, packet_id: int | None, message: Message) -> None:
        if packet_id is not None:
            del self._in_flight[packet_id]
            self._count_sent(message, -1)
        if message.receipt is not None:
            message.receipt.settle(acknowledged=True)

    def discard(self) -> None:
        """The session ends: nobody is going to acknowledge what it still held."""
        held = [*self._in_flight.values(), *self._queue.drain()]
        self._in_flight.clear()
        self._sent.clear()
        self._queued_size = 0
        self.link = None
        for message in held:
            if message.receipt is not None:
                message.receipt.settle(acknowledged=False)

    def _count_sent(self, message: Message, number: int) -> None:
        if not (source := message.source):
            return
        count, size = self._sent.pop(source, (0, 0))
        count, size = count + number, size + number * message.size
        if count:
            self._sent[source] = count, size
        if count >= self.bounds.source_window or size >= self.bounds.source_size:
            self._queue.hold(source)
        else:
            self._queue.release(source)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._in_flight:
                return self._last_id
