"""`manage.py push` and `manage.py create_token`, as a build pipeline runs them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from knox.models import AuthToken

from campaigns.models import Campaign, UpdateTask
from devices.models import Product
from firmware.models import Firmware
from otaplatform.accounts.models import User
from otaplatform.api.client import Client, RefusedError, Remote, of_list
from otaplatform.management.commands.push import Bar
from tests.factories import DeviceFactory
from tests.otaplatform.api.conftest import work


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "app.bin"
    file.write_bytes(b"image")
    return file


@pytest.fixture
def pipeline(person: Any) -> User:
    user: User = person("Operator")
    return user


@pytest.fixture
def push(
    image: Path, product: Product, pipeline: User, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run the command: (exit code, output, errors). While it waits, devices do their part."""
    failing: set[str] = set()
    monkeypatch.setattr(
        "otaplatform.management.commands.push.time.sleep", lambda _seconds: work(failing=tuple(failing))
    )

    def run(*arguments: str, fail: tuple[str, ...] = (), user: str = pipeline.username) -> Any:
        failing.clear()
        failing.update(fail)
        out, err = io.StringIO(), io.StringIO()
        options = ["--product", product.product_key, "--name", "app_1", "--version", "2.0"]
        whom = ["--user", user] if user else []
        try:
            call_command("push", str(image), *options, *whom, *arguments, stdout=out, stderr=err)
        except CommandError as error:
            return error.returncode, out.getvalue(), err.getvalue() + str(error)
        return 0, out.getvalue(), err.getvalue()

    return run


def devices(product: Product, *names: str) -> None:
    for name in names:
        DeviceFactory.create(product=product, name=name, version="1.0", online=True)


Push = Callable[..., tuple[int, str, str]]


def test_a_file_is_uploaded_and_nothing_more(push: Push, pipeline: User) -> None:
    code, out, _err = push()
    assert code == 0
    firmware = Firmware.objects.get()
    assert f"firmware {firmware.pk}" in out
    assert firmware.created_by == pipeline
    assert not Campaign.objects.exists()
    assert not AuthToken.objects.exists()


def test_a_release_is_validated_and_then_brought_to_all_devices(push: Push, product: Product) -> None:
    devices(product, "meter-1", "meter-2", "meter-3")
    code, out, err = push("--validate", "meter-1", "--batch", "all", "--wait")
    assert code == 0, out + err
    assert "3 succeeded" not in out
    assert "2 succeeded" in out
    assert "[##############################] 2/2" in err
    assert UpdateTask.objects.filter(status="SUCCEEDED").count() == 3


def test_a_validation_that_fails_ends_the_run_before_the_batch(push: Push, product: Product) -> None:
    devices(product, "meter-1", "meter-2")
    code, out, _err = push("--validate", "meter-1", "--batch", "all", fail=("meter-1",))
    assert code == 1
    assert "DOWNLOAD" in out
    assert "no route" in out
    assert Campaign.objects.count() == 1


def test_one_device_that_fails_shows_in_the_exit_code(push: Push, product: Product, tmp_path: Path) -> None:
    devices(product, "meter-1", "meter-2", "meter-3")
    names = tmp_path / "names.csv"
    names.write_text("DeviceName,site\nmeter-2,north\nmeter-3,south\n")
    code, out, _err = push(
        "--validate", "meter-1", "--batch", f"@{names}", "--accept-unproven", "--wait", fail=("meter-3",)
    )
    assert code == 1
    assert "1 succeeded, 1 failed" in out


def test_named_devices_that_are_left_out_are_told_and_only_the_updated_ones_are_no_failure(
    push: Push, product: Product
) -> None:
    devices(product, "meter-1", "meter-2")
    batch = ("--validate", "meter-1", "--batch", "meter-1", "meter-2")
    code, out, err = push(*batch, "ghost", "--wait")
    assert (code, out.count("1 succeeded")) == (1, 2)
    assert "ghost: the product has no such device." in err
    DeviceFactory.create(product=product, name="meter-3", version="1.0", online=True)
    code, _out, err = push("--name", "app_2", "--version", "3.0", *batch, "meter-3", "--wait")
    assert code == 0
    assert err.count("Left out") == 1, "meter-1, which the validation has updated"


