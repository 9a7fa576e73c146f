from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices.brokers.embedded import BrokerThread, Listener, Options
from tests.devices.brokers.clients import Gateway, authenticate


@pytest.fixture
def options() -> Options:
    """Override in a module or parametrize to test under other bounds."""
    return Options(keep_alive_range=(1, 1200), sweep_interval=0.05)


@pytest.fixture
def broker(options: Options) -> Iterator[BrokerThread]:
    with BrokerThread(authenticate, [Listener(0)], options) as running:
        yield running


@pytest.fixture
def port(broker: BrokerThread) -> int:
    return broker.ports[0]


@pytest.fixture
def gateway(port: int) -> Iterator[Gateway]:
    with Gateway(port) as connected:
        yield connected


@pytest.fixture(scope="session")
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
