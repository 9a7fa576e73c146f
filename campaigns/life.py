"""The life of one task, as pure functions: what a report, a silence or an operator makes of it.

Nothing here reads a clock or a database. Each function changes a `State` in memory and notes events;
`campaigns.moves` then writes a whole batch of states with one conditional statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from campaigns.states import (
    ACTIVE,
    FINAL,
    RETRYABLE,
    STEP_REASONS,
    UPDATING,
    EventKind,
    Reason,
    TaskStatus,
    check_move,
)
from devices.versions import SETTLE

# A device that comes back after a push is given this long for a word: a step, or what it runs.
WORD_WITHIN = timedelta(seconds=30)
# No second push of the same attempt to a device within this time.
PUSH_SPACING = timedelta(seconds=30)
# A version that is neither source nor target is judged when it stood for this long.
STRAY_GRACE = timedelta(seconds=30)
# An unacknowledged push older than this is made again.
ACKNOWLEDGE_WITHIN = timedelta(seconds=30)
# A device whose pushed task was canceled or timed out may still be busy with it.
RESERVE = timedelta(minutes=30)
# Fallbacks to the source version that are answered with another push, per attempt.
MAX_RETURNS = 3
# A device that restarts after this step has written the new firmware and tried it.
BURN_STEP = 100
# So many pushes in one attempt end it, if the last few of them were not followed by a step.
MAX_PUSHES = 10
MAX_STEPLESS = 3


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
    # Pushes of this attempt, and those of them since its last step.
    pushes: int = 0
    stepless: int = 0
    # The furthest step since the last push, and when the last one came.
    last_step: int | None = None
    stepped_at: datetime | None = None
    # Whether a fallback after the last push was counted already, or cannot be told from our own restart.
    has_returned: bool = False
    changed_at: datetime | None = None
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

    @property
    def was_pushed(self) -> bool:
        """Whether the device was told of this task, in this attempt or an earlier one."""
        return self.pushed_at is not None or self.attempt > 1

    @property
    def needs_settled(self) -> bool:
        """Whether the version decides about the push, so that it must have settled."""
        return bool(self.source_versions)

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
    due_at = at + timedelta(minutes=task.retry_interval_minutes or 0)
    _start_attempt(task, _not_before(task, due_at))
    task.is_changed = True


def _start_attempt(task: State, due_at: datetime) -> None:
    task.progress = task.returns = task.pushes = task.stepless = 0
    task.last_step = task.stepped_at = task.pushed_at = task.acknowledged_at = task.stray_until = None
    task.has_returned = False
    task.due_at = task.ready_at = due_at


def _not_before(task: State, wish: datetime) -> datetime:
    """Spacing holds across attempts: a retry is not pushed into an update that just began.

    Also after a failure that the device reported itself: it may be about the copy before.
    """
    return max(wish, task.pushed_at + PUSH_SPACING) if task.pushed_at else wish


def requeue(task: State, at: datetime, ready_at: datetime | None) -> None:
    """Back to the queue within the same attempt; `ready_at` is when it may be pushed again.

    An attempt that was pushed again and again without a step between the last pushes is over.
    """
    if ready_at is not None and task.pushes >= MAX_PUSHES and task.stepless >= MAX_STEPLESS:
        fail(task, at, Reason.TIMEOUT)
        task.reserve = True
        return
    if task.status != TaskStatus.QUEUED:
        task.move(TaskStatus.QUEUED, at)
    task.ready_at = ready_at
    task.is_changed = True


def note_push(task: State, at: datetime) -> None:
    """Another push of this attempt: what came of the one before is forgotten. (The claim does the same.)"""
    task.active_at, task.last_step, task.has_returned = at, None, False
    task.pushes += 1
    task.stepless += 1
    task.is_changed = True


def _spaced(task: State, wish: datetime) -> datetime:
    return _not_before(task, max(wish, task.due_at or wish))


def _has_restarted(task: State, connected_at: datetime | None) -> bool:
    """Whether the device connected anew since the last push and the last step after it."""
    times = [time for time in (task.pushed_at, task.stepped_at) if time]
    return connected_at is not None and bool(times) and connected_at > max(times)


def _count_return(task: State) -> None:
    """A fallback: the device had the new firmware and runs its old one. One push counts once at most."""
    if not task.has_returned:
        task.returns += 1
        task.has_returned = task.is_changed = True


def on_up(task: State, at: datetime, *, is_ours: bool = False) -> None:
    """The device connected. What was pushed already waits for a word first.

    `is_ours`: the connection before broke because the broker started anew, which is no sign of a fallback.
    """
    if is_ours and task.pushed_at is not None and not task.has_returned:
        task.has_returned = task.is_changed = True
    if task.status == TaskStatus.QUEUED and task.pushed_at is None:
        requeue(task, at, max(at, task.due_at or at))
    elif task.status in (TaskStatus.QUEUED, TaskStatus.NOTIFIED):
        if task.last_step is not None and task.last_step >= BURN_STEP and _has_restarted(task, at):
            # Only parked since its restart, so nobody waits for it below. If it runs the target it succeeds.
            _count_return(task)
        _await_word(task, at, at)
    elif task.status == TaskStatus.IN_PROGRESS:
        _await_word(task, at, at)


def _await_word(task: State, at: datetime, connected_at: datetime) -> None:
    until = _spaced(task, connected_at + WORD_WITHIN)
    if task.status == TaskStatus.IN_PROGRESS:
        # It probably goes on, and is shown so meanwhile.
        task.ready_at, task.is_changed = until, True
    else:
        requeue(task, at, until)


def on_down(task: State, at: datetime) -> None:
    """The device is gone: a push may be lost with it, but an update in progress may be its restart."""
    if task.status in (TaskStatus.QUEUED, TaskStatus.NOTIFIED):
        requeue(task, at, None)
    elif task.status == TaskStatus.IN_PROGRESS and task.ready_at is not None:
        task.ready_at, task.is_changed = None, True


def on_heard(task: State, at: datetime, before: tuple[datetime, datetime] | None) -> None:
    """A device that asks (HTTPS, CoAP) is back, or has logged in again; nothing can be pushed to it.

    What became due while it was online the last time (`before`: from, until) and never reached it is due
    anew, so that it is offered now; what became due while it was away is not.
    """
    missed = before is not None and task.due_at is not None and before[0] <= task.due_at <= before[1]
    if task.status == TaskStatus.QUEUED and task.pushed_at is None and (missed or task.ready_at):
        task.due_at, task.ready_at, task.is_changed = max(at, task.due_at or at), None, True
    elif task.status == TaskStatus.IN_PROGRESS:
        on_up(task, at)
    elif task.status == TaskStatus.NOTIFIED or task.ready_at:
        requeue(task, at, None)


def on_word_missing(
    task: State, at: datetime, connected_at: datetime | None, *, is_settling: bool = False
) -> None:
    """A device came back in the middle of an update and gave no word in time: it is pushed to again.

    It may have restarted with what it had written and fallen back, which its version tells unless that
    `is_settling`. One that never tells a version counts as well: it would be written to again for ever.
    """
    task.ready_at = None
    burnt = task.last_step is not None and task.last_step >= BURN_STEP
    if burnt and not is_settling and _has_restarted(task, connected_at):
        _count_return(task)
        if task.returns > MAX_RETURNS:
            fail(task, at, Reason.ROLLED_BACK)
            return
    requeue(task, at, _spaced(task, at))


def on_inform(
    task: State,
    version: str,
    at: datetime,
    connected_at: datetime | None,
    *,
    is_settled: bool = True,
    was_seen: bool = False,
    asks: bool = False,
) -> None:
    """The device says what it runs. Only this makes a success; it never puts off the time-out.

    `is_settled`: the version counts already (`devices.versions`); `was_seen`: the device had reported it
    before the push; `asks`: the device says it again and again, for it is how it asks.
    """
    if version == task.to_version:
        if task.was_pushed or is_settled:
            succeed(task, at, version)
        else:
            _judge_at(task, at + SETTLE)
    elif task.pushed_at is None:
        _on_inform_before_push(task, version, at, is_settled=is_settled, asks=asks)
    elif connected_at is None or connected_at <= task.pushed_at:
        _runs(task, version)
    elif task.is_source(version) or was_seen or not task.from_version:
        _on_return_to_source(task, version, at, connected_at, is_settled=is_settled)
    elif task.stray_until is None:
        _judge_at(task, at + STRAY_GRACE)
        task.note(EventKind.STRAY_VERSION, at, version=version)


def _judge_at(task: State, time: datetime) -> None:
    task.stray_until, task.is_changed = time, True


def _runs(task: State, version: str) -> None:
    """On the connection of the push whatever the device says is what it updates from."""
    if task.from_version != version or task.stray_until is not None:
        task.from_version, task.stray_until, task.is_changed = version, None, True


def _on_inform_before_push(task: State, version: str, at: datetime, *, is_settled: bool, asks: bool) -> None:
    # Whether it still is a chosen version is asked at the push, once the version has settled, and of a later
    # attempt also whether it is the one that the last push met.
    if task.from_version != version and task.attempt == 1:
        task.from_version, task.is_changed = version, True
    if task.stray_until is not None:
        task.stray_until, task.is_changed = None, True
    if task.status == TaskStatus.QUEUED and not asks:
        wait = SETTLE if task.needs_settled and not is_settled else timedelta()
        requeue(task, at, max(at + wait, task.due_at or at))


def _on_return_to_source(
    task: State, version: str, at: datetime, connected_at: datetime, *, is_settled: bool
) -> None:
    if not task.from_version or task.stray_until is not None:
        task.from_version = task.from_version or version
        task.stray_until, task.is_changed = None, True
    if task.last_step is None and is_settled:
        _count_return(task)
    if task.returns > MAX_RETURNS:
        fail(task, at, Reason.ROLLED_BACK)
    elif task.status in UPDATING and task.ready_at is None and _has_restarted(task, connected_at):
        # Its connection was not told, or not yet.
        _await_word(task, at, connected_at)


def on_step(task: State, step: int, detail: str, at: datetime) -> None:
    """Progress (0…100) or a failure (below 0) in the device's words.

    A step says that the update goes on. Only one that grows puts off the time-out: a device that begins the
    download again and again is not getting on.
    """
    if task.status not in ACTIVE or task.pushed_at is None or task.status == TaskStatus.CONFIRM:
        # Of an earlier attempt or a task that is over.
        ignore(task, at, step=step, detail=detail)
    elif step < 0:
        fail(task, at, STEP_REASONS.get(step, Reason.UPDATE), detail, step)
    else:
        if task.status != TaskStatus.IN_PROGRESS:
            task.move(TaskStatus.IN_PROGRESS, at, step=step, detail=detail)
        if task.ready_at is not None or task.stray_until is not None:
            task.ready_at, task.stray_until, task.is_changed = None, None, True
        # Going back within an attempt would say less than what is known already.
        task.progress = max(task.progress, step)
        if task.last_step is None or step > task.last_step:
            task.last_step, task.active_at = step, at
        task.stepless, task.stepped_at, task.is_progressed = 0, at, True


def ignore(
    task: State, at: datetime, *, step: int | None = None, version: str = "", detail: str = ""
) -> None:
    """A late, repeated or foreign report changes nothing, and is kept."""
    task.note(EventKind.IGNORED, at, step=step, version=version, detail=detail)


def on_version_after_end(task: State, version: str, at: datetime) -> None:
    """A changed version on a task that is over: finished late, or perhaps gone back."""
    if version == task.to_version:
        if task.status != TaskStatus.SUCCEEDED and not task.is_late:
            task.note(EventKind.FINISHED_LATE, at, version=version)
            task.is_late = task.is_changed = True
        if task.is_reverted or task.stray_until is not None:
            task.is_reverted, task.stray_until, task.is_changed = False, None, True
    elif (task.status == TaskStatus.SUCCEEDED or task.is_late) and not task.is_reverted:
        _judge_at(task, at + STRAY_GRACE)


def on_silence(task: State, at: datetime, *, is_online: bool) -> None:
    """No push, growing step or downloaded byte for the campaign's time-out."""
    if is_online:
        fail(task, at, Reason.TIMEOUT)
        task.reserve = True
    else:
        requeue(task, at, None)


