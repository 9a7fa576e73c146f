"""Lists of devices as CSV: read from people's files, written so that a spreadsheet runs nothing."""

import csv
import io
from collections.abc import Iterable, Sequence

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

MAX_BYTES = 1024 * 1024
HEADER = "devicename"
# A cell that begins with one of these may be run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_names(content: bytes) -> list[str]:
    """The first column, without a heading "DeviceName" and empty lines. ValidationError if it is no text."""
    if len(content) > MAX_BYTES:
        raise ValidationError(_("The file is larger than 1 MB."), code="size")
    try:
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise ValidationError(_("This is not a CSV file in UTF-8."), code="format") from None
    names = [row[0].strip() for row in rows if row and row[0].strip()]
    if names and names[0].lower() == HEADER:
        del names[0]
    # What we write ourselves may be read again.
    return [name[1:] if name.startswith("'") and name[1:].startswith(_FORMULA) else name for name in names]


def write(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """CSV text; a cell that a spreadsheet would run is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in row] for row in rows)
    return out.getvalue()
