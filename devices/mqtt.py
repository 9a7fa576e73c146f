"""The platform's own MQTT clients: where the broker is, a link to it, and one publisher for each process.

A link is driven by its owner's thread. paho's own thread waits with select(), which fails in a process with
more than a thousand open files (the gateway runs the embedded broker), and costs a third of the throughput.
"""

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import paho.mqtt.client as paho
from django.conf import settings
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devices import topics

logger = logging.getLogger(__name__)

INTERNAL_USER = "internal"
CONNECT_TIMEOUT = 5.0
WINDOW = 100  # more messages in flight are not faster
READ_AT_ONCE = 500
NO_SUBSCRIBER = 16  # MQTT 5: the broker took the message, and nobody was there for it


class Delivery(IntEnum):
    """What the broker said of a published message."""

    UNKNOWN = 0  # it did not answer: the message may have arrived or not
    TAKEN = 1
    NO_SUBSCRIBER = 2  # it took the message, and nobody was connected to receive it


class LinkError(Exception):
    """There is no connection to the broker, or it ended."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the platform's clients reach the broker, and as whom.

    `protocol` 5 lets a publisher hear that a device was not there; `share` is the name of the shared
    subscription that several gateways divide among them; `ca` a file of certificates to trust.
    """

    host: str
    port: int
    tls: bool = False
    username: str = INTERNAL_USER
    password: str = field(default="", repr=False)
    protocol: int = 4
    share: str = ""
    ca: str = ""


def address() -> Address:
    """The broker of MQTT_URL, or without one the embedded broker on this machine.

    `mqtt://user:password@host:1883` or `mqtts://…`, with `?protocol=5`, `share=name`, `ca=/file.pem` as
    options. Raises ValueError for anything else.
    """
    if not settings.MQTT_URL:
        host = "::1" if settings.OTA_BIND == "::" else "127.0.0.1"  # the broker always listens there, too
        return Address(host, settings.OTA_MQTT_PORT, password=settings.OTA_MQTT_PASSWORD, protocol=5)
    url = urlsplit(settings.MQTT_URL)
    options = {name: values[-1] for name, values in parse_qs(url.query).items()}
    protocol = options.pop("protocol", "4")
    share, ca = options.pop("share", ""), options.pop("ca", "")
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or options or protocol not in ("4", "5"):
        raise ValueError("MQTT_URL must look like mqtt://user:password@host:1883")
    tls = url.scheme == "mqtts"
    return Address(
        url.hostname,
        url.port or (8883 if tls else 1883),
        tls,
        unquote(url.username or INTERNAL_USER),
        unquote(url.password or settings.OTA_MQTT_PASSWORD),
        int(protocol),
        share,
        ca,
    )


class Link:
    """One connection to the broker, from `connect` to its end; a new connection is a new link.

    Nothing happens on it but in `turn`, `publish` and `acknowledge`, all called by one thread.
    `on_message` is called with each message; QoS 1 messages wait for `acknowledge`. `on_published` is called
    with (packet id, whether somebody was there to receive it) for each QoS 1 publish that the broker took.
    """

    def __init__(
        self,
        where: Address,
        client_id: str,
        *,
        persistent: bool = False,
        keep_alive: int = 60,
        on_message: Callable[[paho.MQTTMessage], None] = lambda _message: None,
        on_published: Callable[[int, bool], None] = lambda _packet_id, _reached: None,
    ) -> None:
        self._where = where
        self._keep_alive = keep_alive
        self._read = 0
        self._verdict: Any = None
        self.is_up = False
        self.is_resumed = False
        is_five = where.protocol == 5 and not persistent
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if is_five else not persistent,
            protocol=MQTTProtocolVersion.MQTTv5 if is_five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        client.username_pw_set(where.username, where.password)
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages_set(0)  # the owner keeps the window
        if where.tls:
            client.tls_set_context(ssl.create_default_context(cafile=where.ca or None))

        def message(_client: Any, _data: Any, received: paho.MQTTMessage) -> None:
            self._read += 1
            on_message(received)

        def published(_client: Any, _data: Any, packet_id: int, reason: Any, _more: Any) -> None:
            self._read += 1
            on_published(packet_id, not reason.is_failure and reason.value != NO_SUBSCRIBER)

        client.on_message = message
        client.on_publish = published
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected

    def _connected(self, _client: Any, _data: Any, flags: Any, reason: Any, _more: Any) -> None:
        self._verdict = reason
        self.is_up = not reason.is_failure
        self.is_resumed = flags.session_present

    def _disconnected(self, *_arguments: Any) -> None:
        self.is_up = False

    def connect(self) -> None:
        """Connect and wait for the broker's answer. Raises LinkError."""
        try:
            self._client.connect(self._where.host, self._where.port, self._keep_alive)
        except (OSError, ValueError) as error:
            raise LinkError(f"{self._where.host}:{self._where.port}: {error}") from error
        if isinstance(plain := self._client.socket(), socket.socket):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while self._verdict is None and self._client.socket() and time.monotonic() < deadline:
            self.turn(0.1)
        if not self.is_up:
            self.drop()
            raise LinkError(f"no connection: {self._verdict or 'no answer'}")

    def subscribe(self, filters: Sequence[str]) -> None:
        """With QoS 1. What the broker grants is not waited for. Raises LinkError."""
        code, _ = self._client.subscribe([(each, 1) for each in filters])
        if code:
            raise LinkError(paho.error_string(code))

    def turn(self, seconds: float, limit: int = READ_AT_ONCE) -> None:
        """Wait up to `seconds` for something to arrive, then read about `limit` packets; write what waits."""
        readable = self._client.socket()
        if readable is None:
            self.is_up = False
            return
        poller = select.poll()
        poller.register(
            readable.fileno(), select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        )
        pending = isinstance(readable, ssl.SSLSocket) and readable.pending() > 0
        events = dict(poller.poll(0 if pending else int(seconds * 1000)))
        if events or pending:
            self._read = 0
            before = -1
            while before < self._read < limit and self._client.socket() is not None:
                before = self._read
                self._client.loop_read()
            if self._client.want_write():
                self._client.loop_write()
        self._client.loop_misc()
        if self._client.socket() is None:
            self.is_up = False

    def publish(self, topic: str, payload: bytes) -> int | None:
        """Hand over with QoS 1; the packet id, or None if the connection is gone."""
        info = self._client.publish(topic, payload, qos=1)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def acknowledge(self, packet_id: int) -> None:
        """Tell the broker that a QoS 1 message needs no sending again."""
        self._client.ack(packet_id, 1)

    def close(self) -> None:
        """Say goodbye and disconnect."""
        self._client.disconnect()
        self.drop()

    def drop(self) -> None:
        """End the connection without a word."""
        if isinstance(left := self._client.socket(), socket.socket):
            with contextlib.suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)
        while self._client.socket() is not None:
            self._client.loop_read()  # to the end of the stream, where paho cleans up
        self.is_up = False


