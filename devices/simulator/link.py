"""One MQTT connection of a simulated device."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from ssl import SSLContext
from typing import Self

from devices.brokers.embedded import codec
from devices.brokers.embedded.codec import ConnAck, ConnectCode, MalformedPacket, Packet, Publish, ReasonCode

CONNECT_TIMEOUT = 30.0
PATIENCE = 1.5  # keep-alive times
_READ_SIZE = 16 * 1024


class Refused(Exception):  # noqa: N818 - the broker's verdict, not a fault of the program
    """CONNACK with a code other than 0."""

    def __init__(self, code: ConnectCode | ReasonCode) -> None:
        super().__init__(code.name)
        self.code = code


class Link:
    """An accepted connection. `receive` must be awaited all the time: it also sends the pings."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ping_every: float, patience: float
    ) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = codec.Decoder()
        self._packets: deque[Packet] = deque()
        self._ping_every, self._patience = ping_every, patience
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._heard_at = self._loop.time()
        self._packet_id = 0

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        connect: codec.Connect,
        ping_every: float,
        patience: float | None = None,
        tls: SSLContext | None = None,
    ) -> Self:
        """`patience`: seconds of the broker's silence after which the connection counts as dead; by default
        1.5 keep-alive times. Raises Refused, OSError (also TimeoutError) or MalformedPacket.
        """
        patience = PATIENCE * connect.keep_alive if patience is None else patience
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_READ_SIZE)
            link = cls(reader, writer, ping_every, patience)
            try:
                link._send(connect)
                answer = await link._next_packet()
                if not isinstance(answer, ConnAck):
                    raise ConnectionError("the connection ended before CONNACK")
                if answer.code is not ConnectCode.ACCEPTED:
                    raise Refused(answer.code)
            except BaseException:
                link.abort()
                raise
        return link

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """Does nothing on a connection that has ended."""
        self._send(Publish(topic, payload, qos, self._next_id() if qos else None))

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        self._send(codec.Subscribe(self._next_id(), filters))

    async def receive(self) -> Publish | None:
        """The next message, already acknowledged; None when the connection has ended, whoever ended it."""
        while True:
            try:
                packet = await self._next_packet()
            except (OSError, MalformedPacket):
                self.abort()
                return None
            if packet is None:
                self.abort()
                return None
            if isinstance(packet, Publish):
                if packet.qos == 1 and packet.packet_id is not None:
                    self._send(codec.PubAck(packet.packet_id))
                return packet

    def close(self) -> None:
        """Say good-bye and end the connection."""
        self._send(codec.Disconnect())
        self._writer.close()

    def abort(self) -> None:
        """End the connection as a device without power does. May be called again."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Until what was sent has left."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _next_packet(self) -> Packet | None:
        while not self._packets:
            try:
                async with asyncio.timeout_at(self._sent_at + self._ping_every):
                    data = await self._reader.read(_READ_SIZE)
            except TimeoutError:
                if self._loop.time() - self._heard_at > self._patience:
                    return None
                self._send(codec.PingReq())
                continue
            if not data:
                return None
            self._heard_at = self._loop.time()
            self._packets.extend(self._decoder.feed(data))
        return self._packets.popleft()

    def _send(self, packet: Packet) -> None:
        if not self._writer.is_closing():
            self._sent_at = self._loop.time()
            self._writer.write(codec.encode(packet))

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id
