"""CSV files of people, and for people."""

import csv
import io

import pytest
from django.core.exceptions import ValidationError
from hypothesis import example, given
from hypothesis import strategies as st

from otaplatform.core.csv_files import FORMULA, HEADINGS, csv_text, defused, device_names

NAME = st.text("abcXYZ019_.:@-", min_size=4, max_size=32)


def read(content: bytes | str, encoding: str = "utf-8") -> list[str]:
    return list(device_names(io.BytesIO(content.encode(encoding) if isinstance(content, str) else content)))


@pytest.mark.parametrize(
    "content",
    [
        "gw-1\r\ngw-2",
        "\ufeffgw-1\n\n  gw-2  \n",
        "gw-1,\ngw-2,\n",
        "DeviceName\ngw-1\ngw-2\n",
        "\r\n,,\r\nSerialNumber,DeviceName\r\n0001,gw-1\r\n0002,gw-2\r\n0003,\r\n0004\r\n",
        '"Serial;Number";"Device Name"\n1;gw-1\n2;gw-2\n',
        "Model\tdevice_name\tSite\na,b\tgw-1\tx\na\tgw-2\ty\n",
        "型号,设备名称\n大,gw-1\n小,gw-2\n",
        "DEVICE-NAME;note\ngw-1;first\ngw-2;\n",
    ],
)
def test_names_stand_under_their_heading_or_are_the_only_column(content: str) -> None:
    assert read(content) == ["gw-1", "gw-2"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_files_of_every_usual_encoding_are_read(encoding: str) -> None:
    assert read("备注,设备名称\n泵房,gw-1\n屋顶,gw-2\n", encoding) == ["gw-1", "gw-2"]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_both_byte_orders_are_read(mark: bytes) -> None:
    text = "DeviceName\ngw-1\n".encode("utf-16-le" if mark == b"\xff\xfe" else "utf-16-be")
    assert read(mark + text) == ["gw-1"]


@pytest.mark.parametrize(
    "line", ["SerialNumber,Model", "gw-1,north", "Serial Number", "序列号", "a;b;c", "x\ty"]
)
def test_a_column_is_never_guessed(line: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(f"{line}\ngw-1,gw-2\n")
    (message,) = refused.value.messages
    assert all(heading in message for heading in HEADINGS)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00g\x00", b"PK\x03\x04zip", b"\xff\xff\xff", b'"' + b"x" * 200_000, b"gw-1\0\n"]
)
def test_what_is_no_text_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError) as refused:
        read(content)
    assert refused.value.code == "format"


def test_an_empty_file_names_nothing() -> None:
    assert read(b"") == read("\ufeff\r\n,;\n") == []


@pytest.mark.parametrize("blank", ["\u3000", "\xa0", '""', '"",""'])
def test_a_line_of_blanks_and_quotes_is_no_first_line(blank: str) -> None:
    assert read(blank) == []
    assert read(f"{blank}\nDeviceName\ngw-1\n") == ["gw-1"]


@given(st.binary(max_size=300))
@example(b"\x0c")
def test_any_bytes_are_names_or_a_refusal(content: bytes) -> None:
    try:
        names = read(content)
    except ValidationError:
        return
    assert all(names)


@given(st.lists(st.tuples(NAME, st.text(st.characters(codec="utf-8"), max_size=8)), min_size=1))
def test_our_own_tables_read_back_unchanged(rows: list[tuple[str, str]]) -> None:
    text = csv_text([["Result", "DeviceName"], *[(note, name) for name, note in rows]])
    try:
        found = read("\ufeff" + text)
    except ValidationError:
        # A control character in a note: no table of ours has one.
        assert any(ord(character) < 32 for _name, note in rows for character in note)
        return
    assert found == [name for name, _note in rows]


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_no_cell_begins_a_formula(cells: list[str]) -> None:
    for row in csv.reader(io.StringIO(csv_text([cells]), newline="")):
        assert not any(cell.startswith(FORMULA) for cell in row)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_what_a_spreadsheet_may_run_becomes_text(start: str) -> None:
    assert defused(f"{start}1+1") == f"'{start}1+1"
    assert (defused(7), defused("a=1")) == (7, "a=1")
