"""Devices fetching firmware by their link, through the real ASGI application."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError
from django.http import StreamingHttpResponse
from django.test import AsyncClient
from django.utils import timezone
from pytest_django import Settings

from campaigns import expand
from campaigns.downloads import bytes_sent
from campaigns.models import Campaign, UpdateTask
from campaigns.states import FINAL, OPEN, UPDATING, TaskStatus
from devices.models import Device
from devices.services import reset_secret, set_disabled
from firmware import download
from firmware.links import make_link, make_token
from firmware.models import FirmwareFile
from firmware.storage import open_range
from tests.factories import CampaignFactory, FirmwareFactory, TaskFactory

pytestmark = pytest.mark.django_db

CONTENT = bytes(range(256)) * 1024


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes


@pytest.fixture
def task(settings: Settings, tmp_path: Path) -> UpdateTask:
    settings.MEDIA_ROOT = str(tmp_path)
    campaign = CampaignFactory.create(firmware=FirmwareFactory.create(file=CONTENT))
    task: UpdateTask = TaskFactory.create(campaign=campaign, status=TaskStatus.NOTIFIED)
    return task


@pytest.fixture
def file(task: UpdateTask) -> FirmwareFile:
    return FirmwareFile.objects.get(firmware=task.firmware)


@pytest.fixture
def path(task: UpdateTask, file: FirmwareFile) -> str:
    return make_link(task.pk, file).removeprefix("http://ota.example")


@async_to_sync
async def ask(path: str, method: str = "get", **headers: str) -> Answer:
    """One request; `If_Range="…"` becomes the header If-Range."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await getattr(AsyncClient(), method)(path, headers=named)
    assert not response.cookies
    if isinstance(response, StreamingHttpResponse):
        body = b"".join([block async for block in response])
    else:
        body = response.content
    return Answer(response.status_code, response.headers, body)


def downloads(task: UpdateTask) -> int:
    task.refresh_from_db()
    return task.downloads


