"""Why a device is not updated yet: one sentence for every unfinished task, from the first gate that says no.

The sentences are put together when they are shown, in the reader's language and time zone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from campaigns.dispatch import is_offered
from campaigns.life import MAX_RETURNS
from campaigns.models import UpdateTask
from campaigns.states import ACTIVE, FINAL, OPEN, CampaignStatus, Reason, TaskStatus
from devices import versions
from devices.models import ASKING, Channel, Device, DevicePresence
from firmware.links import names_port

# A device that can use the address of its file begins within this time.
SOON_DOWNLOADED = timedelta(minutes=1)

SENTENCES: dict[str, Any] = {
    "disabled": gettext_lazy("The device is disabled, so it cannot connect."),
    "confirmation": gettext_lazy("Waiting for confirmation."),
    "canceling": gettext_lazy("Being canceled."),
    "scheduled": gettext_lazy("Scheduled for %(time)s."),
    "starting": gettext_lazy("The scheduled time has come; the update is about to start."),
    "retry": gettext_lazy("Attempt %(attempt)s of %(attempts)s is due at %(time)s."),
    "paused": gettext_lazy("The batch is paused."),
    "pull": gettext_lazy(
        "The device asks for its updates itself (%(channel)s): it gets this one with its next version report."
    ),
    "pull_only": gettext_lazy(
        "The device asks for its updates itself (%(channel)s) and was offline when this one became due: "
        "it gets it only when it asks for an update."
    ),
    "offline": gettext_lazy("Waiting for the device to come online since %(time)s."),
    "reserved": gettext_lazy(
        "An earlier update of the device was canceled or timed out: waiting for its next report, "
        "or until %(time)s."
    ),
    "rolled_back": gettext_lazy("The device came back on its old version again and again."),
    "returned": gettext_lazy(
        "The device came back without the new version (%(returns)s of %(max_returns)s): "
        "pushed again in %(left)s unless it reports it."
    ),
    "back": gettext_lazy(
        "The device is back in the middle of the update: pushed again in %(left)s unless it goes on or "
        "reports the new version."
    ),
    "settling": gettext_lazy(
        "The device has just reported version %(version)s: waiting %(left)s for the version to settle."
    ),
    "soon": gettext_lazy("To be pushed in %(left)s."),
    "rate": gettext_lazy("Held by the limit of %(limit)s a minute."),
    "ready": gettext_lazy("About to be pushed."),
    "stray": gettext_lazy(
        "The device reported version %(version)s, which is neither the old nor the new one: "
        "judged in %(left)s."
    ),
    "unacknowledged": gettext_lazy("Pushed %(ago)s ago, not yet taken by the broker."),
    "unanswered": gettext_lazy("Pushed %(ago)s ago, no answer yet; times out in %(left)s."),
    "unanswered_port": gettext_lazy(
        "Pushed %(ago)s ago, and nothing was downloaded: the address of the file names a port, which devices "
        "with a C SDK cannot use. Let the platform listen on port 80, or set OTA_PUBLIC_URL without a port."
    ),
    "unanswered_forever": gettext_lazy("Pushed %(ago)s ago, no answer yet; there is no time-out."),
    "restarting_offline": gettext_lazy("Went offline at %(progress)s%% at %(time)s; it may be restarting."),
    "restart": gettext_lazy("Written; waiting for the restart and the report of the new version."),
    "downloading": gettext_lazy("Downloading, reported %(ago)s ago."),
    # Of a device as a whole:
    "idle": gettext_lazy("No update is planned for this device."),
    "never_connected": gettext_lazy(
        "The device has never connected. It is not updated before it is activated."
    ),
    "succeeded": gettext_lazy("The last update, to %(version)s, succeeded at %(time)s."),
    "failed": gettext_lazy("The last update, to %(version)s, failed at %(time)s: %(reason)s"),
    "canceled": gettext_lazy("The last update, to %(version)s, was canceled at %(time)s."),
}


@dataclass(frozen=True, slots=True)
class Why:
    """`code` names the gate; `str()` is the sentence in the language and zone active then.

    Times and durations among the parameters are put into words at that moment; `failure` is what ended the
    attempt before this one, as (reason code, the device's words).
    """

    code: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attempt: tuple[int, int] = (1, 1)
    failure: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        sentence = str(SENTENCES[self.code]) % {key: words(value) for key, value in self.parameters.items()}
        attempt, attempts = self.attempt
        if attempt == 1:
            return sentence
        return _("%(sentence)s Attempt %(attempt)s of %(attempts)s; the last one failed: %(failure)s") % {
            "sentence": sentence,
            "attempt": attempt,
            "attempts": attempts,
            "failure": failure_words(*self.failure),
        }


def failure_words(reason: str, detail: str) -> str:
    """A failure in words, with the device's own beside them."""
    text = str(Reason(reason).label) if reason in Reason.values else reason
    return _("%(reason)s “%(detail)s”") % {"reason": text, "detail": detail} if detail else text


def words(value: Any) -> Any:
    """A time in the active zone (without the day if it is today), or a duration rounded to one unit."""
    if isinstance(value, datetime):
        local = timezone.localtime(value)
        today = local.date() == timezone.localdate()
        return date_format(local, "H:i" if today else "Y-m-d H:i")
    if isinstance(value, timedelta):
        return duration(value)
    return str(value) if isinstance(value, Promise) else value


def duration(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return ngettext("%(n)s second", "%(n)s seconds", seconds) % {"n": seconds}
    minutes = seconds // 60
    if minutes < 120:
        return ngettext("%(n)s minute", "%(n)s minutes", minutes) % {"n": minutes}
    if minutes < 48 * 60:
        return ngettext("%(n)s hour", "%(n)s hours", minutes // 60) % {"n": minutes // 60}
    return ngettext("%(n)s day", "%(n)s days", minutes // 1440) % {"n": minutes // 1440}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the sentences of a page of tasks need besides the tasks: three queries for any number of them."""

    presences: dict[int, DevicePresence]
    online: set[int]
    running: dict[versions.Key, versions.Running]

    @classmethod
    def of(cls, tasks: Sequence[UpdateTask], now: datetime) -> "Surroundings":
        devices = sorted({task.device_id for task in tasks})
        return cls(
            presences=DevicePresence.objects.in_bulk(devices),
            online=set(
                DevicePresence.objects.online(now).filter(pk__in=devices).values_list("pk", flat=True)
            ),
            running=versions.running(devices),
        )

    def version_of(self, task: UpdateTask) -> str:
        """What its device runs, as it last said; empty if it never did."""
        runs = self.running.get((task.device_id, task.module))
        return runs.version if runs else ""


def why(task: UpdateTask, around: Surroundings, now: datetime) -> Why | None:
    """The gate that holds a task, or None for one that is over. `task.campaign` and `.device` are read."""
    if task.status in FINAL:
        return None
    gate, parameters = _gate(task, around, now)
    attempts = (task.attempt, task.campaign.max_attempts)
    if gate == "retry":
        parameters |= {"attempt": attempts[0], "attempts": attempts[1]}
        attempts = (1, attempts[1])
    return Why(gate, parameters, attempts, (task.reason, task.detail))


Gate = tuple[str, dict[str, Any]]


def _gate(task: UpdateTask, around: Surroundings, now: datetime) -> Gate:
    if task.status in task.campaign.canceling:
        return "canceling", {}
    match task.status:
        case TaskStatus.CONFIRM:
            return "confirmation", {}
        case TaskStatus.SCHEDULED:
            time = task.campaign.schedule_at or task.due_at
            return ("scheduled", {"time": time}) if time and time > now else ("starting", {})
        case TaskStatus.QUEUED:
            return _gate_of_queued(task, around, now)
        case _:
            return _gate_of_updating(task, around, now)


def _gate_of_queued(task: UpdateTask, around: Surroundings, now: datetime) -> Gate:
    campaign, presence = task.campaign, around.presences.get(task.device_id)
    if task.due_at and task.due_at > now:
        return ("retry" if task.attempt > 1 else "scheduled"), {"time": task.due_at}
    if campaign.is_paused:
        return "paused", {}
    if task.device.is_disabled:
        return "disabled", {}
    asks = presence is not None and presence.channel in ASKING
    if asks and presence and not is_offered(task.due_at, task.pushed_at, presence):
        return "pull_only", {"channel": Channel(presence.channel).label}
    if task.device_id not in around.online:
        times = [task.due_at or task.created_at]
        if presence and presence.changed_at:
            times.append(presence.changed_at)
        return "offline", {"time": max(times)}
    if presence and presence.reserved_until and presence.reserved_until > now:
        return "reserved", {"time": presence.reserved_until}
    if task.returns > MAX_RETURNS:
        return "rolled_back", {}
    if (settling := _settling(task, around, now)) is not None:
        return settling
    if asks and presence:
        return "pull", {"channel": Channel(presence.channel).label}
    if task.ready_at and task.ready_at > now:
        left = {"left": task.ready_at - now}
        if task.returns:
            return "returned", left | {"returns": task.returns, "max_returns": MAX_RETURNS}
        return ("soon" if task.pushed_at is None else "back"), left
    minute = now.replace(second=0, microsecond=0)
    limit = campaign.max_per_minute
    if limit is not None and campaign.rate_minute == minute and campaign.rate_used >= limit:
        return "rate", {"limit": f"{limit:,}"}
    return "ready", {}


def _settling(task: UpdateTask, around: Surroundings, now: datetime) -> Gate | None:
    """A version that must stand for a while before it decides anything."""
    if task.stray_until and task.pushed_at:
        return "stray", {"version": around.version_of(task), "left": task.stray_until - now}
    runs = around.running.get((task.device_id, task.module))
    decides = task.campaign.source_versions or (runs and runs.version == task.to_version)
    if runs and decides and not runs.is_settled(now):
        return "settling", {"version": runs.version, "left": runs.changed_at + versions.SETTLE - now}
    return None


def _gate_of_updating(task: UpdateTask, around: Surroundings, now: datetime) -> Gate:
    if task.stray_until:
        return "stray", {"version": around.version_of(task), "left": task.stray_until - now}
    if task.ready_at and task.status == TaskStatus.IN_PROGRESS:
        return "back", {"left": task.ready_at - now}
    active_at = task.active_at or task.pushed_at or task.changed_at
    pushed_at = task.pushed_at or active_at
    if task.status == TaskStatus.NOTIFIED:
        if task.acknowledged_at is None:
            return "unacknowledged", {"ago": now - pushed_at}
        if names_port() and not task.downloads and now >= pushed_at + SOON_DOWNLOADED:
            return "unanswered_port", {"ago": now - pushed_at}
        if task.campaign.timeout_minutes is None:
            return "unanswered_forever", {"ago": now - pushed_at}
        left = active_at + timedelta(minutes=task.campaign.timeout_minutes) - now
        return "unanswered", {"ago": now - pushed_at, "left": left}
    presence = around.presences.get(task.device_id)
    if task.device_id not in around.online and presence and presence.changed_at:
        return "restarting_offline", {"progress": task.progress, "time": presence.changed_at}
    if task.progress >= 100:
        return "restart", {}
    return "downloading", {"ago": now - active_at}


def pending_label(task: UpdateTask, around: Surroundings, now: datetime) -> str:
    """The status of a task in the words of Update Details; the time of a scheduled one in the active zone."""
    due = task.due_at
    if task.status == TaskStatus.SCHEDULED:
        due = task.campaign.schedule_at or due
    elif task.status != TaskStatus.QUEUED:
        return str(TaskStatus(task.status).label)
    if due and (due > now or task.status == TaskStatus.SCHEDULED):
        time = f"{timezone.localtime(due):%Y-%m-%d %H:%M:%S}"
        return _("Pending (Scheduled time: %(time)s)") % {"time": time}
    if task.device_id not in around.online:
        return _("Pending (Device offline)")
    return _("Pending (Queued)")


def why_device(device: Device, now: datetime | None = None) -> Why:
    """Why a device is or is not updating now: its open task's gate, or what became of its last update."""
    now = now or timezone.now()
    tasks = UpdateTask.objects.filter(device=device).select_related("campaign", "device")
    # An active task first; one that is only scheduled waits behind it.
    active = tasks.filter(status__in=ACTIVE).first() or tasks.filter(status__in=OPEN).order_by("id").first()
    if active:
        reason = why(active, Surroundings.of([active], now), now)
        assert reason is not None, "an open task has a gate"
        return reason
    if device.is_disabled:
        return Why("disabled")
    if device.activated_at is None:
        return Why("never_connected")
    last = tasks.order_by("-id").first()
    if last is None or last.campaign.status == CampaignStatus.PLANNED:
        return Why("idle")
    return Why(
        last.status.lower(),
        {
            "version": last.to_version,
            "time": last.changed_at,
            "reason": Reason(last.reason).label if last.reason else "",
        },
    )
