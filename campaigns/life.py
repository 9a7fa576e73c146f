"""The life of one task, as pure functions: what a report, a silence or an operator makes of it.

Nothing here reads a clock or a database. Each function changes a `State` in memory and notes events;
`campaigns.moves` then writes a whole batch of states with one conditional statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from campaigns.states import (
    ACTIVE,
    RETRYABLE,
    STEP_REASONS,
    UPDATING,
    EventKind,
    Reason,
    TaskStatus,
    check_move,
)

# A device that comes back after a push is given this long to say what it runs.
INFORM_GRACE = timedelta(seconds=10)
# No second push of the same attempt to a device within this time.
PUSH_SPACING = timedelta(seconds=30)
# A version that is neither source nor target must still stand after this time (iotkit informs one first).
STRAY_GRACE = timedelta(seconds=30)
# An unacknowledged push older than this is made again.
ACKNOWLEDGE_WITHIN = timedelta(seconds=30)
# A device whose pushed task was canceled or timed out may still be busy with it.
RESERVE = timedelta(minutes=30)
# Returns on the source version that are answered with another push, per attempt.
MAX_RETURNS = 3


@dataclass(slots=True)
class Event:
    """A row of the task's history, before it has one."""

    kind: EventKind
    at: datetime
    before: str = ""
    after: str = ""
    attempt: int = 1
    step: int | None = None
    reason: str = ""
    version: str = ""
    detail: str = ""


@dataclass(slots=True)
class State:
    """A task as read, with what its campaign says of it; the functions below change it in place."""

    id: int
    campaign_id: int
    device_id: int
    module: str
    status: str
    attempt: int
    progress: int
    reason: str
    detail: str
    from_version: str
    to_version: str
    returns: int
    due_at: datetime | None
    ready_at: datetime | None
    pushed_at: datetime | None
    acknowledged_at: datetime | None
    stray_until: datetime | None
    active_at: datetime | None
    is_late: bool
    is_reverted: bool
    # Of the campaign:
    source_versions: Sequence[str] = ()
    retry_interval_minutes: int | None = None
    max_attempts: int = 1
    timeout_minutes: int | None = None
    may_retry: bool = True
    # As read, for the conditional write:
    status_before: str = ""
    attempt_before: int = 1
    events: list[Event] = field(default_factory=list)
    # Set when the device must be reserved: its pushed task ended without its word.
    reserve: bool = False
    is_changed: bool = False
    # Nothing but the progress and the time of the last word changed: most reports of a fleet.
    is_progressed: bool = False

    def __post_init__(self) -> None:
        self.status_before, self.attempt_before = self.status, self.attempt

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    def is_source(self, version: str) -> bool:
        """Whether a version is one that this task starts from."""
        return version == self.from_version or version in self.source_versions

    def note(self, kind: EventKind, at: datetime, **details: object) -> None:
        self.events.append(Event(kind, at, attempt=self.attempt, **details))  # type: ignore[arg-type]

    def move(
        self, status: TaskStatus, at: datetime, *, kind: EventKind = EventKind.MOVED, **details: object
    ) -> None:
        """Change the status, which the table of moves must allow, and note it."""
        check_move(self.status, status)
        self.note(kind, at, before=self.status, after=status.value, **details)
        self.status = status
        self.is_changed = True


def succeed(task: State, at: datetime, version: str) -> None:
    task.move(TaskStatus.SUCCEEDED, at, version=version)
    task.progress, task.reason, task.detail = 100, "", ""
    task.ready_at = task.stray_until = None


def fail(task: State, at: datetime, reason: Reason, detail: str = "", step: int | None = None) -> None:
    """End the attempt: queue the next one if the campaign retries such failures, else fail for good."""
    task.reason, task.detail = reason.value, detail
    task.stray_until = None
    again = task.may_retry and reason in RETRYABLE and task.attempt < task.max_attempts
    if not again:
        task.move(TaskStatus.FAILED, at, step=step, reason=reason.value, detail=detail)
        task.ready_at = None
        return
    task.note(
        EventKind.RETRY,
        at,
        before=task.status,
        after=TaskStatus.QUEUED.value,
        step=step,
        reason=reason.value,
        detail=detail,
    )
    check_move(task.status, TaskStatus.QUEUED)
    task.status = TaskStatus.QUEUED
    task.attempt += 1
    task.progress = task.returns = 0
    task.pushed_at = task.acknowledged_at = None
    task.due_at = task.ready_at = at + timedelta(minutes=task.retry_interval_minutes or 0)
    task.is_changed = True