def test_a_device_gets_the_whole_file_with_its_length(path: str) -> None:
    answer = ask(path, Accept_Encoding="gzip, deflate")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-", 0, 262144), ("bytes=1000-1999", 1000, 2000), ("bytes=-5", 262139, 262144)],
)
def test_a_device_gets_the_range_it_asks_for(asked: str, start: int, end: int, path: str) -> None:
    answer = ask(path, Range=asked)
    assert (answer.status, answer.body) == (206, CONTENT[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert answer.headers["Content-Length"] == str(end - start)


def test_a_range_behind_the_end_is_said_to_be_so(path: str) -> None:
    answer = ask(path, Range=f"bytes={len(CONTENT)}-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_if_range_of_another_file_gets_the_whole_file(path: str) -> None:
    tag = ask(path, "head").headers["ETag"]
    assert ask(path, Range="bytes=10-", If_Range=tag).status == 206
    assert ask(path, Range="bytes=10-", If_Range='"another"').body == CONTENT


def test_head_tells_the_length_and_sends_nothing(path: str) -> None:
    answer = ask(path, "head")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, str(len(CONTENT)), b"")
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("status", sorted(OPEN | FINAL))
def test_only_an_open_task_may_download(status: TaskStatus, task: UpdateTask, path: str) -> None:
    UpdateTask.objects.filter(pk=task.pk).update(status=status)
    assert ask(path).status == (200 if status in OPEN else 403)


def test_every_refusal_is_the_same_bare_403(task: UpdateTask, file: FirmwareFile, path: str) -> None:
    now = timezone.now()
    other = TaskFactory.create(campaign=CampaignFactory.create(firmware=FirmwareFactory.create()))
    wrong = [
        path[:-1] + ("A" if path[-1] != "A" else "B"),
        "/f/" + "A" * 48,
        "/f/short",
        "/f/" + make_token(task.pk, file.pk, now - timedelta(hours=24, seconds=2)),
        "/f/" + make_token(other.pk, file.pk, now),
        "/f/" + make_token(task.pk, other.firmware.files.get().pk, now),
    ]
    answers = [ask(each) for each in wrong]
    assert {(answer.status, answer.body) for answer in answers} == {(403, b"")}


def test_only_get_and_head_are_answered(path: str) -> None:
    assert ask(path, "post").status == 405


def test_downloads_are_counted_once_and_not_for_each_part(task: UpdateTask, path: str) -> None:
    for asked in ("bytes=0-99", "bytes=100-199", "bytes=200-", f"bytes={len(CONTENT)}-"):
        ask(path, Range=asked)
    ask(path, "head")
    assert downloads(task) == 1
    ask(path)
    assert downloads(task) == 2


def test_a_file_that_storage_has_lost_is_a_404(path: str, tmp_path: Path) -> None:
    for stored in (tmp_path / "firmware").iterdir():
        stored.unlink()
    assert ask(path).status == 404


def test_nginx_may_send_the_file(task: UpdateTask, file: FirmwareFile, path: str, settings: Settings) -> None:
    settings.OTA_X_ACCEL_PREFIX = "/_firmware/"
    answer = ask(path)
    assert answer.headers["X-Accel-Redirect"] == f"/_firmware/{file.file.name}"
    assert answer.body == b""
    assert downloads(task) == 1


def test_the_stored_file_is_closed_when_the_client_goes_away(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def noted(*arguments: Any) -> Any:
        opened.append(open_range(*arguments))
        return opened[-1]

    monkeypatch.setattr(download, "open_range", noted)
    response = async_to_sync(AsyncClient().get)(path)
    assert [stored.closed for stored in opened] == [False]
    response.close()
    assert [stored.closed for stored in opened] == [True]


def test_the_link_of_a_disabled_device_is_refused_until_it_is_enabled(task: UpdateTask, path: str) -> None:
    set_disabled(task.device, True)
    assert ask(path).status == 403
    set_disabled(task.device, False)
    assert ask(path).status == 200


def test_the_link_of_a_removed_device_is_refused(task: UpdateTask, path: str) -> None:
    Device.objects.filter(pk=task.device_id).update(removed_at=timezone.now())
    assert ask(path).status == 403


def test_a_link_dies_with_the_secret_and_the_next_push_brings_a_good_one(
    task: UpdateTask, file: FirmwareFile, path: str
) -> None:
    reset_secret(task.device)
    assert ask(path).status == 403
    assert ask(make_link(task.pk, file).removeprefix("http://ota.example")).status == 200


@pytest.mark.parametrize("status", [TaskStatus.CANCELED, TaskStatus.FAILED])
def test_a_link_from_before_update_again_stays_dead(
    status: TaskStatus, task: UpdateTask, file: FirmwareFile, path: str
) -> None:
    UpdateTask.objects.filter(pk=task.pk).update(status=status)
    expand.start(task.campaign, [task.device_id], timezone.now(), [status], task_ids=[task.pk])
    task.refresh_from_db()
    assert task.status == TaskStatus.QUEUED
    assert ask(path).status == 403
    assert ask(make_link(task.pk, file).removeprefix("http://ota.example")).status == 200


def test_a_download_that_gets_on_puts_the_time_out_off(task: UpdateTask) -> None:
    now = timezone.now()
    UpdateTask.objects.filter(pk=task.pk).update(pushed_at=now, active_at=now)

    def sent(position: int, seconds: int) -> bool:
        return bytes_sent(task.pk, position, now + timedelta(seconds=seconds))

    assert not sent(1000, 29)
    assert sent(1000, 30)
    assert not sent(5000, 59)
    assert sent(5000, 60)
    # The same bytes again and again are no progress.
    assert not sent(5000, 600)
    assert not sent(1000, 600)
    assert sent(5001, 600)
    task.refresh_from_db()
    assert task.active_at == now + timedelta(seconds=600)
    # The next push begins anew.
    UpdateTask.objects.filter(pk=task.pk).update(pushed_at=now + timedelta(seconds=700))
    assert sent(10, 800)


@pytest.mark.parametrize("status", sorted((OPEN | FINAL) - UPDATING))
def test_only_an_update_that_runs_is_kept_alive_by_bytes(status: TaskStatus, task: UpdateTask) -> None:
    UpdateTask.objects.filter(pk=task.pk).update(status=status)
    assert not bytes_sent(task.pk, 1000)


def test_bytes_that_were_sent_are_written_down(task: UpdateTask, path: str) -> None:
    ask(path, Range="bytes=0-999")
    task.refresh_from_db()
    assert task.downloaded_bytes == 1000
    assert task.active_at is not None


def test_a_lost_or_shortened_file_is_looked_at_before_the_next_push(
    task: UpdateTask, path: str, tmp_path: Path
) -> None:
    Campaign.objects.update(file_checked_at=timezone.now())
    (stored,) = (tmp_path / "firmware").iterdir()
    stored.write_bytes(CONTENT[:-1])
    assert ask(path).status == 404
    assert Campaign.objects.get().file_checked_at is None


def test_a_client_that_has_the_file_is_not_sent_it(task: UpdateTask, path: str) -> None:
    tag = ask(path, "head").headers["ETag"]
    for value in (tag, f'"x", W/{tag}', "*"):
        assert ask(path, If_None_Match=value).status == 304
    assert ask(path, If_None_Match='"x"').status == 200
    assert downloads(task) == 1


def test_a_database_that_is_away_is_a_bare_503(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: object) -> None:
        raise OperationalError("away on purpose")

    monkeypatch.setattr("campaigns.downloads.is_continuation", away)
    answer = ask(path)
    assert (answer.status, answer.body) == (503, b"")
