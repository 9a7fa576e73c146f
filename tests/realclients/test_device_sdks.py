"""Alibaba Cloud's own device SDKs, unmodified, through a whole update."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from campaigns.models import TaskEvent, UpdateTask
from campaigns.states import EventKind
from devices.models import Device, DeviceVersion
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory
from tests.realclients.environments import node_with, python_with
from tests.running import TIMEOUT, running_dispatcher, running_platform, running_web, wait_until

pytestmark = [
    pytest.mark.realclient,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]

IMAGE = bytes(range(256)) * 400
HERE = Path(__file__).parent


def python_sdk() -> tuple[list[str], dict[str, str]]:
    """It never subscribes; it checks the digest with its own downloader."""
    python = python_with("aliyun-iot-linkkit==1.2.13", "paho-mqtt<2")
    return [str(python), str(HERE / "linkkit_device.py")], dict(os.environ)


def node_sdk() -> tuple[list[str], dict[str, str]]:
    """Its sessions are persistent and it subscribes a dozen topics of its own at once."""
    node, environment = node_with("alibabacloud-iot-device-sdk@1.2.8")
    return [node, str(HERE / "node_device.js")], environment


Sdk = Callable[[], tuple[list[str], dict[str, str]]]


@contextmanager
def sdk_device(sdk: Sdk, port: int, device: Device, path: Path) -> Iterator["subprocess.Popen[str]"]:
    command, environment = sdk()
    arguments = [str(port), device.product.product_key, device.name, device.secret, "1.0.0", str(path)]
    process = subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(TIMEOUT)


@pytest.mark.parametrize("sign_method", ["Md5", "SHA256"])
@pytest.mark.parametrize("sdk", [python_sdk, node_sdk])
def test_a_real_sdk_is_pushed_to_once_downloads_and_ends_successful(
    transactional_db: None, tmp_path: Path, sdk: Sdk, sign_method: str
) -> None:
    firmware = FirmwareFactory.create(version="2.0.0", sign_method=sign_method, file=IMAGE)
    device = DeviceFactory.create(product=firmware.product, activated_at=None)
    downloaded = tmp_path / "image"
    with (
        running_web(),
        running_platform() as platform,
        running_dispatcher(),
        sdk_device(sdk, platform.port, device, downloaded) as process,
    ):
        wait_until(
            lambda: process.poll() is not None or DeviceVersion.objects.filter(version="1.0.0").exists(),
            "the first report of the SDK",
        )
        CampaignFactory.create(firmware=firmware, expanded_at=None)
        wait_until(
            lambda: process.poll() is not None or UpdateTask.objects.filter(status="SUCCEEDED").exists(),
            f"the update of {device}",
        )
        output, _ = process.communicate("seen\n", TIMEOUT)
    assert process.returncode == 0, output
    assert downloaded.read_bytes() == IMAGE
    assert DeviceVersion.objects.get(device=device).version == "2.0.0"
    task = UpdateTask.objects.get()
    assert (task.status, task.from_version, task.attempt) == ("SUCCEEDED", "1.0.0", 1)
    assert TaskEvent.objects.filter(task=task, kind=EventKind.PUSHED).count() == 1