def requeue(task: State, at: datetime, ready_at: datetime | None) -> None:
    """Back to the queue within the same attempt; `ready_at` is when it may be pushed again."""
    if task.status != TaskStatus.QUEUED:
        task.move(TaskStatus.QUEUED, at)
    task.ready_at = ready_at
    task.is_changed = True


def _spaced(task: State, wish: datetime) -> datetime:
    times = [wish, task.due_at or wish]
    if task.pushed_at:
        times.append(task.pushed_at + PUSH_SPACING)
    return max(times)


def on_up(task: State, at: datetime) -> None:
    """The device connected. What was pushed already waits for its inform first."""
    if task.status == TaskStatus.QUEUED and task.pushed_at is None:
        requeue(task, at, max(at, task.due_at or at))
    elif task.status in (TaskStatus.QUEUED, TaskStatus.NOTIFIED):
        _count_return(task)
        requeue(task, at, _spaced(task, at + INFORM_GRACE))


def on_down(task: State, at: datetime) -> None:
    """The device is gone: a push may be lost with it, but an update in progress may be its restart."""
    if task.status in (TaskStatus.QUEUED, TaskStatus.NOTIFIED):
        _count_return(task)
        requeue(task, at, None)


def on_heard(task: State, at: datetime, before: tuple[datetime, datetime] | None) -> None:
    """A device that asks (HTTPS, CoAP) is back, or has logged in again; nothing can be pushed to it.

    What became due while it was online the last time (`before`: from, until) and never reached it is due
    anew, so that it is offered now; what became due while it was away is not.
    """
    missed = before is not None and task.due_at is not None and before[0] <= task.due_at <= before[1]
    if task.status == TaskStatus.QUEUED and task.pushed_at is None and (missed or task.ready_at):
        task.due_at, task.ready_at, task.is_changed = max(at, task.due_at or at), None, True
    elif task.status == TaskStatus.NOTIFIED or task.ready_at:
        on_down(task, at)


def _count_return(task: State) -> None:
    """A push that a connection outlived is one return, however often the device comes and goes after it."""
    task.returns += task.status in UPDATING


def on_inform(
    task: State, version: str, at: datetime, connected_at: datetime | None, *, asks: bool = False
) -> None:
    """The device says what it runs. Only this makes a success.

    A device that `asks` says it again and again, for it is how it asks: that is no sign that an update goes
    on, and does not put off the time-out.
    """
    if version == task.to_version:
        succeed(task, at, version)
        return
    if task.status in UPDATING and not asks:
        task.active_at = at
        task.is_changed = True
    if task.pushed_at is None:
        _on_inform_before_push(task, version, at, asks=asks)
    elif task.is_source(version) or not task.from_version:
        _on_return_to_source(task, version, at, connected_at)
    elif task.stray_until is None:
        task.stray_until = at + STRAY_GRACE
        task.note(EventKind.STRAY_VERSION, at, version=version)
        task.is_changed = True
    elif asks and task.stray_until <= at:
        # The sweep judges what is ready to be pushed; of a device that asks, nothing ever is.
        on_stray_due(task, at, version)


def _on_inform_before_push(task: State, version: str, at: datetime, *, asks: bool) -> None:
    # Whether it still is a chosen version is asked at the push, and of a later attempt also whether it is the
    # one that the last push met.
    if task.from_version != version and task.attempt == 1:
        task.from_version, task.is_changed = version, True
    if task.status == TaskStatus.QUEUED and not asks:
        requeue(task, at, max(at, task.due_at or at))


