"""One client's TCP or TLS connection: from CONNECT to its end, packet by packet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from devices import topics
from devices.brokers.contract import Identity, Refusal
from devices.brokers.embedded import codec
from devices.brokers.embedded.codec import ConnAck, ConnectCode, Decoder, MalformedPacket, Packet
from devices.brokers.embedded.limits import TokenBucket

if TYPE_CHECKING:
    from devices.brokers.embedded.broker import Broker
    from devices.brokers.embedded.session import Session

logger = logging.getLogger(__name__)

_NEVER = float("inf")
_FLUSH_TIME = 5.0

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
        self._held_back: float = 0  # not read before this time
        self._received: set[int] = set()  # QoS 2 packet ids between PUBREC and PUBREL
        self._decoder = Decoder(broker.options.max_packet, broker.options.max_connect_packet)
        self._early: list[Packet] = []
        self._authentication: asyncio.Task[None] | None = None
        self._allowance: TokenBucket | None = None

    # ---- transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self.broker.options.device_queue_bytes)
        self.broker.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        try:
            packets = self._decoder.feed(data)
        except MalformedPacket as error:
            self._refuse_malformed(error)
            return
        if packets:
            now = self.broker.now()
            if self.session is not None:
                self.deadline = now + self._keep_alive
            if self._allowance is not None:
                self._hold_back(now, self._allowance.charge(now, len(packets)))
            self._process(packets)

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
            self._transport.write(codec.encode(packet))

    def deliver(self, packet: codec.Publish) -> None:
        self.broker.counters["delivered"] += 1
        self.send(packet)

    def close(self, reason: str) -> None:
        """End the connection now."""
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
        if not seconds or self._held_back > now:
            return
        self.broker.counters["throttled"] += 1
        self._held_back = now + seconds
        if self.session is not None:
            self.deadline = self._held_back + self._keep_alive
        self._transport.pause_reading()
        self.broker.loop.call_later(seconds, self._resume_reading)

    def _resume_reading(self) -> None:
        self._held_back = 0
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _refuse_malformed(self, error: MalformedPacket) -> None:
        self.broker.counters["malformed"] += 1
        logger.info("%s: malformed: %s", self.peer, error)
        if isinstance(error, codec.UnsupportedProtocol):
            self.send(ConnAck(ConnectCode.UNACCEPTABLE_PROTOCOL))
            self.close_gently("malformed")
        else:
            self.close("malformed")

    # ---- CONNECT ------------------------------------------------------------------------------------

    def _begin(self, packet: codec.Connect) -> None:
        self.deadline = _NEVER  # authenticating has a time-out of its own
        self._transport.pause_reading()
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
        if not packet.client_id and not packet.clean:
            return Refusal.BAD_IDENTIFIER
        shortest, longest = self.broker.options.keep_alive_range
        if not (identity.is_internal or identity.registration_only) and not (
            shortest <= packet.keep_alive <= longest
        ):
            return Refusal.NOT_AUTHORIZED
        return identity

    def _accept(self, packet: codec.Connect, identity: Identity) -> None:
        broker, options, now = self.broker, self.broker.options, self.broker.now()
        self.identity = identity
        broker.counters["connects"] += 1
        if identity.registration_only:
            self.deadline, self._deadline_reason = now + options.registration_time, "registration_over"
            self.send(ConnAck())
        else:
            if packet.keep_alive:
                self._keep_alive = 1.5 * packet.keep_alive
            self.deadline, self._deadline_reason = now + self._keep_alive, "keep_alive"
            self.session, present = broker.admit(self, identity, packet.client_id, packet.clean)
            self.send(ConnAck(session_present=present))
            broker.attach(self.session, self)
        if not identity.is_internal:
            self._allowance = TokenBucket(options.packets_per_second, options.packet_burst, now)
        for topic, payload in identity.welcome:
            self.send(codec.Publish(topic, payload))
        early, self._early = self._early, []
        self._process(early)
        if not self.ended:
            self._transport.resume_reading()

    # ---- packets ------------------------------------------------------------------------------------

    def _process(self, packets: list[Packet]) -> None:
        for packet in packets:
            if self.ended:
                return
            if self._authentication is not None:
                self._early.append(packet)
            elif self.identity is not None:
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
                codes = tuple(self._subscribe(topic, qos) for topic, qos in packet.filters)
                self.send(codec.SubAck(packet.packet_id, codes))
                if self.session is not None:
                    self.broker.synchronise(self.session)
            case codec.Unsubscribe():
                if self.session is not None:
                    self.broker.unsubscribe(self.session, packet.filters)
                self.send(codec.UnsubAck(packet.packet_id))
            case codec.Disconnect():
                self.close_gently("disconnect")
            case codec.PubRec() | codec.PubComp():
                pass  # nothing is ever sent with QoS 2
            case _:
                self._refuse_malformed(MalformedPacket(f"{type(packet).__name__} from a client"))

    def _receive(self, packet: codec.Publish) -> None:
        packet_id = packet.packet_id
        if packet_id is not None:
            if packet.dup and packet_id in self.pending:
                return  # still on its way to the gateway
            if packet.qos == 2 and packet_id in self._received:
                self.complete(packet)
                return
        if self.session is None:
            self.broker.counters["denied"] += 1
            self.complete(packet)
        else:
            self.broker.receive(self, self.session, packet)

    def complete(self, packet: codec.Publish) -> None:
        """Tell the client that its message has been taken over."""
        if packet.packet_id is None:
            return
        self.pending.discard(packet.packet_id)
        if packet.qos == 2:
            self._received.add(packet.packet_id)
            self.send(codec.PubRec(packet.packet_id))
        else:
            self.send(codec.PubAck(packet.packet_id))

    def _subscribe(self, topic: str, qos: int) -> int:
        if self.session is not None:
            return self.broker.subscribe(self.session, topic, qos)
        if topic in (topics.REGISTER_REPLY, topics.REGISTER_WITHOUT_LIST_REPLY):
            return min(qos, 1)
        return codec.SUBSCRIBE_REFUSED
