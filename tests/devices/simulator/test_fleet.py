"""Simulated devices against the real broker and a real file server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from devices.brokers.embedded import BrokerThread, Listener
from devices.simulator import SDKS, Behaviour, DeviceKeys, Fault, Fleet, Sdk, VersionMix, running_fleet
from devices.simulator.device import GIVE_UP_AFTER, STRAY_VERSION
from devices.simulator.sdks import IOTKIT, PYTHON
from devices.topics import Kind
from tests.devices.simulator.conftest import (
    IMAGE,
    KEYS,
    PRODUCT_KEY,
    FileServer,
    Platform,
    authenticate,
    push_of,
)

NAME = KEYS[0].device_name
ONE = KEYS[:1]
QUICK = Behaviour(sdks=[PYTHON], versions=VersionMix({"1.0.0": 1}), speed=1000)

Start = Callable[[Behaviour], Fleet]


@pytest.fixture
def start(port: int, platform: Platform) -> Iterator[Start]:
    """Starts a fleet of one device and waits until the platform has heard that it runs 1.0.0."""
    with ExitStack() as stack:

        def begin(behaviour: Behaviour) -> Fleet:
            fleet = stack.enter_context(running_fleet(ONE, port, behaviour))
            assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
            return fleet

        yield begin


@pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
def test_a_device_of_each_sdk_takes_a_push_downloads_restarts_and_informs_the_new_version(
    port: int, platform: Platform, files: FileServer, sdk: Sdk
) -> None:
    with running_fleet(ONE, port, replace(QUICK, sdks=[sdk])) as fleet:
        for _ in range(sdk.informs):
            assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
        platform.push(NAME, push_of(files.url))
        steps, version = platform.reports_until_inform(NAME)
        assert (steps[0], steps[-1], version) == (0, 100, "2.0.0")
        assert steps == sorted(steps)
        assert fleet[NAME].versions == {"default": "2.0.0"}
        counters = fleet.counters()
        assert (counters["connects"], counters["installed"], counters["downloaded"]) == (2, 1, len(IMAGE))
    if sdk.is_c:
        assert files.ranges == ["bytes=0-"]
    else:
        assert len(files.ranges) == sdk.firmware_pieces


def test_a_whole_fleet_is_updated_at_once(port: int, platform: Platform, files: FileServer) -> None:
    with running_fleet(KEYS, port, replace(QUICK, sdks=SDKS)) as fleet:
        fleet.wait_until(lambda: all(device.is_online for device in fleet.devices))
        for keys in KEYS:
            platform.push(keys.device_name, push_of(files.url))
        fleet.wait_until(lambda: fleet.counters()["installed"] == len(KEYS))
        assert f"{len(KEYS)} updates installed, 0 failed" in fleet.status()


def test_a_second_push_of_the_version_being_installed_starts_nothing(
    start: Start, platform: Platform, files: FileServer
) -> None:
    files.gate.clear()
    fleet = start(QUICK)
    platform.push(NAME, push_of(files.url))
    platform.push(NAME, push_of(files.url))
    fleet.wait_until(lambda: fleet.counters()["duplicate_pushes"] == 1)
    files.gate.set()
    assert platform.reports_until_inform(NAME)[1] == "2.0.0"
    assert fleet.counters()["updates"] == 1
    assert len(files.ranges) == PYTHON.firmware_pieces


def test_a_push_of_another_version_waits_until_the_update_has_failed(
    start: Start, platform: Platform, files: FileServer
) -> None:
    files.gate.clear()
    fleet = start(QUICK)
    platform.push(NAME, push_of(files.url, "1.5.0", content=b"not what is served"))
    platform.push(NAME, push_of(files.url))
    fleet.wait_until(lambda: fleet.counters()["pushes"] == 2)
    files.gate.set()
    assert platform.failure(NAME)["step"] == "-3"
    assert platform.reports_until_inform(NAME)[1] == "2.0.0"


def test_a_push_of_the_version_it_runs_is_answered_by_informing_it(start: Start, platform: Platform) -> None:
    fleet = start(QUICK)
    platform.push(NAME, push_of("http://127.0.0.1:1/nothing", "1.0.0"))
    assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
    assert fleet.counters()["updates"] == 0


def test_a_file_that_is_not_the_announced_one_fails_the_verification(
    start: Start, platform: Platform, files: FileServer
) -> None:
    files.content = IMAGE[:-1] + b"?"
    fleet = start(QUICK)
    platform.push(NAME, push_of(files.url))
    assert platform.failure(NAME)["step"] == "-3"
    fleet.wait_until(lambda: not fleet[NAME].is_updating)
    assert fleet[NAME].versions == {"default": "1.0.0"}


def test_the_sha256_of_a_push_is_what_counts_where_it_names_that_method(
    start: Start, platform: Platform, files: FileServer
) -> None:
    start(QUICK)
    wrong = hashlib.sha256(b"something else").hexdigest()
    platform.push(NAME, push_of(files.url, signMethod="SHA256", sign=wrong))
    assert platform.failure(NAME)["desc"] == "the sha256 digest differs"
    right = hashlib.sha256(IMAGE).hexdigest()
    platform.push(NAME, push_of(files.url, signMethod="SHA256", sign=right))
    assert platform.reports_until_inform(NAME)[1] == "2.0.0"


def test_a_link_that_is_refused_fails_the_download(
    start: Start, platform: Platform, files: FileServer
) -> None:
    start(QUICK)
    platform.push(NAME, push_of(files.url + "2"))
    failure = platform.failure(NAME)
    assert failure["step"] == "-2"
    assert "416" in failure["desc"]


def test_a_broken_download_is_resumed_where_it_stopped(
    start: Start, platform: Platform, files: FileServer
) -> None:
    files.cut_off_at = 100
    start(QUICK)
    platform.push(NAME, push_of(files.url))
    assert platform.reports_until_inform(NAME)[1] == "2.0.0"
    assert files.ranges[1].startswith("bytes=100-")


def test_a_push_that_its_sdk_cannot_read_is_ignored(start: Start, platform: Platform) -> None:
    fleet = start(QUICK)
    platform.push(NAME, push_of("http://127.0.0.1:1/x", signMethod="MD5"))
    platform.push(NAME, b"not json")
    fleet.wait_until(lambda: fleet.counters()["ignored_pushes"] == 2)
    assert fleet.counters()["pushes"] == 0


def test_a_package_of_several_files_for_a_module_is_checked_file_by_file(
    port: int, platform: Platform, files: FileServer
) -> None:
    behaviour = replace(QUICK, modules={"MCU": VersionMix({"7": 1})})
    with running_fleet(ONE, port, behaviour) as fleet:
        assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
        assert platform.report(NAME) == (Kind.INFORM, {"version": "7", "module": "MCU"})
        md5 = hashlib.md5(IMAGE, usedforsecurity=False).hexdigest()
        item = {"fileSize": len(IMAGE), "fileUrl": files.url, "fileMd5": md5, "fileSign": md5}
        platform.push(NAME, push_of("", "8", module="MCU", files=[item, item]))
        fleet.wait_until(lambda: fleet[NAME].versions == {"default": "1.0.0", "MCU": "8"})
        assert fleet.counters()["downloaded"] == 2 * len(IMAGE)


@pytest.mark.parametrize(
    ("fault", "step"),
    [(Fault.UPDATE, "-1"), (Fault.DOWNLOAD, "-2"), (Fault.VERIFICATION, "-3"), (Fault.BURN, "-4")],
)
def test_a_fault_is_reported_as_its_step_and_the_version_stays(
    start: Start, platform: Platform, files: FileServer, fault: Fault, step: str
) -> None:
    fleet = start(replace(QUICK, faults={fault: 1}))
    platform.push(NAME, push_of(files.url))
    assert platform.failure(NAME)["step"] == step
    fleet.wait_until(lambda: fleet.counters()[fault] == 1)
    assert fleet[NAME].versions == {"default": "1.0.0"}


def test_a_device_that_rolls_back_comes_back_on_its_old_version(
    start: Start, platform: Platform, files: FileServer
) -> None:
    start(replace(QUICK, faults={Fault.ROLLBACK: 1}))
    platform.push(NAME, push_of(files.url))
    steps, version = platform.reports_until_inform(NAME)
    assert (steps[-1], version) == (100, "1.0.0")


def test_a_device_that_crashes_comes_back_in_the_middle_of_its_update(
    start: Start, platform: Platform, files: FileServer
) -> None:
    fleet = start(replace(QUICK, faults={Fault.CRASH: 1}))
    platform.push(NAME, push_of(files.url))
    steps, version = platform.reports_until_inform(NAME)
    assert steps[0] == 0
    assert steps[-1] < 85
    assert version == "1.0.0"
    assert fleet.counters()[Fault.CRASH] == 1


def test_a_silent_device_answers_no_push_of_that_version(start: Start, platform: Platform) -> None:
    fleet = start(replace(QUICK, faults={Fault.SILENT: 1}))
    platform.push(NAME, push_of("http://127.0.0.1:1/x"))
    platform.push(NAME, push_of("http://127.0.0.1:1/x"))
    platform.push(NAME, push_of("http://127.0.0.1:1/x", "1.0.0"))
    assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
    assert fleet.counters()["updates"] == 0


def test_with_a_public_key_only_signed_packages_are_installed(
    start: Start, platform: Platform, files: FileServer
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    start(replace(QUICK, public_key=key.public_key()))
    platform.push(NAME, push_of(files.url))
    assert platform.failure(NAME)["desc"] == "OTA verify RSA failed"
    digest = hashlib.md5(IMAGE, usedforsecurity=False).digest()
    signature = base64.b64encode(key.sign(digest, padding.PKCS1v15(), SHA256())).decode()
    platform.push(NAME, push_of(files.url, digestsign=signature))
    assert platform.reports_until_inform(NAME)[1] == "2.0.0"


def test_versions_outlive_the_simulator(
    port: int, platform: Platform, files: FileServer, tmp_path: Path
) -> None:
    state = tmp_path / "simulator" / "versions.json"
    with running_fleet(ONE, port, QUICK, state_file=state) as fleet:
        assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})
        platform.push(NAME, push_of(files.url))
        fleet.wait_until(lambda: fleet.counters()["installed"] == 1)
    with running_fleet(ONE, port, QUICK, state_file=state) as fleet:
        assert fleet[NAME].versions == {"default": "2.0.0"}


def test_devices_leave_and_come_back(port: int) -> None:
    behaviour = replace(QUICK, offline=0.5, away_seconds=20)
    with running_fleet(ONE, port, behaviour) as fleet:
        fleet.wait_until(lambda: fleet.counters()["connects"] >= 3)
        assert fleet.counters()["lost"] == 0


def test_iotkit_can_inform_a_stray_version_first(port: int, platform: Platform) -> None:
    with running_fleet(ONE, port, replace(QUICK, sdks=[IOTKIT], stray_inform=True)):
        assert platform.report(NAME) == (Kind.INFORM, {"version": STRAY_VERSION})
        assert platform.report(NAME) == (Kind.INFORM, {"version": "1.0.0"})


def test_devices_return_when_the_broker_does() -> None:
    with BrokerThread(authenticate, [Listener(0)]) as first:
        port = first.ports[0]
        with running_fleet(KEYS, port, QUICK) as fleet:
            fleet.wait_until(lambda: fleet.counters()["connects"] == len(KEYS))
            first.stop()
            fleet.wait_until(lambda: fleet.counters()["lost"] == len(KEYS))
            with BrokerThread(authenticate, [Listener(port)]):
                fleet.wait_until(lambda: all(device.is_online for device in fleet.devices))


def test_a_device_whose_credentials_are_refused_gives_up(port: int) -> None:
    with running_fleet([DeviceKeys(PRODUCT_KEY, NAME, "wrong")], port, QUICK) as fleet:
        fleet.wait_until(lambda: fleet[NAME].has_ended)
        assert fleet.counters()["refusals"] == GIVE_UP_AFTER


def test_a_lingering_device_ends_after_its_update_and_not_before(
    start: Start, platform: Platform, files: FileServer
) -> None:
    files.gate.clear()
    fleet = start(replace(QUICK, linger=0.2))
    platform.push(NAME, push_of(files.url))
    fleet.wait_until(lambda: fleet[NAME].is_updating)
    files.gate.set()
    fleet.wait_until(lambda: fleet[NAME].has_ended)
    assert fleet[NAME].versions == {"default": "2.0.0"}


def test_the_same_seed_gives_each_device_the_same_nature() -> None:
    def nature(seed: int) -> list[tuple[str, str]]:
        behaviour = Behaviour(versions=VersionMix({"1": 1, "2": 1}))
        fleet = Fleet(KEYS, behaviour=behaviour, seed=seed)
        return [(device.sdk.name, device.versions["default"]) for device in fleet.devices]

    assert nature(1) == nature(1)
    assert nature(1) != nature(2)