def _on_return_to_source(task: State, version: str, at: datetime, connected_at: datetime | None) -> None:
    if not task.from_version or task.stray_until is not None:
        task.from_version = task.from_version or version
        task.stray_until, task.is_changed = None, True
    if task.status in UPDATING:
        # Without a new connection since the push the device was never away: a routine report.
        if connected_at is None or task.pushed_at is None or connected_at <= task.pushed_at:
            return
        task.returns += 1
    if task.returns > MAX_RETURNS:
        fail(task, at, Reason.ROLLED_BACK)
    else:
        requeue(task, at, _spaced(task, at))


def on_step(task: State, step: int, detail: str, at: datetime) -> None:
    """Progress (0…100) or a failure (below 0) in the device's words."""
    if task.status not in ACTIVE or task.pushed_at is None or task.status == TaskStatus.CONFIRM:
        # Of an earlier attempt or a task that is over.
        ignore(task, at, step=step, detail=detail)
    elif step < 0:
        fail(task, at, STEP_REASONS.get(step, Reason.UPDATE), detail, step)
    else:
        if task.status != TaskStatus.IN_PROGRESS:
            task.move(TaskStatus.IN_PROGRESS, at, step=step, detail=detail)
            task.ready_at = None
        # Going back within an attempt would say less than what is known already.
        task.progress = max(task.progress, step)
        task.active_at, task.is_progressed = at, True


def ignore(
    task: State, at: datetime, *, step: int | None = None, version: str = "", detail: str = ""
) -> None:
    """A late, repeated or foreign report changes nothing, and is kept."""
    task.note(EventKind.IGNORED, at, step=step, version=version, detail=detail)


def on_version_after_end(task: State, version: str, at: datetime) -> None:
    """A changed version on a task that is over: finished late, or gone back."""
    from_success = task.status == TaskStatus.SUCCEEDED or task.is_late
    if version == task.to_version:
        if task.status == TaskStatus.CANCELED or (
            task.status == TaskStatus.FAILED and task.reason == Reason.TIMEOUT
        ):
            if not task.is_late:
                task.note(EventKind.FINISHED_LATE, at, version=version)
            task.is_late, task.is_reverted, task.is_changed = True, False, True
        elif task.is_reverted:
            task.is_reverted, task.is_changed = False, True
    elif from_success and not task.is_reverted and task.is_source(version):
        task.note(EventKind.REVERTED, at, version=version)
        task.is_reverted = task.is_changed = True


def on_silence(task: State, at: datetime, *, is_online: bool) -> None:
    """No push, step or inform for the campaign's time-out."""
    if is_online:
        fail(task, at, Reason.TIMEOUT)
        task.reserve = True
    else:
        _count_return(task)
        requeue(task, at, None)


def on_stray_due(task: State, at: datetime, current: str | None) -> None:
    """The grace of a stray version is over: it fails the task if it still stands."""
    task.stray_until, task.is_changed = None, True
    if current is not None and current != task.to_version and not task.is_source(current):
        fail(task, at, Reason.WRONG_VERSION, current)
    elif task.status == TaskStatus.QUEUED:
        requeue(task, at, at)


def on_unacknowledged(task: State, at: datetime) -> None:
    """The broker never confirmed the push: make it again."""
    requeue(task, at, at)


def cancel(task: State, at: datetime, detail: str = "") -> None:
    task.reserve = task.pushed_at is not None
    task.move(TaskStatus.CANCELED, at, detail=detail)
    # Why an earlier attempt failed is not why this one ended.
    task.reason = task.detail = ""
    task.ready_at = task.stray_until = None


def removed(task: State, at: datetime) -> None:
    """The device is gone for good."""
    task.move(TaskStatus.FAILED, at, reason=Reason.DEVICE_REMOVED.value)
    task.reason, task.detail = Reason.DEVICE_REMOVED.value, ""
    task.ready_at = task.stray_until = None


def again(task: State, at: datetime) -> None:
    """An operator's "update again": the task starts over with a fresh first attempt."""
    task.move(TaskStatus.QUEUED, at)
    task.attempt, task.progress, task.returns = 1, 0, 0
    task.reason = task.detail = ""
    task.is_late = task.is_reverted = False
    task.pushed_at = task.acknowledged_at = task.stray_until = task.active_at = None
    task.due_at = task.ready_at = at
