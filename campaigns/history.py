"""The history of a task in words: each event one sentence, and each attempt with its time."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from campaigns.models import TaskEvent
from campaigns.states import EventKind, TaskStatus
from campaigns.why import failure_words


@dataclass(frozen=True, slots=True)
class Line:
    """An event to show; `tone` is a status colour of the console (ok, run, wait, bad or none)."""

    at: datetime
    text: str
    tone: str
    attempt: int


@dataclass(slots=True)
class Attempt:
    """One attempt: when it was first pushed, and how it ended ("" while it lasts)."""

    number: int
    at: datetime
    outcome: str = ""


def lines(events: Iterable[TaskEvent]) -> list[Line]:
    return [Line(event.at, describe(event), _tone(event), event.attempt) for event in events]


def attempts(events: Iterable[TaskEvent]) -> list[Attempt]:
    """The attempts that were pushed or fetched, since the last "update again", in their order."""
    found: dict[int, Attempt] = {}
    for event in events:
        if event.kind in (EventKind.PUSHED, EventKind.PULLED):
            found.setdefault(event.attempt, Attempt(event.attempt, event.at))
        elif event.before in (TaskStatus.FAILED, TaskStatus.CANCELED):
            found.clear()
        elif event.attempt in found and (
            event.kind == EventKind.RETRY or event.after in (TaskStatus.SUCCEEDED, TaskStatus.FAILED)
        ):
            found[event.attempt].outcome = describe(event)
    return list(found.values())


def describe(event: TaskEvent) -> str:
    """One sentence in the active language."""
    failure = failure_words(event.reason, event.detail)
    match event.kind:
        case EventKind.PUSHED:
            return _("Pushed to the device.")
        case EventKind.PULLED:
            return _("Fetched by the device itself.")
        case EventKind.ACKNOWLEDGED:
            return _("Taken by the broker.")
        case EventKind.RETRY:
            return _("The attempt failed and will be repeated: %(failure)s") % {"failure": failure}
        case EventKind.FINISHED_LATE:
            return _("Finished late: the device reports version %(version)s.") % {"version": event.version}
        case EventKind.REVERTED:
            return _("The device went back to version %(version)s.") % {"version": event.version}
        case EventKind.STRAY_VERSION:
            return _("The device reported another version: %(version)s.") % {"version": event.version}
        case EventKind.IGNORED:
            return _("A report that came too late was ignored: %(report)s") % {"report": _report(event)}
        case EventKind.STEP:
            return _("The device reported: %(report)s") % {"report": _report(event)}
        case _:
            return _describe_move(event, failure)


def _describe_move(event: TaskEvent, failure: str) -> str:
    match event.after:
        case TaskStatus.QUEUED if event.before in (TaskStatus.FAILED, TaskStatus.CANCELED):
            return _("Started again by an operator.")
        case TaskStatus.QUEUED:
            return _("Back in the queue.") if event.before in _PUSHED else _("In the queue.")
        case TaskStatus.IN_PROGRESS:
            return _("The device began to update: %(report)s") % {"report": _report(event)}
        case TaskStatus.SUCCEEDED:
            return _("Succeeded: the device runs version %(version)s.") % {"version": event.version}
        case TaskStatus.FAILED:
            return _("Failed: %(failure)s") % {"failure": failure}
        case TaskStatus.CANCELED if event.detail:
            return _("Canceled: replaced by batch %(batch)s.") % {"batch": event.detail}
        case TaskStatus.CANCELED:
            return _("Canceled by an operator.")
        case _:
            return str(TaskStatus(event.after).label) if event.after else str(EventKind(event.kind).label)


_PUSHED = (TaskStatus.NOTIFIED, TaskStatus.IN_PROGRESS)


def _report(event: TaskEvent) -> str:
    parts = []
    if event.step is not None:
        parts.append(f"{event.step}%" if event.step >= 0 else str(event.step))
    if event.version:
        parts.append(event.version)
    if event.detail:
        parts.append(f"“{event.detail}”")
    return " ".join(parts)


def _tone(event: TaskEvent) -> str:
    if event.after == TaskStatus.SUCCEEDED or event.kind == EventKind.FINISHED_LATE:
        return "ok"
    if event.after == TaskStatus.FAILED or event.kind in (EventKind.RETRY, EventKind.REVERTED):
        return "bad"
    if event.kind in (EventKind.PUSHED, EventKind.PULLED) or event.after == TaskStatus.IN_PROGRESS:
        return "run"
    return "wait"
