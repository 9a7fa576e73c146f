"""TLS: the same broker, however the bytes are cut into records and segments."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from devices import topics
from devices.brokers.embedded.codec import PingReq, PingResp, PubAck, Publish, encode
from devices.topics import Kind
from tests.devices.brokers.clients import PK, TIMEOUT, Device, Gateway, PahoClient, RawClient


class Records:
    """A TLS connection on which a test decides which records share a segment; as a socket for `RawClient`."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self._plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
                self._plain.sendall(self._outgoing.read())
                return
            except ssl.SSLWantReadError:
                self._plain.sendall(self._outgoing.read())
                self._incoming.write(self._plain.recv(65536))

    def seal(self, data: bytes) -> bytes:
        """One TLS record that holds this."""
        self._tls.write(data)
        return self._outgoing.read()

    def send_segment(self, sealed: bytes) -> None:
        self._plain.sendall(sealed)

    def sendall(self, data: bytes) -> None:
        self.send_segment(self.seal(data))

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                more = self._plain.recv(65536)
                if not more:
                    return b""
                self._incoming.write(more)

    def close(self) -> None:
        self._plain.close()


class TlsDevice(Device):
    """A device over TLS that says how its packets travel."""

    def __init__(self, port: int, name: str, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(port, name)

    def _open(self, port: int, tls: ssl.SSLContext | None) -> socket.socket:
        self.records = Records(port, self._context)
        return cast("socket.socket", self.records)

    def send_records(self, packets: Sequence[Publish | PingReq], cuts: Sequence[int] = ()) -> None:
        """One record for each packet, all in one segment, or cut at these bytes of the sealed stream."""
        sealed = b"".join(self.records.seal(encode(packet)) for packet in packets)
        for start, end in zip([0, *cuts], [*cuts, len(sealed)], strict=True):
            self.records.send_segment(sealed[start:end])


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


@contextmanager
def noise(port: int) -> Iterator[None]:
    """Other connections that never stop talking."""
    stopping = threading.Event()
    failures: list[BaseException] = []

    def talk(name: str) -> None:
        try:
            with Device(port, name) as device:
                while not stopping.is_set():
                    device.send(*[Publish(f"/sys/{PK}/{name}/thing/event/post", b"n" * 300)] * 3)
                    assert device.has_nothing_more()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(f"noise{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert not failures


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("cuts", [(), (1,), (40,), (3, 60, 90, 120)], ids=str)
def test_every_packet_of_a_segment_arrives_over_tls_beside_others(
    tls_ports: tuple[int, ...], trusting: ssl.SSLContext, count: int, cuts: tuple[int, ...]
) -> None:
    plain, tls = tls_ports
    with TlsDevice(tls, "dn", trusting) as device, noise(plain), Gateway(plain) as gateway:
        inform = device.topic(Kind.INFORM)
        for turn in range(5):
            payloads = [b"%d-%d" % (turn, number) for number in range(count)]
            sent = [Publish(inform, payload, 1, number) for number, payload in enumerate(payloads, 1)]
            device.send_records(sent, cuts)
            arrived: list[bytes] = []
            while len(arrived) < count:
                packet = gateway.receive_publish()
                if packet.topic == inform:
                    arrived.append(packet.payload)
            assert arrived == payloads
            assert [device.receive() for _ in sent] == [PubAck(packet.packet_id or 0) for packet in sent]


def test_a_strangers_bytes_are_never_taken_for_a_report_of_a_device_on_tls(
    tls_ports: tuple[int, ...], trusting: ssl.SSLContext
) -> None:
    plain, tls = tls_ports
    with Gateway(plain) as gateway, TlsDevice(tls, "dn", trusting) as victim, Device(plain, "evil") as evil:
        assert {gateway.receive_event().device_name for _ in range(2)} == {"dn", "evil"}
        true, forged = (Publish(victim.topic(Kind.INFORM), version) for version in (b"1.0.0", b"2.0.0"))
        # The forged report lies where the victim's second record would be read to.
        evil.send(PingReq(), forged)
        assert evil.receive() == PingResp()
        assert evil.has_nothing_more()
        victim.send_records([PingReq(), true])
        assert victim.receive() == PingResp()
        assert gateway.receive_publish().payload == b"1.0.0"
        assert gateway.has_nothing_more()


def test_a_paho_device_over_tls_reports_and_is_pushed_to(
    certificate: Path, tls_ports: tuple[int, ...]
) -> None:
    plain, tls = tls_ports
    client = PahoClient(tls, "x|securemode=2|", f"dn&{PK}", "secret")
    client.client.tls_set(str(certificate))
    with Gateway(plain) as gateway, client as device:
        assert device.is_connected()
        assert gateway.receive_event().connected
        sent = device.client.publish(topics.build(Kind.INFORM, PK, "dn"), bytes(60_000), 1)
        assert gateway.receive_publish().payload == bytes(4097)
        sent.wait_for_publish(TIMEOUT)
        gateway.send(Publish(topics.build(Kind.UPGRADE, PK, "dn"), b"push", 1, 1))
        assert device.receive().payload == b"push"


def test_a_take_over_and_a_failed_handshake_over_tls(
    trusting: ssl.SSLContext, tls_ports: tuple[int, ...]
) -> None:
    _, tls = tls_ports
    with Device(tls, "dn", tls=trusting) as first, Device(tls, "dn", tls=trusting) as second:
        assert first.is_closed_by_broker()
        with RawClient(tls) as plaintext:
            plaintext.socket.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab")
            while plaintext.socket.recv(4096):  # perhaps a TLS alert, then the end
                pass
        assert second.has_nothing_more()
