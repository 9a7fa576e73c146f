"""CSV files: lists of devices as people write them, and tables in which a spreadsheet runs nothing."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

# Headings of the column with DeviceNames, as people see them; case, blanks, - and _ do not matter.
HEADINGS = ("DeviceName", "device_name", "Device Name", "设备名称")
_KNOWN = frozenset({"devicename", "设备名称"})
_DELIMITERS = (",", ";", "\t")
# A cell that begins with one of these may be run as a formula, also after a line break or in full width.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_IGNORED_IN_HEADINGS = re.compile(r"[\s_\ufeff-]+")
# What makes a line more than blanks, quotes and separators.
_TEXT = re.compile(r"[^\s\ufeff\",;]")
_BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# No DeviceName has blanks or characters beyond ASCII.
_NO_NAME = re.compile(r"[^\x21-\x7e]")


def device_names(file: IO[bytes]) -> Iterator[str]:
    """The DeviceNames of a file, in order, repeated ones too; empty cells are left out.

    Cells are separated by commas, semicolons or tabs; the text is UTF-8, UTF-16 with its byte order mark, or
    GB18030. The names stand in the column that has one of HEADINGS, or are the only column. What `csv_text`
    wrote reads back unchanged. Raises ValidationError: no such text, or no column can be told to be the one.
    """
    text = io.TextIOWrapper(file, encoding=_encoding(file), newline="")
    try:
        yield from _names(_text_only(text))
    except (UnicodeError, csv.Error):
        raise _no_text() from None
    finally:
        text.detach()


def _no_text() -> ValidationError:
    message = _("This is not a list of devices. Save it as CSV in UTF-8, UTF-16 or GB18030.")
    return ValidationError(message, code="format")


def _encoding(file: IO[bytes]) -> str:
    head = file.read(2)
    file.seek(0)
    if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    for encoding in ("utf-8-sig", "gb18030"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            while piece := file.read(1024 * 1024):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        else:
            return encoding
        finally:
            file.seek(0)
    raise _no_text()


def _text_only(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if _BINARY.search(line):
            raise _no_text()
        yield line


def _names(lines: Iterator[str]) -> Iterator[str]:
    first = next((line for line in lines if _TEXT.search(line)), None)
    if first is None:
        return
    delimiter = _delimiter(first)
    rows = csv.reader(_and_then(first, lines), delimiter=delimiter)
    head = next(rows)
    column = _column(head)
    if column is None:
        cells = [cell.strip() for cell in head if cell.strip()]
        if len(cells) > 1 or _NO_NAME.search(cells[0]):
            message = _(
                "The first line is “%(line)s”. "
                "Give the column with the device names the heading %(headings)s."
            )
            values = {"line": ", ".join(cells)[:100], "headings": " / ".join(HEADINGS)}
            raise ValidationError(message, code="heading", params=values)
        column = head.index(next(cell for cell in head if cell.strip()))
        yield _restored(cells[0])
    for row in rows:
        if column < len(row) and (name := row[column].strip()):
            yield _restored(name)


def _and_then(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _delimiter(line: str) -> str:
    """The one that makes a heading of ours appear, or else the most cells."""
    cells = {delimiter: next(csv.reader([line], delimiter=delimiter)) for delimiter in _DELIMITERS}
    for delimiter, row in cells.items():
        if _column(row) is not None:
            return delimiter
    return max(cells, key=lambda delimiter: len(cells[delimiter]))


def _column(row: Sequence[str]) -> int | None:
    for number, cell in enumerate(row):
        if _IGNORED_IN_HEADINGS.sub("", cell).casefold() in _KNOWN:
            return number
    return None


def _restored(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def defused(cell: Any) -> Any:
    """A cell that no spreadsheet will run: an apostrophe in front makes it text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """These rows as CSV, each cell defused."""
    text = io.StringIO()
    csv.writer(text).writerows([defused(cell) for cell in row] for row in rows)
    return text.getvalue()
