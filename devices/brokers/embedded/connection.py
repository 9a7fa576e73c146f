"""One client's TCP or TLS connection: from CONNECT to its end, packet by packet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from devices import topics
from devices.brokers.contract import Identity, Refusal
from devices.brokers.embedded import codec
from devices.brokers.embedded.codec import (
    MQTT_5,
    ConnAck,
    ConnectCode,
    Decoder,
    MalformedPacket,
    Packet,
    PacketTooLarge,
    ReasonCode,
)
from devices.brokers.embedded.limits import TokenBucket, cost_of
from devices.brokers.embedded.properties import FOREVER, Properties, Property

if TYPE_CHECKING:
    from devices.brokers.embedded.broker import Broker
    from devices.brokers.embedded.session import Session

logger = logging.getLogger(__name__)

_NEVER = float("inf")
_FLUSH_TIME = 5.0

# What MQTT 5 tells a client whose connection the broker ends; other ends are silent.
_FAREWELLS = {
    "taken_over": ReasonCode.SESSION_TAKEN_OVER,
    "keep_alive": ReasonCode.KEEP_ALIVE_TIMEOUT,
    "stopped": ReasonCode.SERVER_SHUTTING_DOWN,
    "registration_over": ReasonCode.ADMINISTRATIVE_ACTION,
}

_CODES = {
    Refusal.BAD_CREDENTIALS: ConnectCode.BAD_CREDENTIALS,
    Refusal.BAD_IDENTIFIER: ConnectCode.IDENTIFIER_REJECTED,
    Refusal.DISABLED: ConnectCode.NOT_AUTHORIZED,
    Refusal.NOT_AUTHORIZED: ConnectCode.NOT_AUTHORIZED,
    Refusal.UNAVAILABLE: ConnectCode.SERVER_UNAVAILABLE,
}


class Connection(asyncio.Protocol):
    """Reads packets and hands them to the broker; knows who the client is once it is authenticated.

    Until then nothing of the broker's state is touched, and later bytes wait. Nothing that bytes are read
    into is shared with another connection: asyncio's TLS fills a buffer piece by piece, so a shared one
    would mix the bytes of two clients.
    """

    def __init__(self, broker: Broker, host: str, port: int) -> None:
        self.broker = broker
        self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.id = broker.new_connection_id()
        self.identity: Identity | None = None
        self.session: Session | None = None
        self.is_writable = True
        self.ended = False
        self.pending: set[int] = set()  # packet ids of reports the gateway has not acknowledged
        self.deadline = broker.now() + broker.options.connect_timeout
        self._deadline_reason = "connect_timeout"
        self._keep_alive = _NEVER
        self._is_paused = False  # nothing is read or handled now
        self._received: set[int] = set()  # QoS 2 packet ids between PUBREC and PUBREL
        options = broker.options
        self._decoder = Decoder(
            options.device_packet, options.max_connect_packet, max_filters=options.max_subscriptions
        )
        self._largest_outgoing = FOREVER
        self._authentication: asyncio.Task[None] | None = None
        self._allowance: TokenBucket | None = None

    @property
    def _is_five(self) -> bool:
        return self._decoder.level == MQTT_5

    # ---- transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self.broker.options.device_queue_bytes)
        self.broker.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self._decoder.add(data)
        if not self._is_paused:
            self._work()

    def _work(self) -> None:
        """Handle the complete packets: of a device a slice at a time, and no faster than it is allowed."""
        options, allowance, spent, is_awake = self.broker.options, self._allowance, 0.0, False
        try:
            with contextlib.closing(self._decoder.packets()) as packets:
                for packet in packets:
                    is_awake = True
                    self._process(packet)
                    if self.ended or self._authentication is not None:
                        return
                    if allowance is not None:
                        spent += cost_of(packet, _is_report(packet))
                        if spent >= options.slice_cost:
                            break
        except MalformedPacket as error:
            self._refuse_malformed(error)
            return
        now = self.broker.now()
        if is_awake and self.session is not None:
            self.deadline = now + self._keep_alive
        if allowance is not None and spent:
            debt = allowance.charge(now, spent)
            if debt or spent >= options.slice_cost:
                self._hold_back(now, debt)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        if self.session is not None:
            self.session.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self._end("closed" if error is None else "lost")
        self.broker.connections.discard(self)

    def send(self, packet: Packet) -> None:
        if not self.ended:
            self._transport.write(codec.encode(packet, self._decoder.level))

    def deliver(self, packet: codec.Publish) -> bool:
        """Send a message; False if it is larger than the client said it takes (MQTT 5, 3.1.2.11.4)."""
        data = codec.encode(packet, self._decoder.level)
        if len(data) > self._largest_outgoing:
            self.broker.counters["dropped"] += 1
            return False
        self.broker.counters["delivered"] += 1
        if not self.ended:
            self._transport.write(data)
        return True

    def close(self, reason: str, code: ReasonCode | None = None) -> None:
        """End the connection now. A client of MQTT 5 that reads is told why."""
        code = _FAREWELLS.get(reason, code)
        if code is not None and self._is_five and self.session is not None and self.is_writable:
            self.send(codec.Disconnect(code))
            self.close_gently(reason)
        else:
            self._end(reason)
            self._transport.abort()

    def close_gently(self, reason: str) -> None:
        """End the connection after what has been written is sent, or some seconds later."""
        self._end(reason)
        self.deadline = self.broker.now() + _FLUSH_TIME
        self._transport.close()

    def expire(self) -> None:
        """The deadline has passed."""
        self.close(self._deadline_reason)

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = True
        if self._authentication is not None:
            self._authentication.cancel()
        self.broker.ended(self, reason)

    def _hold_back(self, now: float, seconds: float) -> None:
        """Read on after so many seconds; after none, when the others have had their turn."""
        self._pause()
        if not seconds:
            self.broker.loop.call_soon(self._resume)
            return
        self.broker.counters["throttled"] += 1
        if self.session is not None:
            self.deadline = now + seconds + self._keep_alive
        self.broker.loop.call_later(seconds, self._resume)

    def _pause(self) -> None:
        self._is_paused = True
        self._transport.pause_reading()

    def _resume(self) -> None:
        if self.ended:
            return
        self._is_paused = False
        self._work()
        if not (self._is_paused or self._transport.is_closing()):
            self._transport.resume_reading()

    def _refuse_malformed(self, error: MalformedPacket) -> None:
        self.broker.counters["malformed"] += 1
        logger.info("%s: malformed: %s", self.peer, error)
        if isinstance(error, codec.UnsupportedProtocol):
            if error.is_newer:
                self._decoder.level = MQTT_5
            self.send(ConnAck(ConnectCode.UNACCEPTABLE_PROTOCOL))
            self.close_gently("malformed")
        else:
            too_large = isinstance(error, PacketTooLarge)
            code = ReasonCode.PACKET_TOO_LARGE if too_large else ReasonCode.MALFORMED_PACKET
            self.close("malformed", error.reason or code)

    # ---- CONNECT ------------------------------------------------------------------------------------

    def _begin(self, packet: codec.Connect) -> None:
        if packet.properties and Property.AUTHENTICATION_METHOD in packet.properties:
            self.send(ConnAck(ReasonCode.BAD_AUTHENTICATION_METHOD))
            self.close_gently("refused")
            return
        self.deadline = _NEVER  # authenticating has a time-out of its own
        self._pause()
        self._authentication = self.broker.loop.create_task(self._authenticate(packet))

    async def _authenticate(self, packet: codec.Connect) -> None:
        try:
            verdict = await self._verdict(packet)
            self._authentication = None
            if isinstance(verdict, Identity):
                self._accept(packet, verdict)
            else:
                self.broker.counters["refused"] += 1
                logger.info("%s: refused: %s", self.peer, verdict.value)
                # The client learns no more than this code: no reason in words.
                self.send(ConnAck(_CODES[verdict]))
                self.close_gently("refused")
        except Exception:
            logger.exception("%s: closed by an error", self.peer)
            self.close("error")

    async def _verdict(self, packet: codec.Connect) -> Identity | Refusal:
        try:
            async with asyncio.timeout(self.broker.options.authenticate_timeout):
                verdict = await self.broker.authenticate(
                    packet.client_id, packet.username or "", packet.password or b"", self.peer
                )
        except Exception:
            logger.exception("%s: no verdict on its CONNECT", self.peer)
            return Refusal.UNAVAILABLE
        return self._judge_connect(packet, verdict) if isinstance(verdict, Identity) else verdict

    def _judge_connect(self, packet: codec.Connect, identity: Identity) -> Identity | Refusal:
        if self._is_five:
            return identity  # it is told its client id, and the keep-alive to use
        if not packet.client_id and not packet.clean:
            return Refusal.BAD_IDENTIFIER
        if self._keep_alive_of(packet, identity) != packet.keep_alive:
            return Refusal.NOT_AUTHORIZED
        return identity

    def _keep_alive_of(self, packet: codec.Connect, identity: Identity) -> int:
        """The keep-alive that the client may have; 0 is none."""
        if identity.is_internal or identity.registration_only:
            return packet.keep_alive
        shortest, longest = self.broker.options.keep_alive_range
        return max(shortest, min(packet.keep_alive or longest, longest))

    def _accept(self, packet: codec.Connect, identity: Identity) -> None:
        broker, options, now = self.broker, self.broker.options, self.broker.now()
        self.identity = identity
        broker.counters["connects"] += 1
        if identity.is_internal:
            self._decoder.allow(options.max_packet)
        else:
            self._allowance = TokenBucket(options.cost_per_second, options.cost_burst, now)
        wishes = packet.properties or {}
        self._largest_outgoing = wishes.get(Property.MAXIMUM_PACKET_SIZE, FOREVER)
        if identity.registration_only:
            self.deadline, self._deadline_reason = now + options.registration_time, "registration_over"
            self.send(ConnAck())
        else:
            keep_alive = self._keep_alive_of(packet, identity)
            if keep_alive:
                self._keep_alive = 1.5 * keep_alive
            self.deadline, self._deadline_reason = now + self._keep_alive, "keep_alive"
            self.session, present = broker.admit(self, identity, packet)
            self.send(ConnAck(session_present=present, properties=self._terms(packet, keep_alive)))
            broker.attach(self.session, self)
        for topic, payload in identity.welcome:
            self.send(codec.Publish(topic, payload))
        self._resume()

    def _terms(self, packet: codec.Connect, keep_alive: int) -> Properties | None:
        """What CONNACK says to a client of MQTT 5 where it does not get what it asked for.

        Retained messages and wills are accepted and ignored, as before MQTT 5, so nothing is said of them.
        """
        if not self._is_five or self.session is None:
            return None
        terms: dict[Property, Any] = {
            Property.MAXIMUM_PACKET_SIZE: self._decoder.max_size,
            Property.SUBSCRIPTION_IDENTIFIERS_AVAILABLE: 0,
            Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
        }
        if self.session.expiry != (packet.properties or {}).get(Property.SESSION_EXPIRY, 0):
            terms[Property.SESSION_EXPIRY] = int(self.session.expiry)
        if not packet.client_id:
            terms[Property.ASSIGNED_CLIENT_ID] = self.id
        if keep_alive != packet.keep_alive:
            terms[Property.SERVER_KEEP_ALIVE] = keep_alive
        if not self.session.identity.is_internal:
            terms[Property.RECEIVE_MAXIMUM] = min(self.broker.options.device_reports, 0xFFFF)
        return terms

    # ---- packets ------------------------------------------------------------------------------------

    def _process(self, packet: Packet) -> None:
        if self.identity is not None:
            self._handle(packet)
        elif isinstance(packet, codec.Connect):
            self._begin(packet)
        else:
            self._refuse_malformed(MalformedPacket("the first packet is not CONNECT"))

    def _handle(self, packet: Packet) -> None:
        match packet:
            case codec.Publish():
                self._receive(packet)
            case codec.PubAck():
                if self.session is not None:
                    self.broker.acknowledged(self.session, packet.packet_id)
            case codec.PingReq():
                self.send(codec.PingResp())
            case codec.PubRel():
                self._received.discard(packet.packet_id)
                self.send(codec.PubComp(packet.packet_id))
            case codec.Subscribe():
                self.send(codec.SubAck(packet.packet_id, self._subscribe(packet)))
                if self.session is not None:
                    self.broker.synchronise(self.session)
            case codec.Unsubscribe():
                codes: tuple[int, ...] = (ReasonCode.NO_SUBSCRIPTION_EXISTED,) * len(packet.filters)
                if self.session is not None:
                    codes = self.broker.unsubscribe(self.session, packet.filters)
                self.send(codec.UnsubAck(packet.packet_id, codes))
            case codec.Disconnect():
                if self.session is not None and packet.properties:
                    expiry = packet.properties.get(Property.SESSION_EXPIRY)
                    self.broker.change_expiry(self.session, expiry)
                self.close_gently("disconnect")
            case codec.PubRec() | codec.PubComp():
                pass  # nothing is ever sent with QoS 2
            case _:
                self._refuse_malformed(MalformedPacket(f"{type(packet).__name__} from a client"))

    def _receive(self, packet: codec.Publish) -> None:
        packet_id = packet.packet_id
        if packet.properties and Property.TOPIC_ALIAS in packet.properties:
            self._refuse_malformed(MalformedPacket("topic alias", ReasonCode.TOPIC_ALIAS_INVALID))
            return
        if packet_id is not None:
            if packet.dup and packet_id in self.pending:
                return  # still on its way to the gateway
            if packet.qos == 2 and packet_id in self._received:
                self.complete(packet)
                return
        if self.session is None:
            self.broker.counters["denied"] += 1
            self.complete(packet, ReasonCode.NOT_AUTHORIZED)
        else:
            self.broker.receive(self, self.session, packet)

    def complete(self, packet: codec.Publish, reason: ReasonCode = ReasonCode.SUCCESS) -> None:
        """Tell the client that its message needs no sending again, and in MQTT 5 what became of it."""
        if packet.packet_id is None:
            return
        self.pending.discard(packet.packet_id)
        if packet.qos == 2:
            if reason < ReasonCode.UNSPECIFIED_ERROR or not self._is_five:
                self._received.add(packet.packet_id)
            self.send(codec.PubRec(packet.packet_id, reason))
        else:
            self.send(codec.PubAck(packet.packet_id, reason))

    def _subscribe(self, packet: codec.Subscribe) -> tuple[int, ...]:
        if packet.properties and Property.SUBSCRIPTION_IDENTIFIER in packet.properties:
            return (ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,) * len(packet.filters)
        return tuple(self._subscribe_one(topic, qos) for topic, qos in packet.filters)

    def _subscribe_one(self, topic: str, qos: int) -> int:
        if self.session is not None:
            return self.broker.subscribe(self.session, topic, qos)
        if topic in (topics.REGISTER_REPLY, topics.REGISTER_WITHOUT_LIST_REPLY):
            return min(qos, 1)
        return ReasonCode.NOT_AUTHORIZED


def _is_report(packet: Packet) -> bool:
    if not isinstance(packet, codec.Publish):
        return False
    known = topics.parse(packet.topic)
    return known is not None and known.kind in topics.UPLINK
