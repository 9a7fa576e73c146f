"""A platform in small: the real broker with real credentials, a gateway's ears, and a file server."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from devices import credentials, topics
from devices.brokers.contract import INTERNAL, Identity, Refusal
from devices.brokers.embedded import BrokerThread, Listener, Options
from devices.brokers.embedded.codec import PubAck, Publish
from devices.simulator import DeviceKeys
from tests.devices.brokers.clients import Gateway

PRODUCT_KEY = "a1Simulated"
KEYS = [DeviceKeys(PRODUCT_KEY, f"sim-{number:04d}", f"secret-{number}") for number in range(8)]
IMAGE = bytes(range(256)) * 400


async def authenticate(client_id: str, username: str, password: bytes, peer: str) -> Identity | Refusal:
    """The platform as "platform" with "internal", and the devices of KEYS by their signatures."""
    if username == "platform":
        return INTERNAL
    claimed = credentials.parse(client_id, username)
    for keys in KEYS:
        is_meant = (keys.product_key, keys.device_name) == (claimed.product_key, claimed.device_name)
        if is_meant and credentials.password_matches(keys.device_secret, claimed, password):
            return Identity(keys.product_key, keys.device_name)
    return Refusal.BAD_CREDENTIALS


@pytest.fixture
def port() -> Iterator[int]:
    with BrokerThread(authenticate, [Listener(0)], Options()) as broker:
        yield broker.ports[0]


class Platform(Gateway):
    """Hears the devices' reports in order, and pushes."""

    def push(self, device_name: str, payload: bytes) -> None:
        self.send(Publish(topics.build(topics.Kind.UPGRADE, PRODUCT_KEY, device_name), payload, 1, 7))

    def report(self, device_name: str) -> tuple[topics.Kind, dict[str, Any]]:
        """The next inform or progress of a device; its parameters."""
        while True:
            known, packet = None, self.receive()
            if isinstance(packet, Publish):
                known = topics.parse(packet.topic)
                self.acknowledge(packet)
            if known is not None and known.kind in topics.UPLINK and known.device_name == device_name:
                assert isinstance(packet, Publish)
                return known.kind, json.loads(packet.payload)["params"]

    def acknowledge(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self.send(PubAck(packet.packet_id))

    def reports_until_inform(self, device_name: str) -> tuple[list[int], str]:
        """The steps reported before the next inform, and the version that it names."""
        steps: list[int] = []
        while True:
            kind, params = self.report(device_name)
            if kind is topics.Kind.INFORM:
                return steps, params["version"]
            steps.append(int(params["step"]))

    def failure(self, device_name: str) -> dict[str, Any]:
        """The parameters of the first report of a step below 0, which comes before any inform."""
        while True:
            kind, params = self.report(device_name)
            assert kind is topics.Kind.PROGRESS
            if int(params["step"]) < 0:
                return params


@pytest.fixture
def platform(port: int) -> Iterator[Platform]:
    with Platform(port) as connected:
        yield connected


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `content` at any path, with Range. While `gate` is closed, answers wait."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = IMAGE
        self.ranges: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.cut_off_at: int | None = None  # once: send no more than this of an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/f/token?x=1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.server.gate.wait(10)
        content, wanted = self.server.content, self.headers["Range"]
        self.server.ranges.append(wanted)
        matched = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        assert matched is not None
        start, last = int(matched[1]), int(matched[2] or len(content) - 1)
        if start >= len(content) or self.path != "/f/token?x=1":
            self.send_error(416)
            return
        part = content[start : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        cut, self.server.cut_off_at = self.server.cut_off_at, None
        self.wfile.write(part[:cut])
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


def push_of(url: str, version: str = "2.0.0", content: bytes = IMAGE, **data: Any) -> bytes:
    """A push as the platform sends it; `data` adds or replaces fields."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    body = {
        "size": len(content),
        "version": version,
        "url": url,
        "md5": md5,
        "sign": md5,
        "signMethod": "Md5",
    }
    message = {"code": "1000", "data": body | data, "id": 1, "message": "success"}
    return json.dumps(message, separators=(",", ":")).encode()
