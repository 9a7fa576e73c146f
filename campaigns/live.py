"""Live pages: one small message per campaign that has news. Codes and numbers only; the page has the words.

Best effort: with Redis down no report is held up and no page fails, a reload still shows the truth.
"""

import logging
from collections.abc import Iterable
from typing import Any, TypedDict

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from campaigns.models import Campaign, CampaignCounter, UpdateTask
from campaigns.states import TABS

logger = logging.getLogger(__name__)

# A page shows at most this many rows, so a message never needs to carry more.
MAX_ROWS = 100


class TaskMessage(TypedDict):
    id: int
    status: str
    progress: int
    reason: str
    attempt: int
    changed_at: str


class CampaignMessage(TypedDict):
    """News of one campaign, or the snapshot that a page starts from."""

    campaign: int
    status: str
    is_paused: bool
    counts: dict[str, int]
    tabs: dict[str, int]
    tasks: list[TaskMessage]


def campaign_group(campaign_id: int) -> str:
    return f"campaign.{campaign_id}"


def firmware_group(firmware_id: int) -> str:
    """The group of a firmware's Update Details, which campaigns launched later belong to as well."""
    return f"firmware.{firmware_id}"


def account_group(account_id: int) -> str:
    """The dashboard's group: campaigns with news, without their rows."""
    return f"account.{account_id}"


def tab_counts(counts: dict[str, int]) -> dict[str, int]:
    """{tab of Update Details: tasks} from {status: tasks}."""
    return {tab: sum(counts[status] for status in statuses) for tab, statuses in TABS.items()}


def snapshots(campaigns: list[Campaign], task_ids: Iterable[int] = ()) -> list[CampaignMessage]:
    """The campaigns' counts, and these of their tasks."""
    return _messages(campaigns, {campaigns[0].pk: list(task_ids)}) if campaigns else []


def _messages(campaigns: list[Campaign], wanted: dict[int, list[int]]) -> list[CampaignMessage]:
    totals = CampaignCounter.objects.totals([campaign.pk for campaign in campaigns])
    tasks: dict[int, list[TaskMessage]] = {campaign.pk: [] for campaign in campaigns}
    ids = [task for group in wanted.values() for task in group]
    rows = UpdateTask.objects.filter(id__in=ids, campaign__in=campaigns) if ids else UpdateTask.objects.none()
    for row in rows:
        tasks[row.campaign_id].append(
            {
                "id": row.pk,
                "status": row.status,
                "progress": row.progress,
                "reason": row.reason,
                "attempt": row.attempt,
                "changed_at": row.changed_at.isoformat(),
            }
        )
    return [
        {
            "campaign": campaign.pk,
            "status": campaign.status,
            "is_paused": campaign.is_paused,
            "counts": totals[campaign.pk],
            "tabs": tab_counts(totals[campaign.pk]),
            "tasks": tasks[campaign.pk],
        }
        for campaign in campaigns
    ]


def changed(campaign_ids: Iterable[int], *, device_ids: Iterable[int] = ()) -> None:
    """Tell open pages that these campaigns have news, with these devices' rows. Call it after the commit."""
    ids = sorted(set(campaign_ids))
    if not ids:
        return
    campaigns = list(Campaign.objects.filter(pk__in=ids))
    wanted: dict[int, list[int]] = {pk: [] for pk in ids}
    devices = list(device_ids)[: MAX_ROWS * 5]
    rows = UpdateTask.objects.filter(campaign__in=ids, device__in=devices).order_by("-id")
    for pk, task in rows.values_list("campaign_id", "id")[: MAX_ROWS * 5]:
        if len(wanted[pk]) < MAX_ROWS:
            wanted[pk].append(task)
    messages = _messages(campaigns, wanted)
    try:
        async_to_sync(_send)({campaign.pk: campaign for campaign in campaigns}, messages)
    except Exception:
        # Whatever the channel layer's state, the reports behind this news are safely stored.
        logger.warning("live message not sent", exc_info=True)


async def _send(campaigns: dict[int, Campaign], messages: list[CampaignMessage]) -> None:
    layer: Any = get_channel_layer()
    if layer is None:
        return
    for message in messages:
        campaign = campaigns[message["campaign"]]
        for group in (campaign_group(campaign.pk), firmware_group(campaign.firmware_id)):
            await layer.group_send(group, {"type": "news", "message": message})
        await layer.group_send(
            account_group(campaign.account_id), {"type": "news", "message": {**message, "tasks": []}}
        )
