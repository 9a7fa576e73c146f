"""Devices that remember every report that was acknowledged and every push they received."""

import hashlib
import json
import queue
import threading
import time
import urllib.request
from collections import Counter
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devices import credentials

# A module of its own, whose version only counts: a stream of reports whose order is known.
COUNTING = "counter"


class FaultDevice:
    """One device: informs at each connect, downloads what is pushed, restarts into it, and reports on.

    `pushes`: how often each version was pushed. `acknowledged`: the highest number of the counting module
    that the broker has acknowledged; `informed`: the versions whose report it has acknowledged.
    """

    def __init__(self, product_key: str, name: str, secret: str, version: str, port: int) -> None:
        self.key, self.name, self.version = product_key, name, version
        self.pushes: Counter[str] = Counter()
        self.acknowledged = 0
        self.acknowledgements = 0
        self.informed: set[str] = set()
        self._number = 0
        self._waiting: dict[int, tuple[str, int | str]] = {}
        self._lock = threading.Lock()
        self._todo: queue.Queue[dict[str, Any] | None] = queue.Queue()
        login = credentials.mqtt_login(product_key, name, secret)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=login.client_id)
        self.client.username_pw_set(login.username, login.password)
        self.client.reconnect_delay_set(0.2, 1)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.connect_async("127.0.0.1", port, keepalive=20)
        self._thread = threading.Thread(target=self._update_for_ever, name=name, daemon=True)

    def start(self) -> None:
        self.client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        self._todo.put(None)
        self.client.disconnect()
        self.client.loop_stop()

    def count(self) -> None:
        """Report the next number."""
        self._number += 1
        self._report("inform", {"version": str(self._number), "module": COUNTING}, ("number", self._number))

    def _report(self, kind: str, params: dict[str, Any], note: tuple[str, int | str]) -> None:
        body = json.dumps({"id": "1", "params": params})
        with self._lock:  # the acknowledgement may come before we have noted what it is for
            info = self.client.publish(f"/ota/device/{kind}/{self.key}/{self.name}", body, qos=1)
            self._waiting[info.mid] = note

    def _inform(self) -> None:
        self._report("inform", {"version": self.version}, ("version", self.version))

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            threading.Thread(target=self._inform, daemon=True).start()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        with self._lock:
            kind, value = self._waiting.pop(mid, ("", 0))
            self.acknowledgements += 1
            if kind == "number":
                self.acknowledged = max(self.acknowledged, int(value))
            elif kind == "version":
                self.informed.add(str(value))

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic.startswith("/ota/device/upgrade/"):
            package = json.loads(message.payload)["data"]
            self.pushes[package["version"]] += 1
            self._todo.put(package)

    def _update_for_ever(self) -> None:
        while (package := self._todo.get()) is not None:
            if package["version"] != self.version:
                self._update(package)
            self._inform()

    def _update(self, package: dict[str, Any]) -> None:
        self._report("progress", {"step": "10", "desc": ""}, ("step", 10))
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(package["url"], timeout=10) as answer:
                    image = answer.read()
            except OSError:
                time.sleep(0.5)  # as the SDKs do: the link stays
                continue
            if hashlib.md5(image, usedforsecurity=False).hexdigest() == package["md5"]:
                break
        else:
            self._report("progress", {"step": "-2", "desc": "no file"}, ("step", -2))
            return
        for step in (40, 70, 100):
            self._report("progress", {"step": str(step), "desc": ""}, ("step", step))
            time.sleep(0.3)
        self.version = package["version"]
