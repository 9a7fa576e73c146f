"""Update Details: the tasks of a firmware's campaigns, or of one, tab by tab; the history of a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET

from campaigns import history, live
from campaigns.export import csv_response, tasks_csv
from campaigns.listing import Filters, Position, TaskPage, tasks_page
from campaigns.models import Campaign, CampaignCounter, TaskEvent, UpdateTask
from campaigns.states import TABS, CampaignKind, CampaignStatus, Reason, TaskStatus
from campaigns.views.common import live_config, page, the_campaign, the_firmware
from campaigns.why import Surroundings, Why, pending_label, why
from firmware.models import Firmware
from otaplatform.accounts.scope import Staff, account_scope, require

# A firmware's page shows this many of its campaigns, the newest.
CAMPAIGNS_SHOWN = 200
EVENTS_SHOWN = 500

TAB_LABELS = {
    "pending": gettext_lazy("Pending"),
    "updating": gettext_lazy("Updating"),
    "succeeded": TaskStatus.SUCCEEDED.label,
    "failed": TaskStatus.FAILED.label,
    "canceled": TaskStatus.CANCELED.label,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A task as its table shows it."""

    task: UpdateTask
    version: str
    label: str
    why: Why | None


@dataclass(frozen=True, slots=True)
class View:
    """What a request to Update Details asks for, over one campaign or all of a firmware."""

    firmware: Firmware
    campaigns: list[Campaign]
    campaign: Campaign | None
    # Of the filter: one of the firmware's campaigns.
    filtered: Campaign | None
    totals: Mapping[int, Mapping[str, int]]
    tab: str
    filters: Filters

    @classmethod
    def of(cls, request: HttpRequest, firmware: Firmware, campaign: Campaign | None) -> "View":
        if campaign:
            campaigns = [campaign]
        else:
            campaigns = list(
                Campaign.objects.filter(firmware=firmware)
                .select_related("product", "created_by")
                .order_by("-id")[:CAMPAIGNS_SHOWN]
            )
        totals = CampaignCounter.objects.totals([each.pk for each in campaigns])
        query = request.GET
        filtered = next((each for each in campaigns if str(each.pk) == query.get("campaign")), None)
        tabs = live.tab_counts(_summed(totals))
        tab = query.get("tab", "")
        if tab not in TABS:
            # The first one where something happens.
            tab = next(
                (name for name in ("updating", "pending", "failed", "succeeded") if tabs[name]), "pending"
            )
        reason = query.get("reason", "")
        return cls(
            firmware=firmware,
            campaigns=campaigns,
            campaign=campaign,
            filtered=filtered if campaign is None else None,
            totals=totals,
            tab=tab,
            filters=Filters(
                name_prefix=query.get("q", "").strip().replace("\0", ""),
                reason=reason if reason in Reason.values and tab == "failed" else "",
            ),
        )

    @property
    def shown_totals(self) -> Mapping[int, Mapping[str, int]]:
        return {self.filtered.pk: self.totals[self.filtered.pk]} if self.filtered else self.totals

    @property
    def tab_counts(self) -> dict[str, int]:
        return live.tab_counts(_summed(self.shown_totals))

    @property
    def products(self) -> list[int]:
        return sorted({each.product_id for each in self.campaigns})

    @property
    def url(self) -> str:
        if self.campaign:
            return reverse("campaigns:detail", args=[self.campaign.pk])
        return reverse("campaigns:firmware-details", args=[self.firmware.pk])

    @property
    def socket(self) -> str:
        if campaign := self.campaign or self.filtered:
            return f"/ws/campaigns/{campaign.pk}/"
        return f"/ws/firmware/{self.firmware.pk}/"


