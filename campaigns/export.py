"""Tables as CSV files, streamed: a million rows never stand in memory at once."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from campaigns.listing import Filters, Totals, tasks_page
from campaigns.models import UpdateTask
from campaigns.states import TABS, Reason, TaskStatus
from devices import versions
from otaplatform.core.csv_files import csv_text

CHUNK = 1000


async def _pieces(texts: Iterator[str]) -> AsyncIterator[str]:
    # The mark at the beginning tells Excel that this is UTF-8.
    yield "\ufeff"
    following = sync_to_async(lambda: next(texts, None))
    while (text := await following()) is not None:
        yield text


def csv_response(file_name: str, texts: Iterator[str]) -> StreamingHttpResponse:
    """A download of these pieces of CSV, each made when the one before has been sent."""
    return StreamingHttpResponse(
        _pieces(texts),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file_name}"'},
    )


def tasks_csv(
    tabs: Sequence[str], totals: Totals, products: Sequence[int], filters: Filters
) -> Iterator[str]:
    """Tasks of these tabs as pieces of CSV, in the language and zone active at the call."""
    return _tasks_csv(
        tabs,
        totals,
        products,
        filters,
        translation.get_language() or "en",
        timezone.get_current_timezone(),
    )


def _tasks_csv(
    tabs: Sequence[str],
    totals: Totals,
    products: Sequence[int],
    filters: Filters,
    language: str,
    zone: tzinfo,
) -> Iterator[str]:
    # The reader's settings are put on for each piece anew: between two pieces the thread serves others.
    with translation.override(language), timezone.override(zone):
        yield csv_text([_headings()])
    for tab in (tab for tab in TABS if tab in tabs):
        after = None
        while True:
            found = tasks_page(tab, totals, products=products, filters=filters, after=after, size=CHUNK)
            with translation.override(language), timezone.override(zone):
                yield csv_text(_rows(found.rows))
            after = found.after
            if after is None:
                break


def _headings() -> list[str]:
    return [
        "DeviceName",
        _("Current version"),
        _("Update batch"),
        _("Status"),
        _("Progress"),
        _("Reason"),
        _("Device's words"),
        _("Attempt"),
        _("Last change"),
    ]


def _rows(tasks: Sequence[UpdateTask]) -> Iterator[list[Any]]:
    running = versions.current([task.device_id for task in tasks])
    for task in tasks:
        yield [
            task.device.name,
            running.get((task.device_id, task.module), ""),
            str(task.campaign),
            str(TaskStatus(task.status).label),
            task.progress,
            str(Reason(task.reason).label) if task.reason else "",
            task.detail,
            task.attempt,
            _time(task.changed_at),
        ]


def _time(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"
