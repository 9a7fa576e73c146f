"""All update batches of the account, newest first."""

from django.http import HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from campaigns import live
from campaigns.models import Campaign, CampaignCounter
from campaigns.states import CampaignKind, CampaignStatus
from campaigns.views.common import live_config, page
from otaplatform.accounts.paging import keyset
from otaplatform.accounts.scope import Staff, account_scope, require


@require_GET
@require("campaigns.view_campaign")
def batches(request: Staff) -> HttpResponse:
    """Update batches: kind, firmware, when, state and how far."""
    found = Campaign.objects.of(account_scope(request)).select_related("firmware", "product")
    kind, status = request.GET.get("kind", ""), request.GET.get("status", "")
    if kind in CampaignKind.values:
        found = found.filter(kind=kind)
    if status in CampaignStatus.values:
        found = found.filter(status=status)
    paging = keyset(request, found)
    totals = CampaignCounter.objects.totals([each.pk for each in paging.rows])
    tabs = {pk: live.tab_counts(counts) for pk, counts in totals.items()}
    return page(
        request,
        "batches.html",
        _("Update batches"),
        nav="batches",
        rows=[(each, tabs[each.pk]) for each in paging.rows],
        live=live_config("/ws/updates/", tabs),
        paging=paging,
        kinds=CampaignKind.choices,
        statuses=CampaignStatus.choices,
        kind=kind,
        chosen_status=status,
        is_filtered=bool(kind or status),
    )
