"""Pages of tasks in the order (newest campaign, status, id), which an index has: no count, no offset.

A list may span many campaigns and statuses. Each pair of them is a segment of the index; the stored counters
say which segments hold rows, so a page reads only the few that it shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import Q

from campaigns.models import UpdateTask, UpdateTaskQuerySet
from campaigns.states import TABS

PAGE_SIZE = 50
# Neighbouring segments of fewer rows than this are read together.
SMALL = 200


class Position(NamedTuple):
    """A row's place in the order."""

    campaign: int
    status: str
    id: int

    @classmethod
    def of(cls, task: UpdateTask) -> "Position":
        return cls(task.campaign_id, task.status, task.pk)

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """What `str()` made; None for anything else."""
        campaign, _, rest = text.partition("-")
        status, _, pk = rest.partition("-")
        if not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in (campaign, pk)):
            return None
        return cls(int(campaign), status, int(pk))

    def __str__(self) -> str:
        return f"{self.campaign}-{self.status}-{self.id}"


@dataclass(frozen=True, slots=True)
class TaskPage:
    rows: list[UpdateTask]
    before: Position | None
    after: Position | None


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a tab down; the filtered rows of all its segments are then read as one."""

    name_prefix: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.name_prefix or self.reason)

    def apply(self, tasks: UpdateTaskQuerySet, products: Sequence[int]) -> UpdateTaskQuerySet:
        if self.name_prefix:
            tasks = tasks.of_devices_named(self.name_prefix, products)
        return tasks.filter(reason=self.reason) if self.reason else tasks


Totals = Mapping[int, Mapping[str, int]]


def tasks_page(
    tab: str,
    totals: Totals,
    *,
    products: Sequence[int],
    filters: Filters = Filters(),
    after: Position | None = None,
    before: Position | None = None,
    size: int = PAGE_SIZE,
) -> TaskPage:
    """The rows of a tab of these campaigns ({campaign id: {status: tasks}}) behind or ahead of a position."""
    backwards = before is not None and after is None
    edge = before if backwards else after
    statuses = sorted(status.value for status in TABS[tab])
    segments = [(campaign, status) for campaign in sorted(totals, reverse=True) for status in statuses]
    if backwards:
        segments.reverse()
    if edge:
        if (edge.campaign, edge.status) not in segments:
            edge = None
            backwards = False
        else:
            segments = segments[segments.index((edge.campaign, edge.status)) :]
    tasks = filters.apply(UpdateTask.objects.select_related("campaign", "device"), products)
    sign, compare = ("-", "lt") if backwards else ("", "gt")
    order = (f"{'' if backwards else '-'}campaign_id", f"{sign}status", f"{sign}id")
    rows: list[UpdateTask] = []
    for group in _groups(segments, totals, whole=bool(filters), edge=edge):
        wanted = Q()
        for campaign, status in group:
            one = Q(campaign=campaign, status=status)
            if edge and (campaign, status) == (edge.campaign, edge.status):
                one &= Q(**{f"id__{compare}": edge.id})
            wanted |= one
        rows += tasks.filter(wanted).order_by(*order)[: size + 1 - len(rows)]
        if len(rows) > size:
            break
    more = len(rows) > size
    rows = rows[:size]
    if backwards:
        rows.reverse()
    if not rows:
        return TaskPage([], None, None)
    first, last = Position.of(rows[0]), Position.of(rows[-1])
    has_before, has_after = (more, True) if backwards else (edge is not None, more)
    return TaskPage(rows, first if has_before else None, last if has_after else None)


def _groups(
    segments: Sequence[tuple[int, str]], totals: Totals, *, whole: bool, edge: Position | None
) -> Iterator[list[tuple[int, str]]]:
    """Segments that are read with one query each: large ones alone, small neighbours together."""
    group: list[tuple[int, str]] = []
    held = 0
    for campaign, status in segments:
        count = totals[campaign].get(status, 0)
        at_edge = edge is not None and (campaign, status) == (edge.campaign, edge.status)
        if count <= 0 and not at_edge:
            continue
        if group and not whole and held + count > SMALL:
            yield group
            group, held = [], 0
        group.append((campaign, status))
        held += count
    if group:
        yield group