class Publisher:
    """Publishes batches with QoS 1 over one long-lived connection; a broker that is down costs no exception.

    May be shared by threads, but not by processes: use `publisher()`.
    """

    def __init__(self, where: Address | None = None) -> None:
        self._where = where or address()
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, int] = {}
        self._taken: list[Delivery] = []

    def ready(self) -> bool:
        """Whether the broker is there: ask before claiming what is then to be published."""
        with self._lock:
            return self._connection() is not None

    def publish(
        self, messages: Sequence[tuple[str, bytes]], window: int = WINDOW, timeout: float = 10.0
    ) -> list[Delivery]:
        """Publish (topic, payload) pairs, `window` in flight; for each, what the broker said of it.

        Only a broker of MQTT 5 says that nobody was there. What is not acknowledged within `timeout` seconds
        may have arrived all the same; it is not sent later.
        """
        with self._lock:
            self._taken = [Delivery.UNKNOWN] * len(messages)
            link = self._connection() if messages else None
            if link is None:
                return self._taken
            deadline = time.monotonic() + timeout
            following = enumerate(messages)
            left = len(messages)
            while link.is_up and (left or self._waiting) and time.monotonic() < deadline:
                while left and len(self._waiting) < window:
                    index, (topic, payload) = next(following)
                    left -= 1
                    if (packet_id := link.publish(topic, payload)) is None:
                        link.drop()
                        break
                    self._waiting[packet_id] = index
                link.turn(0.1)
            if not link.is_up or self._waiting or left:
                taken = sum(map(bool, self._taken))
                logger.warning("the broker took %s of %s messages", taken, len(messages))
                # A late acknowledgement must not be taken for one of the next batch.
                link.drop()
            return self._taken

    def _published(self, packet_id: int, reached: bool) -> None:
        index = self._waiting.pop(packet_id, None)
        if index is not None:
            self._taken[index] = Delivery.TAKEN if reached else Delivery.NO_SUBSCRIBER

    def _connection(self) -> Link | None:
        self._waiting.clear()
        if self._link is not None:
            self._link.turn(0)  # notices that the broker has closed meanwhile
            if self._link.is_up:
                return self._link
        # Nobody turns this link between batches, so nobody could answer for its keep-alive.
        name = f"ota-publisher-{os.getpid()}-{os.urandom(4).hex()}"
        link = Link(self._where, name, keep_alive=0, on_published=self._published)
        try:
            link.connect()
        except LinkError as error:
            logger.warning("no connection to the MQTT broker: %s", error)
            return None
        self._link = link
        return link

    def close(self) -> None:
        """Disconnect; the next publish connects again."""
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None


_publishers: dict[tuple[int, Address], Publisher] = {}


def publisher() -> Publisher:
    """This process's publisher, made at its first use: a forked worker never shares its parent's."""
    key = os.getpid(), address()
    if key not in _publishers:
        _publishers[key] = Publisher(key[1])
    return _publishers[key]


def kick(product_key: str, device_name: str, reason: str = "kicked") -> bool:
    """Ask the broker to end a device's connection; whether the broker took the wish."""
    topic = topics.build(topics.Kind.KICK, product_key, device_name)
    return publisher().publish([(topic, reason.encode())])[0] is not Delivery.UNKNOWN
