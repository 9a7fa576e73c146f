"""Settings whose parts must fit together."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from channels_redis.core import RedisChannelLayer
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from otaplatform import settings as ours


def test_a_quiet_live_page_waits_in_redis_for_less_than_the_connection_gives_a_read() -> None:
    layer = RedisChannelLayer(**ours.CHANNEL_LAYERS["default"]["CONFIG"])
    patience = layer.create_pool(0).connection_kwargs["socket_timeout"]
    assert patience is not None, "a dead server would never be noticed"
    assert patience > layer.brpop_timeout


def test_every_variable_of_the_environment_that_is_read_is_explained() -> None:
    """In docs/operations.md, or docs/storage.md for where files are kept."""
    text = Path(ours.__file__).read_text()
    names = set(re.findall(r'(?:env\.\w+|truth|port|whole_number)\(\s*"([A-Z][A-Z0-9_]+)"', text))
    assert {"OTA_DATA_DIR", "OTA_DEBUG", "OTA_CELERY_BROKER_URL", "OTA_API_RATE"} <= names
    docs = ours.BASE_DIR / "docs"
    pages = [(docs / page).read_text() for page in ("operations.md", "storage.md")]
    said = {name for page in pages for name in re.findall(r"`([A-Z][A-Z0-9_]+)[`=]", page)}
    assert sorted(names - said) == []


def documented_for_production() -> dict[str, str]:
    """The block of environment variables under "Production behind HTTPS" in docs/operations.md."""
    text = (ours.BASE_DIR / "docs" / "operations.md").read_text()
    section = text.split("## Production behind HTTPS")[1].split("\n## ")[0]
    return dict(re.findall(r"^    ([A-Z][A-Z0-9_]+)=(\S+)$", section, re.MULTILINE))


def test_the_documented_production_settings_pass_djangos_deployment_check(tmp_path: Path) -> None:
    documented = documented_for_production()
    assert {"OTA_PUBLIC_URL", "OTA_BEHIND_PROXY", "OTA_HSTS_SECONDS", "OTA_SSL_REDIRECT"} <= set(documented)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTA_", "DJANGO_"))}
    for name in ("DATABASE_URL", "REDIS_URL", "MQTT_URL"):
        kept.pop(name, None)

    def check(**environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
            cwd=ours.BASE_DIR,
            env={**kept, "OTA_DATA_DIR": str(tmp_path / "var"), **environ},
            capture_output=True,
            text=True,
        )

    done = check(**documented)
    assert done.returncode == 0, done.stderr
    assert "security.W004" in check(**{**documented, "OTA_HSTS_SECONDS": "0"}).stderr


@pytest.mark.django_db
def test_only_people_are_redirected_to_https_never_devices(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 3600
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    client = Client()
    answer = client.get(reverse("admin:login"))
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://testserver/login/")
    for method, path in (
        ("post", "/auth"),
        ("post", "/topic/ota/device/inform/a1b2c3/d1"),
        ("get", "/f/strange"),
        ("get", "/healthz"),
    ):
        assert getattr(client, method)(path).status_code not in (301, 302), path
    inside = client.get(reverse("admin:login"), headers={"X-Forwarded-Proto": "https"})
    assert inside.status_code == 200
    assert inside.headers["Strict-Transport-Security"] == "max-age=3600"
