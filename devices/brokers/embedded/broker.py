"""A small MQTT broker for the devices of one machine and the platform's own processes.

**Who talks to whom.** Devices reach the platform and the platform reaches devices; devices never reach each
other. What a device publishes goes to internal sessions (gateway, workers) only. What an internal client
publishes goes to the device, and to internal sessions that subscribe, except on the request topic, which is
both question and answer: the asker does not hear its own answer as a new question.

**Reports.** A device's QoS 1 report is acknowledged when a persistent (clean session 0) internal session that
subscribes to it has acknowledged it; without a persistent one, any QoS 1 subscriber counts. A persistent
session that is away keeps reports up to its bound, which devices share: they take turns, and one that has
nothing waiting is always let in. What nobody can take is not acknowledged, so the device
sends it again after it reconnects; with QoS 0 it is lost and counted. A QoS 0 report goes to internal
sessions with QoS 1.

**Devices** have no session beyond their connection: no stored subscriptions, no offline queue, no redelivery,
because the platform repeats from its database what is still wanted. They receive their own downlink topics
without subscribing. Wills and retained messages are not supported (accepted and ignored).

**Presence** is published with QoS 1 through the same queues as reports, so in order with them:

* `$ota/presence/{pk}/{dn}`, a `contract.PresenceEvent`: "connected" comes before any report of that
  connection. When a second connection of a device takes over, "connected" of the new one comes first, then
  "disconnected" of the old one with the *old* connection id and the reason `taken_over`. A "disconnected"
  whose connection id is not the device's latest means nothing.
* `$ota/epoch`, a `contract.PresenceSnapshot` in parts: who is connected at that moment. Each connection of a
  client that subscribes to it gets one, behind whatever its session had kept. So a new gateway, or any
  gateway after a restart of the broker (a new epoch), begins with it, and one that was away reads the
  history it missed and then the state. If events had to be dropped because a queue was full, another one
  follows as soon as there is room. Read in order, the stream always ends in the truth: whoever is not in a
  complete snapshot of the present epoch was not connected at that point of the stream.

**MQTT 5** is spoken as far as 3.1.1 goes: reason codes ("no matching subscribers" tells the platform that a
device was not there), session expiry, receive maximum, maximum packet size. A message's own properties are
read and not passed on; there are no topic aliases towards the broker, no shared subscriptions, subscription
identifiers, enhanced authentication, nor the options of a subscription beyond its QoS.

`$ota/kick/{pk}/{dn}`, published by an internal client, disconnects a device; the payload is the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ssl import SSLContext

from devices import topics
from devices.brokers import contract
from devices.brokers.contract import Identity, PresenceEvent
from devices.brokers.embedded import codec, snapshot
from devices.brokers.embedded.codec import ReasonCode
from devices.brokers.embedded.connection import Connection
from devices.brokers.embedded.limits import AddressLimiter, Options, connection_bound, is_loopback
from devices.brokers.embedded.listener import Listener
from devices.brokers.embedded.properties import Property
from devices.brokers.embedded.session import Bounds, Message, Receipt, Session
from devices.brokers.embedded.trie import TopicTrie
from devices.brokers.embedded.waiting import Waiting
from devices.topics import Action, Kind

logger = logging.getLogger(__name__)

_BACKLOG = 1_024
_STOP_TIME = 2.0
_ACCEPT_PAUSE = 0.5  # after the system ran out of files
_HALF = 0.5
_NEVER = float("inf")


class Broker:
    """The broker's state; everything runs in the event loop that called `start`.

    `counters` count since the start: connects, refused (by the authenticator), turned_away (address limit or
    full), malformed, denied (not allowed to publish or subscribe), published (accepted), delivered (sent),
    dropped (lost QoS 0), unaccepted (QoS 1 left unacknowledged), unreachable (for a device that is not
    connected), throttled (reading slowed down).
    """

    def __init__(
        self,
        authenticate: contract.Authenticator,
        listeners: Sequence[Listener] = (Listener(1883),),
        options: Options | None = None,
    ) -> None:
        self.authenticate = authenticate
        self.options = options or Options()
        self.epoch = f"{time.time_ns() // 1_000_000:x}-{secrets.token_hex(4)}"
        self.ports: tuple[int, ...] = ()
        self.connections: set[Connection] = set()
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "connects", "refused", "turned_away", "malformed", "denied", "published", "delivered",
                "dropped", "unaccepted", "unreachable", "throttled",
            ),
            0,
        )  # fmt: skip
        self._listeners = listeners
        self._limiter = AddressLimiter(self.options)
        self._opening: set[asyncio.Task[None]] = set()  # accepted, handshake not finished
        self._connection_number = 0
        self._snapshot_number = 0
        self._devices: dict[tuple[str, str], Session] = {}
        self._internals: dict[str, Session] = {}
        self._waiting = Waiting(self.options.device_reports, self.options.device_report_bytes)
        self._device_filters: TopicTrie[Session] = TopicTrie()
        self._internal_filters: TopicTrie[Session] = TopicTrie()
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []
        self._stopping = False

    # ---- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises OSError if an address cannot be had; then nothing is left open."""
        self.loop = asyncio.get_running_loop()
        self._max_connections = connection_bound(self.options.max_connections)
        for key in self.options.standing_sessions:
            self._add_internal(key, contract.INTERNAL, self.options.internal_session_expiry)
            for topic in topics.GATEWAY_FILTERS:
                self.subscribe(self._internals[key], topic, 1)
        try:
            for listener in self._listeners:
                family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
                opened = socket.create_server((listener.host, listener.port), family=family, backlog=_BACKLOG)
                self._sockets.append(opened)
                opened.setblocking(False)
        except OSError:
            self._close_sockets()
            raise
        self.ports = tuple(opened.getsockname()[1] for opened in self._sockets)
        self._tasks = [
            self.loop.create_task(self._accept(opened, listener.ssl))
            for opened, listener in zip(self._sockets, self._listeners, strict=True)
        ]
        self._tasks.append(self.loop.create_task(self._sweep()))

    async def stop(self) -> None:
        """Close everything. Clients see their connection end; nothing is published about it."""
        self._stopping = True
        tasks = [*self._tasks, *self._opening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()
        for connection in list(self.connections):
            connection.close_gently("stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIME):
                while self.connections:
                    await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.close("stopped")
        await asyncio.sleep(0)

    def health(self) -> dict[str, int]:
        """The counters, and how many are connected and waiting now. May be read from any thread."""
        internals = list(self._internals.values())
        return {
            **self.counters,
            "devices": len(self._devices),
            "internals": sum(session.link is not None for session in internals),
            "backlog": sum(session.backlog for session in internals),
        }

    def _close_sockets(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()

    async def _accept(self, opened: socket.socket, ssl: SSLContext | None) -> None:
        while True:
            try:
                accepted, address = await self.loop.sock_accept(opened)
            except OSError:
                logger.exception("cannot accept a connection")
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            host, port = address[:2]
            if self._has_place(host):
                task = self.loop.create_task(self._open(accepted, host, port, ssl))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            else:
                self.counters["turned_away"] += 1
                accepted.close()

    def _has_place(self, host: str) -> bool:
        bound = self._max_connections + (self.options.reserved_for_loopback if is_loopback(host) else 0)
        return len(self.connections) + len(self._opening) < bound and self._limiter.admits(host, self.now())

    async def _open(self, accepted: socket.socket, host: str, port: int, ssl: SSLContext | None) -> None:
        try:
            await self.loop.connect_accepted_socket(
                lambda: Connection(self, host, port),
                accepted,
                ssl=ssl,
                ssl_handshake_timeout=self.options.connect_timeout if ssl else None,
            )
        except OSError as error:  # a failed TLS handshake is one, too
            self.counters["malformed"] += 1
            logger.info("%s: no connection: %s", host, error)
            accepted.close()

    async def _sweep(self) -> None:
        """End what is overdue: silent connections, and persistent sessions nobody came back to."""
        while True:
            await asyncio.sleep(self.options.sweep_interval)
            try:
                self._sweep_once(self.now())
            except Exception:
                logger.exception("sweeping failed; it goes on")

    def _sweep_once(self, now: float) -> None:
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.expire()
        overdue = [each for each in self._internals.values() if each.left_at + each.expiry < now]
        for session in overdue:
            if session.link is None:
                self._remove(session)

    # ---- sessions -----------------------------------------------------------------------------------

    def now(self) -> float:
        return self.loop.time()

    def new_connection_id(self) -> str:
        self._connection_number += 1
        return f"{self.epoch}-{self._connection_number}"

    def admit(
        self, connection: Connection, identity: Identity, packet: codec.Connect
    ) -> tuple[Session, bool]:
        """The session of an authenticated client, and whether it was there before."""
        session, present = self._session(connection, identity, packet)
        longest = (packet.properties or {}).get(Property.RECEIVE_MAXIMUM, 0xFFFF)
        session.bounds = replace(session.bounds, window=min(self._bounds(identity).window, longest))
        return session, present

    def _session(
        self, connection: Connection, identity: Identity, packet: codec.Connect
    ) -> tuple[Session, bool]:
        if not identity.is_internal:
            return self._admit_device(connection, identity), False
        key = packet.client_id or connection.id
        longest: float = self.options.internal_session_expiry
        expiry = min(longest, (packet.properties or {}).get(Property.SESSION_EXPIRY, 0))
        if packet.level != codec.MQTT_5:
            expiry = 0.0 if packet.clean else longest
        existing = self._internals.get(key)
        if existing is not None and existing.link is not None:
            existing.link.close("taken_over")
        existing = self._internals.get(key)
        if existing is not None and not packet.clean:
            existing.expiry, existing.persistent = expiry, existing.persistent and expiry > 0
            return existing, True
        if existing is not None:
            self._remove(existing)
        return self._add_internal(key, identity, expiry), False

    def _admit_device(self, connection: Connection, identity: Identity) -> Session:
        key = (identity.product_key, identity.device_name)
        before = self._devices.get(key)
        self._devices[key] = session = Session("/".join(key), identity, self._bounds(identity))
        self._tell_presence(connection, identity, connected=True)
        if before is not None and before.link is not None:
            before.link.close("taken_over")
        return session

    def _add_internal(self, key: str, identity: Identity, expiry: float) -> Session:
        left_at = _NEVER if key in self.options.standing_sessions else self.now()
        self._internals[key] = session = Session(
            key, identity, self._bounds(identity), expiry > 0, expiry=expiry, left_at=left_at
        )
        return session

    def _bounds(self, identity: Identity) -> Bounds:
        options = self.options
        if identity.is_internal:
            return Bounds(
                options.internal_window,
                options.internal_queue,
                options.internal_queue_bytes,
                options.device_reports_sent,
                options.device_bytes_sent,
            )
        return Bounds(options.device_window, options.device_queue, options.device_queue_bytes)

    def change_expiry(self, session: Session, expiry: int | None) -> None:
        """A client of MQTT 5 leaves with another wish; one without a session cannot ask for one then."""
        if expiry is not None and session.persistent:
            session.expiry = min(expiry, self.options.internal_session_expiry)
            session.persistent = expiry > 0

    def attach(self, session: Session, connection: Connection) -> None:
        session.attach(connection)
        self.synchronise(session)

    def ended(self, connection: Connection, reason: str) -> None:
        """A connection is over, for whatever reason. Called once for each."""
        session = connection.session
        if session is None:
            return
        if session.persistent:
            session.detach(_NEVER if session.key in self.options.standing_sessions else self.now())
        else:
            self._remove(session)
        if not session.identity.is_internal:
            self._tell_presence(connection, session.identity, connected=False, reason=reason)

    def _remove(self, session: Session) -> None:
        self.unsubscribe(session, tuple(session.subscriptions))
        identity = session.identity
        if identity.is_internal:
            self._internals.pop(session.key, None)
        elif self._devices.get(key := (identity.product_key, identity.device_name)) is session:
            del self._devices[key]
        session.discard()

    def kick(self, product_key: str, device_name: str, reason: str = "kicked") -> bool:
        """Disconnect a device. False if it is not connected."""
        session = self._devices.get((product_key, device_name))
        if session is None or session.link is None:
            return False
        session.link.close(reason, ReasonCode.ADMINISTRATIVE_ACTION)
        return True

    # ---- subscriptions ------------------------------------------------------------------------------

    def subscribe(self, session: Session, topic: str, qos: int) -> int:
        """The code for SUBACK."""
        identity, subscriptions = session.identity, session.subscriptions
        refusal = None
        if topic.startswith("$share/"):
            refusal = ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        elif not topics.is_valid_filter(topic):
            refusal = ReasonCode.TOPIC_FILTER_INVALID
        elif not identity.is_internal and not topics.allowed(
            identity.product_key, identity.device_name, Action.SUBSCRIBE, topic
        ):
            refusal = ReasonCode.NOT_AUTHORIZED
        elif len(subscriptions) >= self.options.max_subscriptions and topic not in subscriptions:
            refusal = ReasonCode.QUOTA_EXCEEDED
        if refusal is not None:
            self.counters["denied"] += 1
            return refusal
        subscriptions[topic] = granted = min(qos, 1)
        self._filters(session).add(topic, session, granted)
        return granted

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> tuple[ReasonCode, ...]:
        """The codes for UNSUBACK."""
        return tuple(self._unsubscribe_one(session, topic) for topic in filters)

    def _unsubscribe_one(self, session: Session, topic: str) -> ReasonCode:
        if session.subscriptions.pop(topic, None) is None:
            return ReasonCode.NO_SUBSCRIPTION_EXISTED
        self._filters(session).remove(topic, session)
        return ReasonCode.SUCCESS

    def _filters(self, session: Session) -> TopicTrie[Session]:
        return self._internal_filters if session.identity.is_internal else self._device_filters

    # ---- messages -----------------------------------------------------------------------------------

    def acknowledged(self, session: Session, packet_id: int) -> None:
        session.acknowledge(packet_id)
        if session.missed_presence and session.has_room(_HALF):
            self._send_snapshot(session)

    def receive(self, connection: Connection, session: Session, packet: codec.Publish) -> None:
        """Pass on what a client published, and complete it when that may be done."""
        if session.identity.is_internal:
            connection.complete(packet, self._receive_internal(packet))
        elif topics.allowed(
            session.identity.product_key, session.identity.device_name, Action.PUBLISH, packet.topic
        ):
            self._receive_device(connection, session, packet)
        else:
            self.counters["denied"] += 1
            # Acknowledged all the same, or the device would send it for ever.
            connection.complete(packet, ReasonCode.NOT_AUTHORIZED)

    def _receive_device(self, connection: Connection, source: Session, packet: codec.Publish) -> None:
        receivers = self._internal_filters.match(packet.topic)
        takers = [each for each, granted in receivers.items() if granted and each.persistent]
        takers = takers or [each for each, granted in receivers.items() if granted]
        known = topics.parse(packet.topic)
        is_report = known is not None and known.kind in topics.UPLINK
        if (is_report and not receivers) or not self._waiting.has_room(source.key):
            self._not_taken(packet)
            return
        payload = packet.payload[: self.options.max_report + 1] if is_report else packet.payload
        self.counters["published"] += 1
        receipt, is_first = None, not self._waiting.has_any(source.key)
        if takers:
            receipt = Receipt(len(takers), self._expect_answer(connection, source.key, packet))
        else:
            nobody = ReasonCode.NO_MATCHING_SUBSCRIBERS
            connection.complete(packet, ReasonCode.SUCCESS if receivers else nobody)
        for session, granted in receivers.items():
            due = receipt if session in takers else None
            message = Message(packet.topic, payload, granted, due, packet.dup, source.key)
            # The first of a device goes beyond the bounds: whoever has filled the queue, it is not this one.
            if not session.offer(message, beyond_bounds=is_first) and due is not None:
                due.settle(acknowledged=False)

    def _expect_answer(
        self, connection: Connection, key: str, packet: codec.Publish
    ) -> Callable[[bool], None]:
        """Note a report as on its way; returns what to call when its fate is known."""
        size = len(packet.payload)
        self._waiting.add(key, size)
        if packet.packet_id is not None:
            connection.pending.add(packet.packet_id)

        def answer(acknowledged: bool) -> None:
            self._waiting.remove(key, size)
            if acknowledged:
                connection.complete(packet)
            else:
                connection.pending.discard(packet.packet_id or 0)
                self._not_taken(packet)

        return answer

    def _not_taken(self, packet: codec.Publish) -> None:
        self.counters["unaccepted" if packet.qos else "dropped"] += 1

    def _receive_internal(self, packet: codec.Publish) -> ReasonCode:
        """Pass on a message of the platform; says whether anybody was there for it."""
        known = topics.parse(packet.topic)
        if known is not None and known.kind is Kind.KICK:
            reason = packet.payload.decode(errors="replace")[: contract.MAX_KICK_REASON]
            was_there = self.kick(known.product_key, known.device_name, reason or "kicked")
            return ReasonCode.SUCCESS if was_there else ReasonCode.NO_MATCHING_SUBSCRIBERS
        if packet.topic.startswith("$") or not topics.is_valid(packet.topic):
            self.counters["denied"] += 1
            return ReasonCode.NOT_AUTHORIZED
        reached = False
        self.counters["published"] += 1
        receivers = self._device_filters.match(packet.topic) if self._device_filters else {}
        if known is not None and known.kind in topics.DOWNLINK:
            device = self._devices.get((known.product_key, known.device_name))
            if device is None:
                self.counters["unreachable"] += 1
            else:
                receivers[device] = 1
        for session, granted in receivers.items():
            message = Message(packet.topic, packet.payload, min(packet.qos, granted))
            if session.offer(message):
                reached = True
            elif session.link is not None:
                session.link.close("slow_reader")
        if known is None or known.kind is not Kind.REQUEST:
            for session, granted in self._internal_filters.match(packet.topic).items():
                message = Message(packet.topic, packet.payload, min(packet.qos, granted))
                if session.offer(message):
                    reached = True
                else:
                    self.counters["dropped"] += 1
        return ReasonCode.SUCCESS if reached else ReasonCode.NO_MATCHING_SUBSCRIBERS

    # ---- presence -----------------------------------------------------------------------------------

    def _tell_presence(
        self, connection: Connection, identity: Identity, connected: bool, reason: str = ""
    ) -> None:
        if self._stopping:
            return
        event = PresenceEvent(
            identity.product_key,
            identity.device_name,
            connected,
            connection.id,
            self.epoch,
            snapshot.milliseconds(),
            connection.peer,
            reason,
        )
        # In the device's own lane: before the reports of this connection, behind those of the last one.
        source = "/".join((identity.product_key, identity.device_name))
        message_topic, payload = event.topic, event.to_json()
        for session, granted in self._internal_filters.match(message_topic).items():
            message = Message(message_topic, payload, granted, source=source)
            if not session.offer(message):
                session.missed_presence = True

    def synchronise(self, session: Session) -> None:
        """List who is connected to a client that wants it and has not had it on this connection."""
        if not session.synced and session in self._internal_filters.match(topics.EPOCH):
            session.synced = True
            self._send_snapshot(session)

    def _send_snapshot(self, session: Session) -> None:
        session.missed_presence = False
        self._snapshot_number += 1
        connected = [
            (*key, device.link.id) for key, device in self._devices.items() if device.link is not None
        ]
        for message in snapshot.messages(self.epoch, self._snapshot_number, connected):
            session.offer_in_order(message)