def on_judgement(
    task: State, at: datetime, version: str | None, since: datetime | None, *, was_asked: bool = False
) -> None:
    """The time of a version that had to stand is over: it is judged by what the device runs, and since when.

    `was_asked`: a newer task asked for that version, so that it is no reversion.
    """
    task.stray_until, task.is_changed = None, True
    if version is None or since is None:
        return
    if task.status in FINAL:
        if version == task.to_version or task.is_reverted or was_asked:
            return
        if since + STRAY_GRACE > at:
            _judge_at(task, since + STRAY_GRACE)
        else:
            task.note(EventKind.REVERTED, at, version=version)
            task.is_reverted = True
    elif version == task.to_version:
        if task.was_pushed or since + SETTLE <= at:
            succeed(task, at, version)
        else:
            _judge_at(task, since + SETTLE)
    elif task.pushed_at is None or task.is_source(version):
        return
    elif since + STRAY_GRACE > at:
        _judge_at(task, since + STRAY_GRACE)
    else:
        fail(task, at, Reason.WRONG_VERSION, version)


def on_unacknowledged(task: State, at: datetime) -> None:
    """The broker never confirmed the push: make it again. It is no push that the device ignored."""
    task.pushes, task.stepless = max(0, task.pushes - 1), max(0, task.stepless - 1)
    requeue(task, at, _not_before(task, at))


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
    task.attempt = 1
    task.reason = task.detail = ""
    task.is_late = task.is_reverted = False
    task.active_at = None
    _start_attempt(task, _not_before(task, at))
