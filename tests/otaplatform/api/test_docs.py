"""The worked examples of docs/api.md, run as they stand against a live server."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from knox.models import AuthToken

from campaigns.models import Campaign, UpdateTask
from devices.models import Device
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.roles import ADMINISTRATOR
from otaplatform.api.models import WebhookEvent
from otaplatform.api.webhooks import send
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, ProductFactory, TaskFactory

PAGE = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
EXAMPLES = {
    int(number): (language, code)
    for number, language, code in re.findall(r"<!-- example (\d) -->\n```(\w+)\n(.*?)```", PAGE, re.S)
}
TIMEOUT = 30

pytestmark = pytest.mark.django_db(transaction=True)


class Running:
    """A live server, and an example that knows its address."""

    def __init__(self, url: str, user: Any, folder: Path) -> None:
        self.user, self.folder = user, folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "OTA_URL": url,
            "OTA_TOKEN": AuthToken.objects.create(user=user)[1],
        }

    def start(self, number: int, **environ: object) -> "subprocess.Popen[str]":
        language, code = EXAMPLES[number]
        command = ["bash", "-c"] if language == "bash" else [sys.executable, "-c"]
        values = self.environ | {name: str(value) for name, value in environ.items()}
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, code], env=values, cwd=self.folder, text=True, **pipes)

    def run(self, number: int, **environ: object) -> str:
        process = self.start(number, **environ)
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, out + err
        return out


@pytest.fixture
def running(live_server: Any, person: Any, tmp_path: Path) -> Running:
    return Running(live_server.url, person(ADMINISTRATOR), tmp_path)


def test_there_are_five_examples() -> None:
    assert sorted(EXAMPLES) == [1, 2, 3, 4, 5]


@pytest.mark.realclient  # curl
def test_example_1_registers_a_product_and_its_devices(running: Running) -> None:
    out = running.run(1)
    assert set(Device.objects.values_list("name", flat=True)) == {"meter-0001", "meter-0002", "meter-0003"}
    assert "already has a device" in out


@pytest.mark.realclient  # curl
def test_example_2_uploads_and_validates(running: Running) -> None:
    product = ProductFactory.create(account=running.user.account)
    device = DeviceFactory.create(product=product, version="1.0.0", online=True)
    running.run(2, OTA_PRODUCT=product.product_key, OTA_DEVICE=device.name)
    assert Firmware.objects.get().status == FirmwareStatus.VERIFIED
    assert Campaign.objects.get().kind == "verify"


def test_example_3_launches_a_batch(running: Running) -> None:
    firmware = FirmwareFactory.create(product=ProductFactory.create(account=running.user.account))
    DeviceFactory.create(product=firmware.product, version="1.0.0", online=True)
    out = running.run(3, OTA_FIRMWARE=firmware.pk)
    assert "1 devices, 1 of them online, 0 busy" in out
    assert Campaign.objects.get().max_per_minute == 1000


def test_example_4_tells_why(running: Running) -> None:
    firmware = FirmwareFactory.create(product=ProductFactory.create(account=running.user.account))
    campaign = CampaignFactory.create(firmware=firmware)
    offline = DeviceFactory.create(product=firmware.product, name="meter-0001")
    TaskFactory.create(campaign=campaign, device=offline)
    failed = DeviceFactory.create(product=firmware.product, name="meter-0002")
    task = TaskFactory.create(campaign=campaign, device=failed, status="FAILED")
    UpdateTask.objects.filter(pk=task.pk).update(reason="BURN", detail="flash")
    out = running.run(4, OTA_CAMPAIGN=campaign.pk)
    assert "meter-0001: Waiting for the device to come online" in out
    assert "meter-0002: failed, BURN flash" in out


@pytest.mark.parametrize("secret", ["right", "wrong"])
def test_example_5_checks_the_signature(running: Running, settings: Any, secret: str) -> None:
    settings.OTA_WEBHOOK_ALLOW_PRIVATE = True
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = running.start(5, OTA_WEBHOOK_SECRET="right", PORT=port)
    payload = {"event": "task.failed", "data": {"device_name": "meter-0001"}}
    for _ in range(200):
        result = send.call(f"http://127.0.0.1:{port}/", secret, 1, WebhookEvent.TASK_FAILED, payload)
        if result.status is not None:
            break
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    out, _err = process.communicate(timeout=TIMEOUT)
    assert result.status == (204 if secret == "right" else 403)
    assert ("task.failed meter-0001" in out) == (secret == "right")
