"""`manage.py simulate`."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from devices.management.commands.simulate import keys_of, read_credentials
from devices.models import Device
from devices.simulator import DeviceKeys
from tests.devices.simulator.conftest import KEYS, PRODUCT_KEY, Platform
from tests.factories import DeviceFactory, ProductFactory

HEADER = "ProductKey,DeviceName,DeviceSecret\n"


def credentials_file(directory: Path, *devices: DeviceKeys) -> Path:
    path = directory / "fleet.csv"
    rows = [f"{each.product_key},{each.device_name},{each.device_secret}\n" for each in devices]
    path.write_text("\ufeff" + HEADER + "".join(rows))
    return path


def simulate(*options: str, **others: Any) -> str:
    output = io.StringIO()
    call_command("simulate", *options, stdout=output, **others)
    return output.getvalue()


def test_a_fleet_from_a_file_connects_and_ends_at_sigterm(
    port: int, platform: Platform, tmp_path: Path
) -> None:
    path = credentials_file(tmp_path, *KEYS)
    informed: list[Any] = []

    def end_once_informed() -> None:
        informed.append(platform.report(KEYS[0].device_name))
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=end_once_informed)
    watcher.start()
    output = simulate(
        f"--credentials={path}", f"--port={port}", f"--state-dir={tmp_path}", "--versions=3.1", "--offline=0"
    )
    watcher.join()
    assert informed[0][1] == {"version": "3.1"}
    assert f"8 simulated devices connect to 127.0.0.1:{port}." in output
    assert "0 of 8 devices online" in output


def test_it_ends_by_itself_when_the_platform_knows_none_of_the_devices(port: int, tmp_path: Path) -> None:
    path = credentials_file(tmp_path, DeviceKeys(PRODUCT_KEY, "stranger", "x"))
    output = simulate(f"--credentials={path}", f"--port={port}", "--speed=1000", f"--state-dir={tmp_path}")
    assert "8 refused connections" in output


@pytest.mark.parametrize("content", ["", HEADER, "a,b\n1,2\n", HEADER + "a1,dev\n"])
def test_a_file_without_credentials_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "fleet.csv"
    path.write_text(content)
    with pytest.raises(CommandError, match=r"fleet\.csv"):
        read_credentials(path)


@pytest.mark.parametrize(
    "option",
    [
        "--versions=:3",
        "--fail=fire=1",
        "--fail=burn=2",
        "--module==1",
        "--count=0",
        "--offline=1",
        "--speed=0",
        "--connect-rate=0",
        "--public-key=missing.pem",
        "--ca=missing.pem",
    ],
)
def test_an_impossible_option_is_refused_with_a_sentence(tmp_path: Path, option: str) -> None:
    with pytest.raises(CommandError, match=r"\w"):
        simulate(f"--credentials={credentials_file(tmp_path, *KEYS)}", option)


@pytest.mark.django_db
def test_missing_devices_of_a_product_are_registered_and_others_left_alone() -> None:
    product = ProductFactory()
    present = DeviceFactory(product=product, name="sim-0002")
    DeviceFactory(product=product, name="sim-0001", is_disabled=True)
    DeviceFactory(product=product, name="real-thing")
    DeviceFactory(name="sim-0003")
    keys = keys_of(product, 3, "sim-")
    assert keys[0] == DeviceKeys(product.product_key, "sim-0002", present.secret)
    assert [each.device_name for each in keys[1:]] == ["sim-0003", "sim-0004"]
    stored = Device.objects.get(product=product, name="sim-0004")
    assert keys[2].device_secret == stored.secret != ""
    assert keys_of(product, 3, "sim-") == keys
    assert keys_of(product, 2, "sim-") == keys[:2]


@pytest.mark.django_db
def test_a_prefix_that_no_device_name_can_have_is_refused() -> None:
    with pytest.raises(CommandError, match="x/0001"):
        keys_of(ProductFactory(), 1, "x/")


@pytest.mark.django_db
def test_a_product_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandError, match="a1Nowhere"):
        simulate("--product-key=a1Nowhere")


@pytest.mark.django_db
def test_without_a_sample_product_there_is_nothing_to_do() -> None:
    ProductFactory()
    assert simulate() == "There is no sample product to simulate.\n"
