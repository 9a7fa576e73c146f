"""What the launch forms take and refuse, and how lists of names are read."""

import io
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from campaigns import chosen
from campaigns.forms import BatchForm, kind_label, retry_label
from campaigns.models import Campaign
from campaigns.states import Region
from firmware.models import Firmware
from otaplatform.api.tasks import clean_up
from tests.factories import FirmwareFactory


def form(firmware: Firmware, files: Any = None, **choices: Any) -> BatchForm:
    data = {"policy": "static", "region": "all", "when": "now", "timeout_minutes": "60"} | choices
    return BatchForm(firmware, data, files or {})


def errors(firmware: Firmware, **choices: Any) -> dict[str, list[str]]:
    return {
        field: [str(one) for one in sentences]
        for field, sentences in form(firmware, **choices).errors.items()
    }


def test_without_a_retry_no_number_of_retries_is_kept(firmware: Firmware) -> None:
    filled = form(firmware, retry_interval_minutes="", max_retries="5")
    assert filled.is_valid()
    assert (filled.plan().retry_interval_minutes, filled.plan().max_retries) == (None, None)
    filled = form(firmware, retry_interval_minutes="0", max_retries="5")
    assert filled.is_valid()
    assert (filled.plan().retry_interval_minutes, filled.plan().max_retries) == (0, 5)


def test_values_that_are_not_offered_are_refused(firmware: Firmware) -> None:
    wrong = errors(
        firmware,
        policy="sometimes",
        retry_interval_minutes="7",
        max_retries="3",
        timeout_minutes="1441",
        max_per_minute="9",
        source_versions=["9.9"],
    )
    assert set(wrong) >= {
        "policy",
        "retry_interval_minutes",
        "timeout_minutes",
        "max_per_minute",
        "source_versions",
    }


def test_an_empty_time_out_and_limit_mean_none(firmware: Firmware) -> None:
    filled = form(firmware, timeout_minutes="", max_per_minute="")
    assert filled.is_valid()
    assert (filled.plan().timeout_minutes, filled.plan().max_per_minute) == (None, None)


def test_only_a_static_update_can_be_scheduled(firmware: Firmware) -> None:
    at = f"{timezone.now() + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    assert "when" in errors(firmware, policy="dynamic", when="scheduled", schedule_at=at)
    assert not errors(firmware, when="scheduled", schedule_at=at)
    assert "schedule_at" in errors(firmware, when="scheduled")


@pytest.mark.parametrize("wall", ["2027-03-28T02:30", "2026-10-25T02:30"])
def test_a_local_time_that_does_not_exist_or_exists_twice_is_refused_with_a_sentence(
    firmware: Firmware, wall: str
) -> None:
    with timezone.override("Europe/Berlin"):
        (sentence,) = errors(firmware, when="scheduled", schedule_at=wall)["schedule_at"]
        assert "Europe/Berlin" in sentence
        assert "Europe/Berlin" in str(form(firmware).fields["schedule_at"].help_text)


def test_the_time_is_read_in_the_active_zone(firmware: Firmware) -> None:
    with timezone.override("Asia/Shanghai"):
        filled = form(firmware, when="scheduled", schedule_at="2026-11-24T09:30")
        assert filled.is_valid()
    assert filled.plan().schedule_at == datetime(2026, 11, 24, 1, 30, tzinfo=UTC)


def test_a_directional_update_needs_devices(firmware: Firmware) -> None:
    assert "device_names" in errors(firmware, region=Region.DIRECTIONAL)
    filled = form(firmware, region=Region.DIRECTIONAL, device_names="b-01, a-01\n\tb-01；c-01")
    assert filled.is_valid()
    assert filled.plan().device_names == ["b-01", "a-01", "c-01"]


def test_names_are_forgotten_when_all_devices_are_chosen(firmware: Firmware) -> None:
    filled = form(firmware, device_names="a-01")
    assert filled.is_valid()
    assert filled.plan().device_names == []


def test_a_delta_package_offers_no_versions(db: None) -> None:
    delta = FirmwareFactory.create(source_version="1.0.0")
    assert "source_versions" not in form(delta).fields


def test_settings_are_put_into_words() -> None:
    campaign = Campaign(kind="upgrade", policy="dynamic", retry_interval_minutes=30, max_retries=2)
    assert (kind_label(campaign), retry_label(campaign)) == (
        "Dynamic Update",
        "Retry in 30 Minutes, at most 2 times",
    )
    assert (kind_label(Campaign(kind="verify")), retry_label(Campaign())) == ("Validation", "Do Not Retry")


# ---- lists of names ----


def read(content: bytes) -> list[str]:
    return chosen.from_csv(io.BytesIO(content))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"gw-1\r\ngw-2\r\n", ["gw-1", "gw-2"]),
        (b"DeviceName\ngw-1\ngw-1\n\n", ["gw-1"]),
        (b"\xef\xbb\xbfdevicename,place\ngw-1,hall\n", ["gw-1"]),
        (b"place, DeviceName \nhall, gw-1 \nroof\n", ["gw-1"]),
        (b"", []),
    ],
)
def test_a_csv_file_is_read_with_or_without_its_header(content: bytes, names: list[str]) -> None:
    assert read(content) == names


@pytest.mark.parametrize("content", [b"\xff\xfe\x00g\x00", b"SerialNumber,Model", b'"' + b"x" * 200_000])
def test_what_is_no_list_of_devices_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        read(content)


def test_more_names_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "MAX_CHOSEN", 3)
    assert len(chosen.from_text("a b c c a")) == 3
    with pytest.raises(ValidationError):
        chosen.from_text("a b c d")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_a_refusal(content: bytes) -> None:
    try:
        names = read(content)
    except ValidationError:
        return
    assert all(name and name == name.strip() for name in names)
    assert len(names) == len(set(names))


def test_a_kept_list_is_given_back_until_it_is_forgotten() -> None:
    key = chosen.keep(["gw-1", "网关"])
    assert chosen.kept(key) == ["gw-1", "网关"]
    chosen.forget(key)
    assert chosen.kept(key) is None


@pytest.mark.parametrize("key", ["", "../keys/secret_key", "x" * 32])
def test_a_key_that_was_never_given_out_opens_nothing(key: str) -> None:
    chosen.forget(key)
    assert chosen.kept(key) is None


@pytest.mark.django_db
def test_lists_of_other_days_are_removed() -> None:
    old, new = chosen.keep(["gw-1"]), chosen.keep(["gw-2"])
    long_ago = (timezone.now() - timedelta(days=2)).timestamp()
    os.utime(default_storage.path(f"{chosen.FOLDER}/{old}"), (long_ago, long_ago))
    clean_up()
    assert (chosen.kept(old), chosen.kept(new)) == (None, ["gw-2"])
    assert not default_storage.exists(f"{chosen.FOLDER}/{old}")
