"""Lists with a cursor: the thousandth page costs what the first does, and nothing is counted.

The cursor is opaque to the caller: the position of a row in the list's order, and the direction.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.expressions import F
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.utils.translation import gettext as _
from rest_framework.request import Request

from otaplatform.api.errors import ApiError

PAGE_SIZE = 50
MAX_PAGE_SIZE = 500


class Cursor(NamedTuple):
    """Rows behind (or, backwards, ahead of) the row with these values in the ordering columns."""

    backwards: bool
    values: list[Any]

    def __str__(self) -> str:
        text = json.dumps([int(self.backwards), *self.values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, types: Sequence[type]) -> "Cursor":
        try:
            padded = text + "=" * (-len(text) % 4)
            direction, *values = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
            right = direction in (0, 1) and [type(value) for value in values] == list(types)
        except (ValueError, TypeError, RecursionError):
            right = False
        if not right or any((isinstance(v, int) and abs(v) >= 2**63) or v == "\0" for v in values):
            raise _wrong()
        return cls(bool(direction), values)


def _wrong() -> ApiError:
    return ApiError("invalid", problems={"cursor": [("invalid", _("Follow the links of a list instead."))]})


class Page(NamedTuple):
    rows: list[Any]
    next: str | None
    previous: str | None


def page(request: Request, rows: "models.QuerySet[Any]", *order: str, size: int = PAGE_SIZE) -> Page:
    """The page of `rows` that the address asks for, in the order of columns that together are unique.

    All columns ascend or all descend ("-id"); an index should begin with what `rows` filters on, then these.
    """
    descending = order[0].startswith("-")
    columns = [column.lstrip("-") for column in order]
    types = [int if isinstance(_field(rows, column), models.IntegerField) else str for column in columns]
    text = request.query_params.get("cursor", "")
    cursor = Cursor.parse(text, types) if text else None
    backwards = cursor is not None and cursor.backwards
    downwards = descending != backwards
    if cursor:
        rows = rows.filter(_beyond(columns, cursor.values, downwards))
    try:
        found = list(
            rows.order_by(*(f"{'-' if downwards else ''}{column}" for column in columns))[: size + 1]
        )
    except (ValidationError, UnicodeError):
        raise _wrong() from None
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    if not found:
        return Page([], None, None)
    has_previous, has_next = (more, True) if backwards else (cursor is not None, more)

    def link(row: Any, back: bool) -> str:
        return _link(request, Cursor(back, [getattr(row, column) for column in columns]))

    return Page(
        found, link(found[-1], False) if has_next else None, link(found[0], True) if has_previous else None
    )


def page_of_list(request: Request, rows: Sequence[Any], *, size: int = PAGE_SIZE) -> Page:
    """The same over a list in memory; positions are numbers."""
    text = request.query_params.get("cursor", "")
    start = Cursor.parse(text, [int]).values[0] if text else 0
    start = max(0, min(start, len(rows)))
    ahead = start + size
    return Page(
        list(rows[start:ahead]),
        _link(request, Cursor(False, [ahead])) if ahead < len(rows) else None,
        _link(request, Cursor(True, [max(0, start - size)])) if start else None,
    )


def _field(rows: "models.QuerySet[Any]", column: str) -> Any:
    return rows.model._meta.get_field(column)


def _beyond(columns: Sequence[str], values: Sequence[Any], downwards: bool) -> Any:
    if len(columns) == 1:
        return models.Q(**{f"{columns[0]}__{'lt' if downwards else 'gt'}": values[0]})
    lookup = TupleLessThan if downwards else TupleGreaterThan
    return lookup(Tuple(*(F(column) for column in columns)), tuple(values))


def _link(request: Request, cursor: Cursor) -> str:
    query = request.query_params.copy()
    query["cursor"] = str(cursor)
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
