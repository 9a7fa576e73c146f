"""MQTT clients for tests: one that speaks packet by packet, and paho behind threading primitives."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devices import topics
from devices.brokers.contract import INTERNAL, Identity, PresenceEvent, PresenceSnapshot, Refusal
from devices.brokers.embedded import codec
from devices.brokers.embedded.codec import ConnAck, Decoder, Packet, Publish, encode
from devices.brokers.embedded.properties import Properties

TIMEOUT = 10.0
PK = "a1Product"


async def authenticate(client_id: str, username: str, password: bytes, peer: str) -> Identity | Refusal:
    """Devices are `{dn}&{pk}` with the password "secret"; the platform is "platform" with "internal"."""
    if username == "platform":
        return INTERNAL if password == b"internal" else Refusal.BAD_CREDENTIALS
    if client_id == "unreadable":
        return Refusal.BAD_IDENTIFIER
    if client_id == "crash":
        raise RuntimeError("the database is away")
    device_name, _, product_key = username.partition("&")
    if password != b"secret" or not product_key:
        return Refusal.BAD_CREDENTIALS
    if device_name == "disabled":
        return Refusal.DISABLED
    if client_id == "registers":
        welcome = ((topics.REGISTER_REPLY, b'{"deviceSecret":"x"}'),)
        return Identity(product_key, device_name, welcome=welcome, registration_only=True)
    return Identity(product_key, device_name)


class RawClient:
    """Sends and receives single packets; every wait has a time-out."""

    level = codec.MQTT_3_1_1

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = self._open(port, tls)
        self._decoder = Decoder(level=self.level)
        self._received: list[Packet] = []

    def _open(self, port: int, tls: ssl.SSLContext | None) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        return plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *packets: Packet) -> None:
        self.socket.sendall(b"".join(encode(packet, self.level) for packet in packets))

    def receive(self) -> Packet:
        """The next packet. Raises EOFError if the broker closes instead."""
        while not self._received:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError
            self._received += self._decoder.feed(data)
        return self._received.pop(0)

    def exchange(self, packet: Packet) -> Packet:
        self.send(packet)
        return self.receive()

    def connect(
        self,
        client_id: str,
        username: str,
        password: bytes,
        keep_alive: int = 60,
        clean: bool = True,
        more: Properties | None = None,
    ) -> ConnAck:
        answer = self.exchange(
            codec.Connect(client_id, username, password, keep_alive, clean, level=self.level, properties=more)
        )
        assert isinstance(answer, ConnAck)
        return answer

    def subscribe(self, *filters: str, qos: int = 1) -> tuple[int, ...]:
        answer = self.exchange(codec.Subscribe(1, tuple((each, qos) for each in filters)))
        assert isinstance(answer, codec.SubAck)
        return answer.codes

    def receive_publish(self, acknowledge: bool = True) -> Publish:
        packet = self.receive()
        assert isinstance(packet, Publish), packet
        if acknowledge and packet.packet_id is not None:
            self.send(codec.PubAck(packet.packet_id))
        return packet

    def has_nothing_more(self) -> bool:
        """Whether everything the broker has sent so far is received: a ping's answer comes behind it."""
        return isinstance(self.exchange(codec.PingReq()), codec.PingResp)

    def is_told_goodbye(self, reason: codec.ReasonCode) -> bool:
        """Waits for the broker's DISCONNECT, which must give this reason."""
        while not isinstance(packet := self.receive(), codec.Disconnect):
            pass
        return packet.reason == reason and self.is_closed_by_broker()

    def is_closed_by_broker(self) -> bool:
        """Waits for the end of the connection; what still arrives is ignored."""
        try:
            while True:
                self.receive()
        except EOFError:
            return True


class Device(RawClient):
    """A raw client that has connected as a device."""

    def __init__(self, port: int, name: str, keep_alive: int = 60, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(port, tls)
        self.name = name
        answer = self.connect(f"{PK}.{name}|securemode=3|", f"{name}&{PK}", b"secret", keep_alive)
        assert answer.code == 0

    def topic(self, kind: topics.Kind) -> str:
        return topics.build(kind, PK, self.name)


class DeviceOf5(Device):
    """The same, speaking MQTT 5."""

    level = codec.MQTT_5


class Gateway(RawClient):
    """A raw client that has connected as the gateway and subscribed to everything it needs."""

    def __init__(
        self, port: int, client_id: str = "gateway", clean: bool = False, subscribe: bool = True
    ) -> None:
        super().__init__(port)
        self.resumed = self.connect(client_id, "platform", b"internal", 0, clean).session_present
        if subscribe:
            assert set(self.subscribe(*topics.GATEWAY_FILTERS)) == {1}
            self.snapshot = self.receive_snapshot()

    def receive_snapshot(self) -> PresenceSnapshot:
        packet = self.receive_publish()
        assert packet.topic == topics.EPOCH
        return PresenceSnapshot.from_json(packet.payload)

    def receive_event(self) -> PresenceEvent:
        packet = self.receive_publish()
        return PresenceEvent.from_json(packet.topic, packet.payload)


class PahoClient:
    """A real client with its own thread. `messages` holds what arrives; leaving the context disconnects."""

    def __init__(
        self,
        port: int,
        client_id: str,
        username: str,
        password: str,
        clean: bool = True,
        manual_ack: bool = False,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        is_five = protocol is MQTTProtocolVersion.MQTTv5
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if is_five else clean,
            manual_ack=manual_ack,
            protocol=protocol,
        )
        self.client.username_pw_set(username, password)
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.answers: queue.Queue[int] = queue.Queue()
        self.disconnected = threading.Event()
        self.client.on_connect = lambda _c, _u, _f, code, _p: self.answers.put(code.value)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda *_: self.disconnected.set()
        self._port = port

    def __enter__(self) -> Self:
        self.client.connect("127.0.0.1", self._port, keepalive=60)
        self.client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def is_connected(self) -> bool:
        """Waits for CONNACK."""
        return self.answers.get(timeout=TIMEOUT) == 0

    def receive(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=TIMEOUT)
