"""Pages of long lists: the hundredth page costs what the first does, and nothing is counted."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest

PAGE_SIZE = 50
COUNT_LIMIT = 10_000

Row = TypeVar("Row", bound=models.Model)


class BoundedPaginator(Paginator[Any]):
    """For Django's own lists: counts, and so pages, COUNT_LIMIT rows at most; search finds the rest."""

    @cached_property
    def count(self) -> int:
        rows: models.QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:COUNT_LIMIT].count()


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[Row]):
    """Some rows of a list, and the query strings of its neighbours (empty where there is none)."""

    rows: list[Row]
    previous: str
    next: str


def keyset(
    request: HttpRequest, rows: "models.QuerySet[Row]", column: str = "id", *, descending: bool = True
) -> KeysetPage[Row]:
    """The page of `rows` that `?after=` or `?before=` of the address asks for, ordered by a unique column.

    The template is `console/pager.html`.
    """
    size = PAGE_SIZE
    after, before = (request.GET.get(name, "").replace("\0", "") for name in ("after", "before"))
    backwards = bool(before) and not after
    downwards = descending != backwards
    if edge := after or before:
        try:
            rows = rows.filter(**{f"{column}__{'lt' if downwards else 'gt'}": edge})
        except ValueError:
            edge = ""
    found = list(rows.order_by(f"{'-' if downwards else ''}{column}")[: size + 1])
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()

    def link(name: str, row: Row) -> str:
        query = request.GET.copy()
        query.pop("after", None)
        query.pop("before", None)
        query[name] = str(getattr(row, column))
        return "?" + query.urlencode()

    has_previous, has_next = (more, True) if backwards else (bool(edge), more)
    return KeysetPage(
        found,
        link("before", found[0]) if found and has_previous else "",
        link("after", found[-1]) if found and has_next else "",
    )
