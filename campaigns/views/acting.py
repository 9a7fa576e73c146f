"""What an operator does on Update Details: update again, cancel, pause, resume, stop matching."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import BadRequest, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from campaigns import services
from campaigns.models import Campaign, CampaignCounter, UpdateTask
from campaigns.states import TABS, UPDATING, WAITING, CampaignStatus, Reason
from campaigns.views.common import page, sentences, the_campaign, the_firmware, whole_numbers
from campaigns.views.details import CAMPAIGNS_SHOWN
from otaplatform.accounts.scope import Staff, require

# A page shows fewer rows than this, so no honest selection is larger.
MAX_SELECTED = 1000


@require_POST
@require("campaigns.change_campaign")
def on_firmware(request: Staff, pk: int) -> HttpResponse:
    """An action over the campaigns of a firmware, or over the one that the page is filtered by."""
    firmware = the_firmware(request, pk)
    campaigns = Campaign.objects.filter(firmware=firmware).order_by("-id")
    if only := whole_numbers(request.POST.getlist("campaign")):
        campaigns = campaigns.filter(pk__in=only)
        if not campaigns.exists():
            raise Http404
    url = reverse("campaigns:firmware-details", args=[firmware.pk])
    return _act(request, list(campaigns[:CAMPAIGNS_SHOWN]), url)


@require_POST
@require("campaigns.change_campaign")
def on_campaign(request: Staff, pk: int) -> HttpResponse:
    """An action on one campaign."""
    campaign = the_campaign(request, pk)
    return _act(request, [campaign], reverse("campaigns:detail", args=[campaign.pk]))


def _act(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse:
    name = request.POST.get("action", "")
    action = _ACTIONS.get(name)
    if name in _OF_ONE_CAMPAIGN and len(campaigns) != 1:
        raise BadRequest
    answer: HttpResponse | None = None
    if action is None:
        messages.error(request, _("Choose what to do."))
    else:
        try:
            answer = action(request, campaigns, url)
        except ValidationError as error:
            messages.error(request, sentences(error))
    return answer or HttpResponseRedirect(_back(request, url))


def _back(request: HttpRequest, url: str) -> str:
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        return target
    tab = request.POST.get("tab", "")
    return f"{url}?tab={tab}" if tab in TABS else url


def _selected(request: HttpRequest, campaigns: list[Campaign]) -> dict[Campaign, list[tuple[int, str]]]:
    """The chosen tasks of these campaigns: {campaign: [(id, status)]}."""
    ids = whole_numbers(request.POST.getlist("task"))[:MAX_SELECTED]
    by_id = {each.pk: each for each in campaigns}
    found: dict[Campaign, list[tuple[int, str]]] = defaultdict(list)
    rows = UpdateTask.objects.filter(campaign__in=campaigns, id__in=ids)
    for campaign, pk, status in rows.values_list("campaign_id", "id", "status"):
        found[by_id[campaign]].append((pk, status))
    return found


def _unfinished(campaigns: list[Campaign]) -> list[Campaign]:
    return [each for each in campaigns if each.status in (CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS)]


def _nothing_selected(request: HttpRequest) -> None:
    messages.warning(request, _("Select devices in the table first."))


def _cancel(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse | None:
    """Cancel the selected tasks; a warning first if devices are updating already."""
    chosen = _selected(request, campaigns)
    if not chosen:
        _nothing_selected(request)
        return None
    updating = sum(status in UPDATING for rows in chosen.values() for _pk, status in rows)
    if updating and "confirmed" not in request.POST:
        ids = [pk for rows in chosen.values() for pk, _status in rows]
        return _warn(request, campaigns, url, updating, [("task", pk) for pk in ids])
    count = sum(
        services.cancel_tasks(campaign, [pk for pk, _status in rows], actor=request.user)
        for campaign, rows in chosen.items()
    )
    _say_canceled(request, count)
    return None


def _cancel_tab(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse | None:
    """Cancel everything of the tab: what waits at once, what is updating after a warning."""
    statuses = UPDATING if request.POST.get("tab") == "updating" else WAITING
    totals = CampaignCounter.objects.totals([each.pk for each in campaigns])
    count = sum(totals[each.pk][status] for each in campaigns for status in statuses)
    if statuses == UPDATING and count and "confirmed" not in request.POST:
        return _warn(request, campaigns, url, count, [])
    for campaign in _unfinished(campaigns):
        if any(totals[campaign.pk][status] for status in statuses):
            services.cancel_campaign(campaign, statuses=statuses, actor=request.user)
    _say_canceled(request, count)
    return None


def _say_canceled(request: HttpRequest, count: int) -> None:
    text = ngettext(
        "The update of %(n)s device was canceled.", "The updates of %(n)s devices were canceled.", count
    )
    messages.success(request, text % {"n": f"{count:,}"})


def _cancel_batch(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse | None:
    (campaign,) = campaigns
    if "confirmed" not in request.POST:
        totals = CampaignCounter.objects.totals([campaign.pk])[campaign.pk]
        return _warn(request, campaigns, url, sum(totals[status] for status in UPDATING), [], whole=True)
    services.cancel_campaign(campaign, actor=request.user)
    messages.success(request, _("The batch was canceled."))
    return None


def _warn(
    request: Staff,
    campaigns: list[Campaign],
    url: str,
    updating: int,
    hidden: list[tuple[str, Any]],
    *,
    whole: bool = False,
) -> HttpResponse:
    """Ask before devices are canceled that may still finish."""
    names = ("action", "tab", "next", "campaign")
    kept = [(name, value) for name in names for value in request.POST.getlist(name)]
    return page(
        request,
        "confirm_cancel.html",
        _("Cancel the batch") if whole else _("Cancel updates"),
        nav="firmware",
        firmware=campaigns[0].firmware,
        campaign=campaigns[0] if len(campaigns) == 1 else None,
        updating=updating,
        whole=whole,
        hidden=[*kept, *hidden],
        back=_back(request, url),
    )


def _again(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse | None:
    """Start the selected failed or canceled tasks over."""
    chosen = _selected(request, campaigns)
    if not chosen:
        _nothing_selected(request)
        return None
    started = sum(
        services.update_again(campaign, task_ids=[pk for pk, _status in rows], actor=request.user)
        for campaign, rows in chosen.items()
    )
    _say_started(request, started, sum(map(len, chosen.values())))
    return None


def _again_tab(request: Staff, campaigns: list[Campaign], url: str) -> HttpResponse | None:
    """Start all failed tasks over, or those of one reason."""
    reason = request.POST.get("reason", "")
    totals = CampaignCounter.objects.totals([each.pk for each in campaigns])
    started = sum(
        services.update_again(
            campaign, reason=reason if reason in Reason.values else None, actor=request.user
        )
        for campaign in campaigns
        if totals[campaign.pk]["FAILED"]
    )
    _say_started(request, started, started)
    return None


def _say_started(request: HttpRequest, started: int, asked: int) -> None:
    if started:
        text = ngettext(
            "The update of %(n)s device was started again.",
            "The updates of %(n)s devices were started again.",
            started,
        )
        messages.success(request, text % {"n": f"{started:,}"})
    if asked > started or not started:
        messages.warning(
            request, _("Devices that have another update task in progress were left as they are.")
        )


def _pause(request: Staff, campaigns: list[Campaign], url: str) -> None:
    (campaign,) = campaigns
    services.pause(campaign, actor=request.user)
    messages.success(request, _("The batch is paused: nothing more is pushed until it is resumed."))


def _resume(request: Staff, campaigns: list[Campaign], url: str) -> None:
    (campaign,) = campaigns
    services.resume(campaign, actor=request.user)
    messages.success(request, _("The batch goes on."))


def _stop_matching(request: Staff, campaigns: list[Campaign], url: str) -> None:
    (campaign,) = campaigns
    services.stop_matching(campaign, actor=request.user)
    messages.success(request, _("The batch takes in no further devices."))


# What no page offers for several campaigns at once.
_OF_ONE_CAMPAIGN = frozenset({"cancel_batch", "pause", "resume", "stop_matching"})
_ACTIONS: dict[str, Callable[[Staff, list[Campaign], str], HttpResponse | None]] = {
    "cancel": _cancel,
    "cancel_tab": _cancel_tab,
    "cancel_batch": _cancel_batch,
    "again": _again,
    "again_tab": _again_tab,
    "pause": _pause,
    "resume": _resume,
    "stop_matching": _stop_matching,
}
