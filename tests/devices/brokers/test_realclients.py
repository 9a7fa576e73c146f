"""The broker against clients of others: mosquitto's, and paho over TLS."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices import topics
from devices.brokers.embedded import BrokerThread, Listener
from devices.brokers.embedded.codec import Publish
from devices.topics import Kind
from tests.devices.brokers.clients import PK, TIMEOUT, Device, Gateway, PahoClient, RawClient, authenticate


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (package mosquitto-clients)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def mosquitto(name: str, port: int, topic: str, *arguments: str) -> list[str]:
    return [program(name), "-h", "127.0.0.1", "-p", str(port), "-t", topic, *arguments]


DEVICE = ("-i", f"{PK}.dn|securemode=3,signmethod=hmacsha256|", "-u", f"dn&{PK}", "-P", "secret")


@pytest.mark.realclient
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_pub_reports_with_every_qos(port: int, gateway: Gateway, version: str, qos: str) -> None:
    command = mosquitto("mosquitto_pub", port, f"/ota/device/inform/{PK}/dn", "-V", version, "-q", qos)
    with subprocess.Popen([*command, *DEVICE, "-m", "v1"]) as process:
        assert gateway.receive_event().connected
        assert gateway.receive_publish().payload == b"v1"
        assert process.wait(TIMEOUT) == 0
    assert gateway.receive_event().reason == "disconnect"


@pytest.mark.realclient
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311"])
def test_mosquitto_sub_receives_a_push(port: int, gateway: Gateway, version: str) -> None:
    command = mosquitto("mosquitto_sub", port, f"/ota/device/upgrade/{PK}/dn", "-V", version, "-q", "1")
    with subprocess.Popen([*command, *DEVICE, "-C", "1"], stdout=subprocess.PIPE) as process:
        assert gateway.receive_event().connected
        gateway.send(Publish(f"/ota/device/upgrade/{PK}/dn", b"push", 1, 1))
        output, _ = process.communicate(timeout=TIMEOUT)
    assert output == b"push\n"


@pytest.mark.realclient
def test_mosquitto_learns_that_a_password_is_wrong(port: int) -> None:
    command = mosquitto("mosquitto_pub", port, "/x", "-u", f"dn&{PK}", "-P", "wrong", "-m", "x")
    answer = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert answer.returncode == 4 or b"bad user name or password" in answer.stderr.lower()


@pytest.mark.realclient
def test_mosquitto_sub_of_the_platform_sees_presence(port: int) -> None:
    platform = ("-i", "watcher", "-u", "platform", "-P", "internal", "-q", "1", "-C", "2", "-F", "%t %p")
    command = mosquitto("mosquitto_sub", port, "$ota/#", *platform)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        epoch = process.stdout.readline()  # it has subscribed
        with Device(port, "dn"):
            presence = process.stdout.readline()
        assert process.wait(TIMEOUT) == 0
    assert epoch.startswith(b"$ota/epoch ")
    topic, payload = presence.split(b" ", 1)
    assert topic == f"$ota/presence/{PK}/dn".encode()
    assert json.loads(payload)["event"] == "connected"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate of localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def tls_ports(certificate: Path) -> Iterator[tuple[int, ...]]:
    """A plain and a TLS port of one broker."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with BrokerThread(authenticate, [Listener(0), Listener(0, ssl=context)]) as broker:
        yield broker.ports


def test_a_paho_device_over_tls_reports_and_is_pushed_to(
    certificate: Path, tls_ports: tuple[int, ...]
) -> None:
    plain, tls = tls_ports
    client = PahoClient(tls, "x|securemode=2|", f"dn&{PK}", "secret")
    client.client.tls_set(str(certificate))
    with Gateway(plain) as gateway, client as device:
        assert device.is_connected()
        assert gateway.receive_event().connected
        sent = device.client.publish(topics.build(Kind.INFORM, PK, "dn"), bytes(100_000), 1)
        assert len(gateway.receive_publish().payload) == 100_000
        sent.wait_for_publish(TIMEOUT)
        gateway.send(Publish(topics.build(Kind.UPGRADE, PK, "dn"), b"push", 1, 1))
        assert device.receive().payload == b"push"


def test_a_take_over_and_a_failed_handshake_over_tls(certificate: Path, tls_ports: tuple[int, ...]) -> None:
    _, tls = tls_ports
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Device(tls, "dn", tls=trusting) as first, Device(tls, "dn", tls=trusting) as second:
        assert first.is_closed_by_broker()
        with RawClient(tls) as plaintext:
            plaintext.socket.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab")
            while plaintext.socket.recv(4096):  # perhaps a TLS alert, then the end
                pass
        assert second.has_nothing_more()
