"""Range headers, as RFC 9110 and the device SDKs write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.download import ByteRange, UnsatisfiableRangeError, parse_range

sizes = st.integers(1, 10**9)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", (0, 99)),
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=90-200", (90, 99)),
        ("bytes=99-", (99, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-500", (0, 99)),
        (" bytes=5-6 ", (5, 6)),
        ("Bytes=5-6", (5, 6)),
        ("BYTES=-10", (90, 99)),
        ("bytes=10-,", (10, 99)),
        ("bytes=10-19 , ", (10, 19)),
        ("bytes=,10-19", (10, 19)),
        ("bytes= 10-19", (10, 19)),
        ("bytes=10-9223372036854775807", (10, 99)),
        ("bytes=10-18446744073709551615", (10, 99)),
        ("bytes=0000000000000000000000010-19", (10, 19)),
        (f"bytes=10-{'9' * 5000}", (10, 99)),
        (f"bytes=-{'9' * 30}", (0, 99)),
    ],
)
def test_a_range_inside_the_file_is_what_it_says(header: str, expected: tuple[int, int]) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "items=0-5", "bytes=a-b", "bytes=٣-٤"],
)
def test_what_is_no_single_byte_range_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "header",
    ["bytes=100-", "bytes=100-200", "bytes=999999999999999999-", "bytes=-0", f"bytes={'9' * 5000}-"],
)
def test_a_range_behind_the_end_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 100)


@given(st.text(max_size=40) | st.from_regex(r"\A[Bb]ytes=,?[0-9]{0,30}-[0-9]{0,30},?\Z"), sizes)
def test_every_answer_lies_inside_the_file(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableRangeError:
        return
    assert found is None or (0 <= found.start <= found.last < size and found.length >= 1)


@given(sizes, st.data())
def test_a_file_fetched_in_parts_is_fetched_whole(size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, size - 1))
    rest = parse_range(f"bytes={cut}-", size)
    assert rest == ByteRange(cut, size - 1)
    if cut:
        head = parse_range(f"bytes=0-{cut - 1}", size)
        assert head is not None
        assert head.length + rest.length == size
