"""/healthz and the doctor."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from django.test import Client
from django_celery_beat.models import PeriodicTask
from pytest_django import Settings

from otaplatform import celery, health
from otaplatform.models import Heartbeat
from otaplatform.ticks import TICKS, heartbeat_name

pytestmark = pytest.mark.django_db
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
TICK, INTERVAL = min(TICKS.items(), key=lambda item: item[1])


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything has just given a sign of life."""
    monkeypatch.setattr(health, "_redis_answers", lambda: True)
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOW)
    for name in (*health.PARTS, *map(heartbeat_name, TICKS)):
        health.beat(name, NOW)


def ask() -> tuple[int, dict[str, Any]]:
    response = Client().get("/healthz")
    return response.status_code, json.loads(response.content)


def test_all_well_answers_200_without_a_login(well: None) -> None:
    status, body = ask()
    assert (status, body["status"]) == (200, "ok")
    assert set(body["parts"]) == {"database", "redis", "gateway", "worker", "presence"}
    assert body["ticks"].keys() == TICKS.keys()
    assert body["ticks"][TICK] == {"ok": True, "age": 0.0}


@pytest.mark.parametrize("part", health.PARTS)
def test_a_silent_part_answers_503_and_is_named(well: None, part: str) -> None:
    health.beat(part, NOW - health.PART_SILENCE - timedelta(seconds=1))
    status, body = ask()
    assert status == 503
    assert [name for name, state in body["parts"].items() if not state["ok"]] == [part]


def test_a_part_that_never_spoke_answers_503(well: None) -> None:
    Heartbeat.objects.filter(name="gateway").delete()
    status, body = ask()
    assert (status, body["parts"]["gateway"]) == (503, {"ok": False})


def test_a_part_that_says_it_is_unwell_answers_503(well: None) -> None:
    health.beat("gateway", NOW, ok=False)
    assert ask()[0] == 503


def test_a_broker_that_does_not_tell_who_is_connected_answers_503(well: None) -> None:
    health.beat("gateway", NOW, presence=False)
    status, body = ask()
    assert (status, body["parts"]["presence"]) == (503, {"ok": False})
    assert "does not tell which devices are connected" in doctor()[1]


def test_a_late_tick_answers_503(well: None) -> None:
    health.beat(heartbeat_name(TICK), NOW - health.allowed_silence(INTERVAL) - timedelta(seconds=1))
    status, body = ask()
    assert status == 503
    assert body["ticks"][TICK]["ok"] is False


def test_a_tick_that_was_switched_off_is_not_missed(well: None) -> None:
    PeriodicTask.objects.filter(name=TICK).update(enabled=False)
    Heartbeat.objects.filter(name=heartbeat_name(TICK)).delete()
    status, body = ask()
    assert status == 200
    assert TICK not in body["ticks"]


def test_without_redis_it_answers_503(well: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_redis_answers", lambda: False)
    assert ask()[1]["parts"]["redis"] == {"ok": False}
    assert ask()[0] == 503


def test_without_the_database_it_still_answers(well: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("password=secret")

    monkeypatch.setattr(Heartbeat.objects, "in_bulk", away)
    status, body = ask()
    assert (status, body["parts"]["database"]) == (503, {"ok": False})
    assert "secret" not in json.dumps(body)


def test_only_a_tick_that_succeeded_gives_a_sign_of_life() -> None:
    Heartbeat.objects.filter(name=heartbeat_name(TICK)).update(at=NOW)
    celery.tick_done(task=SimpleNamespace(name=TICK), state="FAILURE")
    assert Heartbeat.objects.get(name=heartbeat_name(TICK)).at == NOW
    celery.tick_done(task=SimpleNamespace(name=TICK), state="SUCCESS")
    assert Heartbeat.objects.get(name=heartbeat_name(TICK)).at != NOW


def test_other_tasks_leave_no_heartbeat() -> None:
    celery.tick_done(task=SimpleNamespace(name="somebody.else"), state="SUCCESS")
    assert not Heartbeat.objects.filter(name__contains="somebody").exists()


def doctor() -> tuple[bool, str]:
    output = StringIO()
    try:
        call_command("doctor", stdout=output)
    except CommandError as error:
        return False, output.getvalue() + str(error)
    return True, output.getvalue()


def test_the_doctor_is_content_when_all_is_well(well: None) -> None:
    content, report = doctor()
    assert content, report
    assert "FAIL" not in report


def test_the_doctor_names_files_that_others_can_read(well: None, settings: Settings, tmp_path: Path) -> None:
    settings.OTA_DATA_DIR = tmp_path
    tmp_path.chmod(0o700)
    assert "Only its owner can read" in doctor()[1]
    (tmp_path / "db.sqlite3").touch()
    (tmp_path / "db.sqlite3").chmod(0o644)
    content, report = doctor()
    assert not content
    assert "can reach 1 files" in report
    assert f"chmod -R go= {tmp_path}" in report


def test_the_doctor_says_what_to_do_about_a_silent_worker(well: None) -> None:
    Heartbeat.objects.filter(name="worker").delete()
    content, report = doctor()
    assert not content
    assert "FAIL  worker has given no sign of life." in report
    assert "celery -A otaplatform worker" in report
