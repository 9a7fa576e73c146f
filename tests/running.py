"""The real parts of the platform, running inside a test: broker, gateway, and devices on real sockets."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
from django.db import connections
from django.test import override_settings
from paho.mqtt.enums import CallbackAPIVersion

from campaigns import dispatch, expand, sweep
from campaigns.models import Campaign
from devices import credentials, mqtt
from devices.models import Device
from otaplatform import web_server
from otaplatform.gateway.session import GatewaySession
from otaplatform.management.commands.gateway import embedded_broker
from otaplatform.web_server import Limits

TIMEOUT = 15


def wait_until(holds: Callable[[], Any], what: str = "") -> Any:
    """Poll a fact of the database until it holds; AssertionError after the time-out."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if value := holds():
            return value
        threading.Event().wait(0.02)
    raise AssertionError(f"did not happen within {TIMEOUT} s: {what or holds}")


class RealDevice:
    """A device on a paho client, logging in as the SDKs do; it never subscribes."""

    def __init__(self, device: Device, port: int, *, secret: str | None = None) -> None:
        self.device, self.port = device, port
        self.key, self.name = device.product.product_key, device.name
        login = credentials.mqtt_login(self.key, self.name, secret or device.secret)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=login.client_id)
        self.client.username_pw_set(login.username, login.password)
        self.reason: Any = None
        self._connected = threading.Event()
        self._got = threading.Condition()
        self.messages: list[tuple[str, Any]] = []
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.reason = reason
        self._connected.set()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._got:
            self.messages.append((message.topic, json.loads(message.payload)))
            self._got.notify_all()

    def connect(self) -> "RealDevice":
        self.client.connect("127.0.0.1", self.port, keepalive=60)
        self.client.loop_start()
        assert self._connected.wait(TIMEOUT)
        return self

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, kind: str, payload: Any, qos: int = 1) -> paho.MQTTMessageInfo:
        """Publish on `/ota/device/{kind}/…`; the answer knows when the broker has taken it."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.client.publish(f"/ota/device/{kind}/{self.key}/{self.name}", body, qos)

    def send(self, kind: str, payload: Any, qos: int = 1) -> None:
        """Publish and wait for the broker's PUBACK."""
        info = self.publish(kind, payload, qos)
        info.wait_for_publish(TIMEOUT)
        assert info.is_published()

    def inform(self, version: str, **options: Any) -> None:
        self.send("inform", {"id": 1, "params": {"version": version}}, **options)

    def progress(self, step: object, desc: str = "") -> None:
        self.send("progress", {"id": "1", "params": {"step": str(step), "desc": desc}})

    def wait_for_message(self, topic: str) -> Any:
        """The payload of the first message received on a topic that contains this text."""

        def found() -> Any:
            return next((body for name, body in self.messages if topic in name), None)

        with self._got:
            assert self._got.wait_for(lambda: found() is not None, TIMEOUT), f"nothing on {topic}"
            return found()


class Platform:
    """A broker and a gateway; `pause_gateway` and `resume_gateway` as if its process died and came back."""

    def __init__(self) -> None:
        self.broker = embedded_broker()
        self.broker.start()
        (self.port, *_rest) = self.broker.ports
        self.session: GatewaySession
        self._thread: threading.Thread

    def resume_gateway(self, session: GatewaySession | None = None) -> GatewaySession:
        self.session = session or GatewaySession()

        def run() -> None:
            try:
                self.session.run()
            finally:
                connections.close_all()

        self._thread = threading.Thread(target=run, name="gateway", daemon=True)
        self._thread.start()
        assert self.session.connected.wait(TIMEOUT)
        return self.session

    def pause_gateway(self) -> None:
        self.session.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def device(self, device: Device, **options: Any) -> RealDevice:
        return RealDevice(device, self.port, **options)


@contextmanager
def running_platform() -> Iterator[Platform]:
    """Needs a database that threads can share (the `transactional_db` fixture)."""
    with override_settings(OTA_MQTT_PORT=0, MQTT_URL=""):
        platform = Platform()
    with override_settings(OTA_MQTT_PORT=platform.port, MQTT_URL=""):
        try:
            platform.resume_gateway()
            yield platform
        finally:
            platform.pause_gateway()
            mqtt.publisher().close()
            platform.broker.stop()


@contextmanager
def running_web(limits: Limits | None = None) -> Iterator[str]:
    """The whole ASGI application on a free port; its address is what download links begin with."""
    from otaplatform.asgi import application

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = web_server.server(application, limits or Limits())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True)
    with override_settings(OTA_PUBLIC_URL=url, OTA_DOWNLOAD_URL=url):
        thread.start()
        try:
            wait_until(lambda: server.started, "the web server starts")
            yield url
        finally:
            server.should_exit = True
            thread.join(TIMEOUT)
            listener.close()


@contextmanager
def running_dispatcher() -> Iterator[None]:
    """The ticks that move tasks, as the workers run them, until the context is left."""
    stopping = threading.Event()

    def run() -> None:
        send = mqtt.publisher().publish
        try:
            while not stopping.wait(0.05):
                for campaign in Campaign.objects.unexpanded():
                    expand.expand(campaign.pk)
                dispatch.dispatch(send)
                sweep.sweep()
                sweep.finish()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="dispatcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(TIMEOUT)
