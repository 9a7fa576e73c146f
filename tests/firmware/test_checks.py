"""Wrong settings are said at start, with what to do."""

from typing import Any

import pytest
from pytest_django import Settings

from firmware.checks import firmware_settings


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"OTA_DOWNLOAD_URL": "http://127.0.0.1:8000"}, []),
        ({"OTA_DOWNLOAD_URL": "https://ota.example:8443"}, ["firmware.W002"]),
        ({"OTA_DOWNLOAD_URL": "ota.example"}, ["firmware.E001"]),
        ({"OTA_DOWNLOAD_URL": "https://" + "a" * 200 + ".example"}, ["firmware.E003"]),
        ({"OTA_STORAGE": "ftp"}, ["firmware.E004"]),
        ({"OTA_STORAGE": "s3", "OTA_S3_BUCKET": ""}, ["firmware.E005"]),
        ({"OTA_STORAGE": "s3", "OTA_S3_BUCKET": "firmware"}, []),
        ({"OTA_X_ACCEL_PREFIX": "_firmware"}, ["firmware.E006"]),
        ({"OTA_X_ACCEL_PREFIX": "/_firmware/"}, []),
        ({"OTA_MAX_FIRMWARE_MB": 0}, ["firmware.E007"]),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], found: list[str], settings: Settings) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)
    messages = firmware_settings(None)
    assert [message.id for message in messages] == found
    assert all(message.hint or "at least" in message.msg for message in messages)
