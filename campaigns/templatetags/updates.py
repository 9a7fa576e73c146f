"""Template tags of the campaign pages, and the update blocks of the dashboard and of a device's page."""

from typing import Any

from django import template
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from campaigns import forms, overview
from campaigns.models import Campaign, UpdateTask
from campaigns.states import CampaignStatus, Policy, Reason, Region, TaskStatus
from campaigns.views.common import live_config
from campaigns.why import failure_words, why_device, words
from devices.models import Device

register = template.Library()

TASKS_OF_DEVICE = 20
_TONES: dict[str, str] = {
    TaskStatus.SUCCEEDED: "ok",
    TaskStatus.FAILED: "bad",
    TaskStatus.NOTIFIED: "run",
    TaskStatus.IN_PROGRESS: "run",
    CampaignStatus.COMPLETED: "ok",
    CampaignStatus.IN_PROGRESS: "run",
}


@register.filter
def number(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


@register.filter
def tone(status: str) -> str:
    """The colour class of a task's or a campaign's status."""
    return _TONES.get(status, "wait")


@register.filter
def stamp(moment: Any) -> SafeString:
    """A time to the second in the reader's zone; without the day if it is today."""
    local = timezone.localtime(moment)
    today = local.date() == timezone.localdate()
    text = f"{local:%H:%M:%S}" if today else f"{local:%Y-%m-%d %H:%M:%S}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), f"{local:%Y-%m-%d %H:%M:%S}", text
    )


@register.filter
def span(duration: Any) -> str:
    """A duration in words."""
    return str(words(duration))


@register.filter
def kind(campaign: Campaign) -> str:
    return forms.kind_label(campaign)


@register.filter
def retries(campaign: Any) -> str:
    """The retry setting of a campaign or of a plan."""
    return forms.retry_label(campaign)


@register.filter
def failure(task: UpdateTask) -> str:
    """Why a task failed, with the device's own words."""
    return failure_words(task.reason, task.detail)


@register.filter
def reason_words(code: str) -> str:
    return str(Reason(code).label)


@register.filter
def policy_words(code: str) -> str:
    return str(Policy(code).label)


@register.filter
def region_words(code: str) -> str:
    return str(Region(code).label)


@register.filter
def open_tasks(counts: dict[str, int]) -> int:
    return counts["pending"] + counts["updating"]


@register.filter
def share(part: int, counts: dict[str, int]) -> str:
    """A part of all tasks, in percent."""
    total = sum(counts.values())
    return f"{100 * part / total:.2f}" if total else "0"


@register.filter
def success_rate(counts: dict[str, int]) -> str:
    """Succeeded of those that are over, in percent; empty while none is."""
    done = counts["succeeded"] + counts["failed"]
    return f"{100 * counts['succeeded'] / done:.1f}" if done else ""


@register.filter
def in_words(counts: dict[str, int]) -> str:
    """What a stacked bar shows, for those who do not see it."""
    return (
        _("%(succeeded)s successful, %(updating)s updating, %(pending)s pending, %(failed)s failed") % counts
    )


@register.simple_tag(takes_context=True)
def updates_overview(context: dict[str, Any]) -> dict[str, Any] | None:
    """The dashboard's figures for the account that is looked at; None for somebody who may not see them."""
    request: HttpRequest = context["request"]
    if not request.user.has_perm("campaigns.view_campaign"):
        return None
    found = overview.overview(context.get("account"))
    live = live_config("/ws/updates/", found.tabs, watched=["succeeded", "failed"])
    return {"figures": found, "live": live}


@register.inclusion_tag("campaigns/device_tasks.html")
def device_updates(device: Device) -> dict[str, Any]:
    """Why a device is updating now or not, and its update history, newest first."""
    tasks = UpdateTask.objects.filter(device=device).select_related("campaign", "firmware").order_by("-id")
    return {"tasks": tasks[:TASKS_OF_DEVICE], "why": why_device(device)}
