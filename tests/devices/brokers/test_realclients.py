"""The broker against clients of others: mosquitto's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devices.brokers.embedded.codec import Publish
from tests.devices.brokers.clients import PK, TIMEOUT, Device, Gateway


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
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_pub_reports_with_every_qos(port: int, gateway: Gateway, version: str, qos: str) -> None:
    command = mosquitto("mosquitto_pub", port, f"/ota/device/inform/{PK}/dn", "-V", version, "-q", qos)
    with subprocess.Popen([*command, *DEVICE, "-m", "v1"]) as process:
        assert gateway.receive_event().connected
        assert gateway.receive_publish().payload == b"v1"
        assert process.wait(TIMEOUT) == 0
    assert gateway.receive_event().reason == "disconnect"


@pytest.mark.realclient
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
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


@pytest.mark.realclient
def test_each_line_that_mosquitto_pub_reads_is_a_report(
    certificate: Path, tls_ports: tuple[int, ...]
) -> None:
    plain, tls = tls_ports
    command = mosquitto("mosquitto_pub", tls, f"/ota/device/inform/{PK}/dn", "-q", "1", "-l")
    command += ["--cafile", str(certificate)]
    lines = [b"version %d" % number for number in range(200)]
    with (
        Gateway(plain) as gateway,
        subprocess.Popen([*command, *DEVICE], stdin=subprocess.PIPE) as process,
    ):
        assert gateway.receive_event().connected
        assert process.stdin is not None
        process.stdin.write(b"\n".join(lines) + b"\n")
        process.stdin.close()
        assert [gateway.receive_publish().payload for _ in lines] == lines
        assert process.wait(TIMEOUT) == 0
