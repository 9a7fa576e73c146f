"""Pushes for which the broker says that nobody was connected: as if they had never been made."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from campaigns import life, moves, reports
from campaigns.applied import Applied
from campaigns.models import TaskEvent, UpdateTask
from campaigns.states import EventKind, TaskStatus
from devices import presence


def put_back(task_ids: Sequence[int], now: datetime) -> None:
    """Queue these tasks again, which were claimed at `now` and reached nobody.

    No event and no fallback is counted, for the device knows of nothing. Those whose device is offline are
    parked until it connects. Where our presence still says that it is connected, its end (or that of the
    broker's last life) has not come in yet: the next try waits until then, and at least the usual spacing.
    """
    if not task_ids:
        return
    applied = Applied()
    with transaction.atomic():
        tasks = UpdateTask.objects.filter(id__in=task_ids, status=TaskStatus.NOTIFIED, pushed_at=now)
        presence.lock(list(tasks.values_list("device_id", flat=True)))
        states = moves.read(tasks)
        before = _pushed_before([state.id for state in states], now)
        for state in states:
            state.status, state.is_changed = TaskStatus.QUEUED.value, True
            state.pushed_at = before.get((state.id, state.attempt))
            state.acknowledged_at = None
            state.pushes, state.stepless = max(0, state.pushes - 1), max(0, state.stepless - 1)
            state.ready_at = max(now + life.PUSH_SPACING, state.due_at or now)
        missed = reports.settle(states, now, applied)
        undone = [state.id for state in states if state.device_id not in missed]
        TaskEvent.objects.filter(task__in=undone, kind=EventKind.PUSHED, at=now).delete()
        moves.add_counts(applied.counts)


def _pushed_before(task_ids: Sequence[int], now: datetime) -> dict[tuple[int, int], datetime]:
    """{(task, attempt): the last time that it was handed over}, of those that were."""
    handed = TaskEvent.objects.filter(
        task__in=task_ids, kind__in=[EventKind.PUSHED, EventKind.PULLED], at__lt=now
    ).order_by("at")
    return {(task, attempt): at for task, attempt, at in handed.values_list("task", "attempt", "at")}
