"""What the dashboard says of updates: from stored counters, and bounded reads."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from campaigns import live
from campaigns.models import Campaign, CampaignCounter, UpdateTask
from campaigns.states import CampaignStatus, TaskStatus
from otaplatform.accounts.models import Account

DAYS = 7
RUNNING_SHOWN = 8
CAMPAIGNS_READ = 500
# Failures are told apart by reason over at most this many of the latest.
FAILURES_READ = 5000


@dataclass(frozen=True, slots=True)
class Overview:
    running: list[tuple[Campaign, dict[str, int]]]
    # Of the campaigns launched in the last DAYS days: {tab: tasks}.
    week: dict[str, int]
    # (reason code, tasks, percent of the most frequent), the most frequent first.
    failures: list[tuple[str, int, int]]

    @property
    def ended(self) -> dict[str, int]:
        """The week's tasks that succeeded or failed: what the success rate is the share of."""
        return {tab: self.week[tab] if tab in ("succeeded", "failed") else 0 for tab in self.week}

    @property
    def tabs(self) -> dict[int, dict[str, int]]:
        return {campaign.pk: counts for campaign, counts in self.running}


def overview(account: Account | None, now: datetime | None = None) -> Overview:
    """Running updates, and how the last seven days went; five queries at most."""
    now = now or timezone.now()
    campaigns = Campaign.objects.of(account)
    running = list(
        campaigns.filter(status__in=[CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS])
        .select_related("firmware", "product")
        .order_by("-id")[:RUNNING_SHOWN]
    )
    recent = list(
        campaigns.filter(created_at__gte=now - timedelta(days=DAYS))
        .order_by("-id")
        .values_list("pk", flat=True)[:CAMPAIGNS_READ]
    )
    totals = CampaignCounter.objects.totals(sorted({*recent, *(each.pk for each in running)}))
    week = live.tab_counts({status: sum(totals[pk][status] for pk in recent) for status in TaskStatus.values})
    return Overview(
        running=[(each, live.tab_counts(totals[each.pk])) for each in running],
        week=week,
        failures=_failures([pk for pk in recent if totals[pk][TaskStatus.FAILED]]),
    )


def _failures(campaigns: list[int]) -> list[tuple[str, int, int]]:
    if not campaigns:
        return []
    failed = UpdateTask.objects.filter(campaign__in=campaigns, status=TaskStatus.FAILED)
    reasons = Counter(failed.values_list("reason", flat=True)[:FAILURES_READ])
    found = reasons.most_common()
    return [(reason, count, 100 * count // found[0][1]) for reason, count in found]