def _summed(totals: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    return {status: sum(each[status] for each in totals.values()) for status in TaskStatus.values}


@require_GET
@require("campaigns.view_campaign")
def of_firmware(request: Staff, pk: int) -> HttpResponseBase:
    """Update Details of a firmware: all its campaigns."""
    return _details(request, View.of(request, the_firmware(request, pk), None))


@require_GET
@require("campaigns.view_campaign")
def of_campaign(request: Staff, pk: int) -> HttpResponseBase:
    """Update Details of one campaign."""
    campaign = the_campaign(request, pk)
    return _details(request, View.of(request, campaign.firmware, campaign))


def _details(request: HttpRequest, view: View) -> HttpResponseBase:
    if "export" in request.GET:
        tabs = [view.tab] if request.GET["export"] == "tab" else list(TABS)
        name = f"{view.firmware.name}-{view.firmware.version}-{timezone.localdate()}.csv"
        return csv_response(
            name if name.isascii() else f"firmware-{view.firmware.pk}-{timezone.localdate()}.csv",
            tasks_csv(tabs, view.shown_totals, view.products, view.filters),
        )
    now = timezone.now()
    found = tasks_page(
        view.tab,
        view.shown_totals,
        products=view.products,
        filters=view.filters,
        after=Position.parse(request.GET.get("after", "")),
        before=Position.parse(request.GET.get("before", "")),
    )
    context: dict[str, Any] = {
        "view": view,
        "firmware": view.firmware,
        "campaign": view.campaign,
        "tab": view.tab,
        "filters": view.filters,
        "rows": rows(found, now),
        "links": _links(request, found),
        "query": _query(request, "after", "before"),
    }
    counts = view.tab_counts
    return page(
        request,
        "details.html",
        _("Update Details"),
        nav="firmware",
        **context,
        tabs=[(name, TAB_LABELS[name], counts[name]) for name in TABS],
        counts=counts,
        has_validation=any(each.kind == CampaignKind.VERIFY for each in view.campaigns),
        reasons=Reason.choices,
        live=live_config(
            view.socket,
            {pk: live.tab_counts(dict(counts)) for pk, counts in view.shown_totals.items()},
            watched=[view.tab],
        ),
        eta=_eta(view.campaign, counts, now) if view.campaign else None,
        is_open=view.campaign is not None
        and view.campaign.status in (CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS),
        may_act=request.user.has_perm("campaigns.change_campaign"),
        may_launch=request.user.has_perm("campaigns.add_campaign"),
        size=sum(file.size for file in view.firmware.files.all()),
    )


def rows(found: TaskPage, now: datetime) -> list[Row]:
    """The rows of a page with their sentences: three queries more, for any number of rows."""
    around = Surroundings.of(found.rows, now)
    return [
        Row(
            task,
            around.version_of(task),
            pending_label(task, around, now),
            why(task, around, now),
        )
        for task in found.rows
    ]


def _query(request: HttpRequest, *without: str) -> str:
    query = request.GET.copy()
    for name in without:
        query.pop(name, None)
    return query.urlencode()


def _links(request: HttpRequest, found: TaskPage) -> dict[str, str]:
    """The query strings of the neighbouring pages, as console/pager.html takes them."""
    query = request.GET.copy()
    for name in ("after", "before"):
        query.pop(name, None)
    links = {"previous": "", "next": ""}
    for key, name, position in (("previous", "before", found.before), ("next", "after", found.after)):
        if position:
            query[name] = str(position)
            links[key] = "?" + query.urlencode()
            del query[name]
    return links


def _eta(campaign: Campaign, counts: Mapping[str, int], now: datetime) -> timedelta | None:
    """How long the rest takes at the pace so far; None while nothing can be said."""
    done, left = counts["succeeded"] + counts["failed"], counts["pending"] + counts["updating"]
    if (
        campaign.status != CampaignStatus.IN_PROGRESS
        or campaign.is_paused
        or not campaign.started_at
        or done < 10
        or not left
    ):
        return None
    return (now - campaign.started_at) * (left / done)


@require_GET
@require("campaigns.view_updatetask")
def task(request: Staff, pk: int) -> HttpResponse:
    """One device in one campaign: where it stands, every attempt, everything that happened."""
    tasks = UpdateTask.objects.of(account_scope(request)).select_related(
        "campaign", "campaign__product", "device", "firmware"
    )
    one = get_object_or_404(tasks, pk=pk)
    now = timezone.now()
    events = list(TaskEvent.objects.filter(task=one).order_by("-id")[:EVENTS_SHOWN])[::-1]
    (row,) = rows(TaskPage([one], None, None), now)
    return page(
        request,
        "task.html",
        one.device.name,
        nav="firmware",
        row=row,
        task=one,
        campaign=one.campaign,
        firmware=one.firmware,
        attempts=history.attempts(events),
        lines=history.lines(events)[::-1],
        live=live_config(f"/ws/campaigns/{one.campaign_id}/", {one.campaign_id: {}}),
        may_act=request.user.has_perm("campaigns.change_campaign"),
        is_updating=one.status in TABS["updating"],
        is_pending=one.status in TABS["pending"],
    )
