"""From what happened to deliveries: a tick walks the task events by id and the campaigns by time.

No hot path knows of webhooks. An event that is looked at twice makes one delivery (unique key).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Max, Q
from django.utils import timezone

from campaigns.models import Campaign, CampaignCounter, TaskEvent
from campaigns.states import CampaignStatus, TaskStatus
from otaplatform.api.models import Webhook, WebhookCursor, WebhookDelivery, WebhookEvent

CHUNK = 1000
# A campaign's change is committed at most this long after the time that it carries.
OVERLAP = timedelta(minutes=10)
_OF_TASK = {
    TaskStatus.SUCCEEDED.value: WebhookEvent.TASK_SUCCEEDED,
    TaskStatus.FAILED.value: WebhookEvent.TASK_FAILED,
}
_OF_CAMPAIGN = {
    CampaignStatus.COMPLETED.value: WebhookEvent.CAMPAIGN_COMPLETED,
    CampaignStatus.CANCELED.value: WebhookEvent.CAMPAIGN_CANCELED,
}


def collect(now: datetime | None = None) -> int:
    """Queue deliveries for what happened since the last look; how many events were looked at."""
    now = now or timezone.now()
    last = TaskEvent.objects.aggregate(last=Max("id"))["last"] or 0
    with transaction.atomic():
        WebhookCursor.objects.get_or_create(pk=1)
        cursor = WebhookCursor.objects.select_for_update().get(pk=1)
        webhooks = list(Webhook.objects.filter(is_enabled=True))
        complete = _complete(cursor, last)
        seen = 0
        if any(event in webhook.events for webhook in webhooks for event in _OF_TASK.values()):
            seen += _task_events(cursor, complete, webhooks, now)
        else:
            cursor.task_event = max(cursor.task_event, complete)
        if webhooks:
            seen += _campaign_events(cursor.campaigns_at - OVERLAP, webhooks, now)
        cursor.campaigns_at = now
        cursor.save()
    return seen


def _complete(cursor: WebhookCursor, last: int) -> int:
    """The id up to which no event can be missing any more, of those up to `last`.

    SQLite has one writer, so ids are committed in order. On PostgreSQL an id may be given out before and
    committed after a higher one. `last` was read before our transaction got its id, so whoever holds a lower
    event id has a lower transaction id: once all of those have ended, events up to `last` are complete. If
    they have not, the pair is kept in the cursor for a later look.
    """
    if connection.vendor != "postgresql":
        return last
    with connection.cursor() as sql:
        sql.execute("SELECT pg_current_xact_id()::text::bigint")
        (ours,) = sql.fetchone()
        sql.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        (oldest,) = sql.fetchone()
    if oldest >= ours:
        return last
    complete = cursor.settled if oldest >= cursor.horizon else 0
    if cursor.settled <= max(complete, cursor.task_event):
        cursor.settled, cursor.horizon = last, ours
    return complete


def _task_events(cursor: WebhookCursor, complete: int, webhooks: list[Webhook], now: datetime) -> int:
    accounts = {webhook.account_id for webhook in webhooks}
    ended = TaskEvent.objects.filter(id__gt=cursor.task_event, id__lte=complete, after__in=list(_OF_TASK))
    events = list(
        ended.filter(task__campaign__account__in=accounts)
        .select_related("task__campaign__product", "task__device")
        .order_by("id")[:CHUNK]
    )
    _queue(
        webhooks,
        (
            (
                event.task.campaign.account_id,
                _OF_TASK[event.after],
                f"{_OF_TASK[event.after]}:{event.pk}",
                event.at,
                _of_task(event),
            )
            for event in events
        ),
        now,
    )
    cursor.task_event = events[-1].pk if len(events) == CHUNK else max(cursor.task_event, complete)
    return len(events)


def _of_task(event: TaskEvent) -> dict[str, Any]:
    task = event.task
    return {
        "task": task.pk,
        "campaign": task.campaign_id,
        "firmware": task.firmware_id,
        "product_key": task.campaign.product.product_key,
        "device_name": task.device.name,
        "status": event.after.lower(),
        "reason": event.reason,
        "detail": event.detail,
        "attempt": event.attempt,
        "from_version": task.from_version,
        "to_version": task.to_version,
    }


def _campaign_events(since: datetime, webhooks: list[Webhook], now: datetime) -> int:
    accounts = {webhook.account_id for webhook in webhooks}
    rows = Campaign.objects.filter(Q(created_at__gt=since) | Q(finished_at__gt=since), account__in=accounts)
    campaigns = list(rows.select_related("product", "firmware"))
    totals = CampaignCounter.objects.totals([campaign.pk for campaign in campaigns]) if campaigns else {}
    found: list[tuple[int, WebhookEvent, str, datetime, dict[str, Any]]] = []
    for campaign in campaigns:
        data = _of_campaign(campaign, totals[campaign.pk])
        launched = WebhookEvent.CAMPAIGN_LAUNCHED
        found.append((campaign.account_id, launched, f"{launched}:{campaign.pk}", campaign.created_at, data))
        ended = _OF_CAMPAIGN.get(campaign.status)
        if ended and campaign.finished_at:
            # A campaign that ran again ends again.
            key = f"{ended}:{campaign.pk}:{campaign.finished_at.timestamp():.6f}"
            found.append((campaign.account_id, ended, key, campaign.finished_at, data))
    _queue(webhooks, found, now)
    return len(found)


def _of_campaign(campaign: Campaign, totals: dict[str, int]) -> dict[str, Any]:
    return {
        "campaign": campaign.pk,
        "kind": campaign.kind,
        "status": campaign.status,
        "firmware": campaign.firmware_id,
        "version": campaign.firmware.version,
        "product_key": campaign.product.product_key,
        "counts": {status.lower(): count for status, count in totals.items()},
    }


def _queue(
    webhooks: list[Webhook],
    events: Iterable[tuple[int, WebhookEvent, str, datetime, dict[str, Any]]],
    now: datetime,
) -> None:
    rows = [
        WebhookDelivery(
            webhook=webhook,
            key=key,
            event=event,
            payload={"id": key, "event": event.value, "at": at.isoformat(), "data": data},
            due_at=now,
            created_at=now,
        )
        for account, event, key, at, data in events
        for webhook in webhooks
        if webhook.account_id == account and event in webhook.events and at >= webhook.created_at
    ]
    WebhookDelivery.objects.bulk_create(rows, batch_size=CHUNK, ignore_conflicts=True)
