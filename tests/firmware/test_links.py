"""Download links: unguessable, expiring, short."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from firmware import links
from firmware.models import FirmwareFile

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FILE = FirmwareFile(pk=7)
task_ids = st.integers(0, 2**63 - 1)
file_ids = st.integers(0, 2**40 - 1)


def token_of(url: str) -> str:
    return url.rpartition("/")[2]


@given(task_ids, file_ids, st.integers(0, 999_999))
def test_a_link_says_its_task_file_and_time_until_it_expires(task: int, file: int, part: int) -> None:
    issued = NOW.replace(microsecond=part)
    token = links.make_token(task, file, issued)
    assert links.read_link(token, issued) == (task, file, issued)
    assert links.read_link(token, issued + timedelta(hours=24)) == (task, file, issued)
    assert links.read_link(token, issued + timedelta(hours=24, microseconds=1)) is None
    assert len(token) == links.TOKEN_CHARS


def test_a_link_lives_as_long_as_the_setting_says(settings: Settings) -> None:
    settings.OTA_LINK_HOURS = 2
    token = token_of(links.make_link(1, FILE, NOW))
    assert links.read_link(token, NOW + timedelta(hours=2))
    assert not links.read_link(token, NOW + timedelta(hours=2, seconds=1))


def test_a_link_is_our_public_address_and_a_token_that_needs_no_escaping(settings: Settings) -> None:
    settings.OTA_DOWNLOAD_URL = "https://ota.example"
    url = links.make_link(2**63 - 1, FirmwareFile(pk=2**40 - 1), NOW)
    base, _, token = url.rpartition("/")
    assert base == "https://ota.example/f"
    assert all(c.isalnum() or c in "-_" for c in token)


def test_a_link_respelled_in_the_ordinary_base64_alphabet_is_refused() -> None:
    token = links.make_token(2**64 - 2, 2**40 - 6, NOW)
    respelled = token.replace("-", "+").replace("_", "/")
    assert "+" in respelled
    assert "/" in respelled
    assert links.read_link(token, NOW) is not None
    assert links.read_link(respelled, NOW) is None


@given(st.integers(0, links.TOKEN_CHARS - 1), st.sampled_from("AZaz09-_=+/ \n"))
def test_a_link_with_any_character_changed_is_refused(place: int, character: str) -> None:
    token = links.make_token(1, 2, NOW)
    changed = token[:place] + character + token[place + 1 :]
    assert links.read_link(changed, NOW) is None or changed == token


@given(st.text(max_size=60) | st.text(min_size=links.TOKEN_CHARS, max_size=links.TOKEN_CHARS))
def test_no_text_is_a_link_by_chance(text: str) -> None:
    assert links.read_link(text, NOW) is None


def test_a_link_under_a_replaced_key_is_good_until_that_key_is_forgotten(settings: Settings) -> None:
    token = links.make_token(1, 2, NOW)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another"
    assert links.read_link(token, NOW) is None
    settings.SECRET_KEY_FALLBACKS = [old]
    assert links.read_link(token, NOW) == (1, 2, NOW)


@pytest.mark.parametrize("hours", [1, 24])
def test_links_of_different_times_differ(hours: int) -> None:
    assert links.make_link(1, FILE, NOW) != links.make_link(1, FILE, NOW + timedelta(hours=hours))
