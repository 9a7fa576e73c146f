"""Which files are taken, by their ending and by what is in them."""

import io
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firmware import content
from tests.firmware.samples import CONTENT, tarred, zipped

ARCHIVES = [".tar.gz", ".tar", ".gz", ".zip"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("image.bin", ".bin"),
        ("IMAGE.BIN", ".bin"),
        ("image.v2.tar.gz", ".tar.gz"),
        ("image.gz", ".gz"),
        ("固件.zip", ".zip"),
        ("image.tgz", None),
        ("image.bin.exe", None),
        ("bin", None),
        (".bin", None),
        ("image.bin\n", None),
        ("", None),
    ],
)
def test_the_ending_of_a_name_decides_its_form(name: str, suffix: str | None) -> None:
    assert content.suffix_of(name) == suffix


@pytest.mark.parametrize("suffix", CONTENT)
def test_a_file_that_is_what_its_ending_says_is_taken(suffix: str) -> None:
    assert content.matches(io.BytesIO(CONTENT[suffix]), suffix)


@pytest.mark.parametrize(
    ("suffix", "other"),
    [(a, b) for a in ARCHIVES for b in CONTENT if (a, b) != (".gz", ".tar.gz") and a != b],
)
def test_an_archive_that_is_something_else_is_refused(suffix: str, other: str) -> None:
    assert not content.matches(io.BytesIO(CONTENT[other]), suffix)


def test_a_zip_with_a_program_in_front_or_nothing_in_it_is_refused() -> None:
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert not content.matches(io.BytesIO(b"#!/bin/sh\n" + zipped()), ".zip")
    assert not content.matches(empty, ".zip")
    assert not content.matches(io.BytesIO(zipped()[:-10]), ".zip")


def test_a_bare_gzip_header_and_an_empty_tar_are_refused() -> None:
    assert not content.matches(io.BytesIO(CONTENT[".gz"][:10]), ".gz")
    assert not content.matches(io.BytesIO(b"\0" * 10240), ".tar")


def test_an_archive_bomb_is_looked_at_without_unpacking_it() -> None:
    import gzip

    bomb = gzip.compress(b"\0" * 50_000_000)
    assert content.matches(io.BytesIO(bomb), ".gz")
    assert len(content._gzip_head(bomb) or b"") <= content._HEAD


@given(st.sampled_from(ARCHIVES), st.binary(max_size=2000))
@example(".zip", b"PK\x03\x04")
@example(".gz", b"\x1f\x8b\x08")
def test_no_bytes_make_the_check_fail_in_another_way_than_refusing(suffix: str, raw: bytes) -> None:
    assert content.matches(io.BytesIO(raw), suffix) in (True, False)


@given(st.sampled_from(ARCHIVES), st.data())
def test_damaged_archives_never_raise(suffix: str, data: st.DataObject) -> None:
    damaged = bytearray(zipped() if suffix == ".zip" else tarred() if suffix == ".tar" else CONTENT[suffix])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert content.matches(io.BytesIO(bytes(damaged)), suffix) in (True, False)
