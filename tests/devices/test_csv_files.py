"""CSV files of people, and for people."""

import csv
import io

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from devices import csv_files


def test_names_are_the_first_column_without_heading_and_empty_lines() -> None:
    content = "\ufeffDeviceName,note\r\ngw-1,first\r\n\r\n  gw-2  ,\r\n".encode()
    assert csv_files.read_names(content) == ["gw-1", "gw-2"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a" * 200_000, b"x\n" * csv_files.MAX_BYTES])
def test_what_is_no_csv_text_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        csv_files.read_names(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_names_or_a_refusal(content: bytes) -> None:
    try:
        names = csv_files.read_names(content)
    except ValidationError:
        return
    assert all(name == name.strip() for name in names if not name.startswith("'"))


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=3))
def test_no_cell_begins_a_formula(cells: list[str]) -> None:
    text = csv_files.write(["a"], [cells])
    for row in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


def test_names_that_look_like_formulas_survive_writing_and_reading() -> None:
    text = csv_files.write(["DeviceName"], [["@home"], ["-1"], ["gw-1"]])
    assert csv_files.read_names(text.encode()) == ["@home", "-1", "gw-1"]