def test_without_wait_a_launch_is_enough(push: Push, product: Product) -> None:
    devices(product, "meter-1")
    code, out, _err = push("--validate", "meter-1")
    assert code == 0
    assert "Launched validation" in out
    assert UpdateTask.objects.count() == 0


def test_what_the_platform_refuses_is_said_in_words(push: Push, product: Product) -> None:
    code, _out, err = push("--batch", "all")
    assert (code, "Validate the firmware" in err) == (2, True)
    code, _out, err = push()
    assert code == 2
    assert err.count("already has a firmware of this name") == 1
    assert "name: " in err


def test_waiting_ends_after_the_time_out(push: Push, product: Product) -> None:
    DeviceFactory.create(product=product, name="meter-1", version="1.0")
    code, out, _err = push("--validate", "meter-1", "--wait", "--timeout", "0.0000001")
    assert code == 3
    assert "no device" in out


def test_somebody_has_to_do_it(push: Push) -> None:
    assert push(user="nobody")[0] == 2


def test_a_missing_file_is_said(push: Push, image: Path) -> None:
    image.unlink()
    assert push()[0] == 2


def test_a_remote_platform_needs_an_address_and_a_token(push: Push) -> None:
    assert "--token" in push("--url", "http://127.0.0.1:9")[2]
    assert push("--url", "ftp://127.0.0.1", "--token", "x")[0] == 2


@pytest.mark.django_db(transaction=True)
def test_a_remote_platform_is_pushed_to_by_its_address(live_server: Any, push: Push, pipeline: User) -> None:
    token = AuthToken.objects.create(user=pipeline)[1]
    code, out, err = push("--url", live_server.url, "--token", token)
    assert code == 0, err
    assert "Uploaded app_1 2.0" in out
    assert push("--url", live_server.url, "--token", "0" * 64)[0] == 2


def test_a_platform_that_is_away_for_a_moment_is_asked_again() -> None:
    answers = iter([(503, {}, b""), (429, {"Retry-After": "7"}, b""), (200, {}, b'{"id": 1}')])
    waits: list[float] = []

    class Flaky(Remote):
        def send(self, *args: Any, **options: Any) -> Any:
            return next(answers)

    client = Client(Flaky("http://x", "t"), pause=waits.append)
    assert client.call("GET", "campaigns/1/") == {"id": 1}
    assert waits == [2.0, 7.0]


def test_a_post_without_a_key_is_not_repeated() -> None:
    client = Client(Remote("http://127.0.0.1:9", "t", timeout=1), pause=lambda _seconds: pytest.fail("again"))
    with pytest.raises(RefusedError) as refused:
        client.call("POST", "campaigns/1/pause/")
    assert refused.value.status == 0


def test_names_come_from_the_line_and_from_files_once_each(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text('\ufeffDeviceName\n"b",x\n\na\n')
    assert of_list(["a", f"@{file}", "c"]) == ["a", "b", "c"]


def test_on_a_terminal_the_bar_is_one_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str, ending: str = "\n") -> int:
            return super().write(text + ending)

    out = Terminal()
    bar = Bar(out)
    for done in (1, 1, 2):
        bar.show({"queued": 2 - done, "succeeded": done, "failed": 0, "canceled": 0})
    bar.end()
    assert out.getvalue().count("\r") == 2
    assert out.getvalue().count("\n") == 1


def test_a_token_is_printed_once_and_revoked(pipeline: User) -> None:
    out = io.StringIO()
    call_command("create_token", pipeline.username, "--days", "7", stdout=out)
    token = out.getvalue().strip()
    assert len(token) == 64
    assert AuthToken.objects.get().token_key == token[:15]
    call_command("create_token", pipeline.username, "--revoke", stdout=out)
    assert not AuthToken.objects.exists()
    with pytest.raises(CommandError):
        call_command("create_token", "nobody")
    with pytest.raises(CommandError):
        call_command("create_token", pipeline.username, "--days", "0")
