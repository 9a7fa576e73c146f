"""System checks of the platform's settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery.signals import beat_init, worker_init
from celery.utils.dispatch import Signal
from pytest_django import Settings

from otaplatform import celery
from otaplatform.checks import is_loopback, platform_settings, refuse_wrong_settings


def found() -> list[str | None]:
    return [message.id for message in platform_settings(None)]


def test_the_settings_of_a_plain_start_are_fine() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"OTA_BIND": "0.0.0.0", "OTA_PUBLIC_URL": "http://127.0.0.1:8000"}, "otaplatform.E001"),
        ({"OTA_PUBLIC_URL": "https://ota.example/console"}, "otaplatform.E002"),
        ({"SECURE_SSL_REDIRECT": True}, "otaplatform.E010"),
        ({"OTA_ENCRYPTION_KEYS": ["not a key"]}, "otaplatform.E003"),
        ({"MQTT_URL": "http://localhost"}, "otaplatform.E007"),
        ({"MQTT_URL": "mqtt://localhost"}, "otaplatform.E010"),
        ({"OTA_LOGIN_WAIT_MINUTES": 0}, "otaplatform.E011"),
        ({"SESSION_COOKIE_AGE": 0}, "otaplatform.E011"),
        ({"OTA_TOKEN_MAX_DAYS": 0}, "otaplatform.E011"),
        ({"OTA_HTTP_ONLINE_MINUTES": 0}, "otaplatform.E009"),
        ({"OTA_HTTP_TOKEN_DAYS": 0}, "otaplatform.E009"),
        ({"OTA_MQTT_TLS_PORT": 8883, "OTA_MQTT_TLS_KEY": __file__}, "otaplatform.E008"),
    ],
)
def test_a_wrong_combination_is_named_with_what_to_do(
    settings: Settings, wrong: dict[str, Any], code: str
) -> None:
    for name, value in wrong.items():
        setattr(settings, name, value)
    [message] = platform_settings(None)
    assert message.id == code
    assert message.hint


def test_a_start_without_a_management_command_is_refused_in_words(settings: Settings) -> None:
    refuse_wrong_settings()
    settings.MQTT_URL = "mqtt://broker.example.com"
    with pytest.raises(SystemExit, match=r"MQTT_URL names a broker .*\n.*Unset MQTT_URL"):
        refuse_wrong_settings()


@pytest.mark.parametrize("signal", [worker_init, beat_init])
def test_a_worker_and_beat_start_with_right_settings_only(settings: Settings, signal: Signal) -> None:
    settings.MQTT_URL = "mqtt://broker.example.com"
    assert celery.check_settings in [receiver() for _, receiver in signal.receivers]
    with pytest.raises(SystemExit):
        celery.check_settings()


def test_other_machines_may_be_let_in_once_the_public_address_is_known(settings: Settings) -> None:
    settings.OTA_BIND, settings.OTA_PUBLIC_URL = "0.0.0.0", "http://192.0.2.10"
    assert found() == []


@pytest.fixture
def engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pretend another database engine."""
    return lambda name: monkeypatch.setitem(
        settings.DATABASES["default"], "ENGINE", f"django.db.backends.{name}"
    )


def test_an_unsupported_database_is_refused(engine: Callable[[str], None]) -> None:
    engine("mysql")
    assert found() == ["otaplatform.E005"]


def test_redis_elsewhere_is_a_warning_with_sqlite_only(
    settings: Settings, engine: Callable[[str], None]
) -> None:
    settings.REDIS_URL = "redis://redis.example.com"
    engine("sqlite3")
    assert found() == ["otaplatform.W006"]
    engine("postgresql")
    assert found() == []


def test_a_key_file_that_others_can_read_is_a_warning(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()
    (tmp_path / "secret_key").chmod(0o644)
    settings.KEYS_DIR = tmp_path
    assert found() == ["otaplatform.W004"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("a", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
