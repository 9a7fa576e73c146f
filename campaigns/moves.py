"""Writing what `campaigns.life` decided: the one place that changes a task's status.

A batch is one conditional UPDATE that matches each row by the status, attempt and last change that it was
decided on, and returns the rows it really moved; then the events of those, then the counters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count

from campaigns.life import Event, State
from campaigns.models import CampaignCounter, TaskEvent, UpdateTask, UpdateTaskQuerySet
from campaigns.states import CampaignStatus, EventKind, TaskStatus, check_move
from devices import counters, sql

# A chatty device may not fill the history with reports that changed nothing.
MAX_IGNORED_EVENTS = 20

_COLUMNS = {
    "status": "text",
    "attempt": "smallint",
    "progress": "smallint",
    "reason": "text",
    "detail": "text",
    "from_version": "text",
    "returns": "smallint",
    "due_at": "timestamptz",
    "ready_at": "timestamptz",
    "pushed_at": "timestamptz",
    "acknowledged_at": "timestamptz",
    "stray_until": "timestamptz",
    "active_at": "timestamptz",
    "is_late": "boolean",
    "is_reverted": "boolean",
    "pushes": "smallint",
    "stepless": "smallint",
    "last_step": "smallint",
    "stepped_at": "timestamptz",
    "has_returned": "boolean",
}
_READ = ("id", "campaign_id", "device_id", "module", "to_version", "changed_at", *_COLUMNS)
_CAMPAIGN = ("source_versions", "retry_interval_minutes", "max_retries", "timeout_minutes", "status")


def read(tasks: UpdateTaskQuerySet) -> list[State]:
    """These tasks as states, each with its campaign's rules."""
    fields = [*_READ, *(f"campaign__{name}" for name in _CAMPAIGN)]
    states = []
    for row in tasks.values_list(*fields):
        values = dict(zip(fields, row, strict=True))
        campaign = {name: values.pop(f"campaign__{name}") for name in _CAMPAIGN}
        states.append(
            State(
                **values,
                source_versions=campaign["source_versions"],
                retry_interval_minutes=campaign["retry_interval_minutes"],
                max_attempts=1 + (campaign["max_retries"] or 0),
                timeout_minutes=campaign["timeout_minutes"],
                may_retry=campaign["status"] != CampaignStatus.CANCELED,
            )
        )
    return states


def write(states: Sequence[State], now: datetime) -> tuple[set[int], Counter[tuple[int, str]]]:
    """Store the changed states, in the caller's transaction: the ids really moved, and the differences.

    A state whose row has moved on since it was read is left alone, with its events: read again and decide
    again. States that only noted events (an ignored report) count as moved. The differences are for
    `add_counts`, which comes last in a transaction.
    """
    changed = [state for state in states if state.is_changed]
    progressed = [state for state in states if state.is_progressed and not state.is_changed]
    moved = _update(changed, now) | _progress(progressed, now)
    kept = [s for s in states if s.id in moved or not (s.is_changed or s.is_progressed)]
    add_events([(state.id, event) for state in kept for event in state.events])
    deltas: Counter[tuple[int, str]] = Counter()
    for state in changed:
        if state.id in moved and state.status != state.status_before:
            deltas[state.campaign_id, state.status_before] -= 1
            deltas[state.campaign_id, state.status] += 1
    return {state.id for state in kept}, deltas


def _update(states: Sequence[State], now: datetime) -> set[int]:
    if not states:
        return set()
    columns = {
        "task_id": "bigint",
        "status_before": "text",
        "attempt_before": "smallint",
        "changed_before": "timestamptz",
    }
    columns |= {f"new_{name}": kind for name, kind in _COLUMNS.items()}
    source, parameters = sql.rows(
        "v",
        columns,
        [
            (
                state.id,
                state.status_before,
                state.attempt_before,
                state.changed_at,
                *(getattr(state, name) for name in _COLUMNS),
            )
            for state in sorted(states, key=lambda state: state.id)
        ],
    )
    assignments = ", ".join(f"{name} = v.new_{name}" for name in _COLUMNS if name != "acknowledged_at")
    # The broker's stamp for the push that was read may have come in since.
    assignments += (
        ", acknowledged_at = CASE WHEN v.new_pushed_at = pushed_at "
        "THEN COALESCE(v.new_acknowledged_at, acknowledged_at) ELSE v.new_acknowledged_at END"
    )
    rows = sql.execute(
        f"UPDATE campaigns_updatetask SET {assignments}, changed_at = %s FROM {source} "  # noqa: S608
        "WHERE campaigns_updatetask.id = v.task_id AND campaigns_updatetask.status = v.status_before "
        "AND campaigns_updatetask.attempt = v.attempt_before "
        "AND campaigns_updatetask.changed_at = v.changed_before RETURNING campaigns_updatetask.id",
        [now, *parameters],
    )
    return {row[0] for row in rows}


def _progress(states: Sequence[State], now: datetime) -> set[int]:
    """The narrow statement for what most reports are; of two at once the further one stands."""
    if not states:
        return set()
    columns = {
        "task_id": "bigint",
        "attempt": "smallint",
        "progress": "smallint",
        "last_step": "smallint",
        "stepped_at": "timestamptz",
        "active_at": "timestamptz",
    }
    values = [
        (s.id, s.attempt, s.progress, s.last_step, s.stepped_at, s.active_at)
        for s in sorted(states, key=lambda s: s.id)
    ]
    source, parameters = sql.rows("v", columns, values)
    grows = "v.last_step > COALESCE(campaigns_updatetask.last_step, -1)"
    rows = sql.execute(
        "UPDATE campaigns_updatetask SET progress = CASE WHEN v.progress > campaigns_updatetask.progress "  # noqa: S608
        "THEN v.progress ELSE campaigns_updatetask.progress END, "
        f"active_at = CASE WHEN {grows} THEN v.active_at ELSE campaigns_updatetask.active_at END, "
        f"last_step = CASE WHEN {grows} THEN v.last_step ELSE campaigns_updatetask.last_step END, "
        f"stepped_at = v.stepped_at, stepless = 0, changed_at = %s "
        f"FROM {source} WHERE campaigns_updatetask.id = v.task_id "
        "AND campaigns_updatetask.status = 'IN_PROGRESS' AND campaigns_updatetask.attempt = v.attempt "
        # A device that came back meanwhile is waited for: the step is its word, and more than progress.
        "AND campaigns_updatetask.ready_at IS NULL AND campaigns_updatetask.stray_until IS NULL "
        "RETURNING campaigns_updatetask.id",
        [now, *parameters],
    )
    return {row[0] for row in rows}


def cancel_unpushed(task_ids: Sequence[int], before: TaskStatus, now: datetime) -> set[int]:
    """Cancel those of these tasks that still are in this status and were never pushed: the ids moved.

    What `life.cancel` makes of such a task, without reading it. The counters are the caller's.
    """
    check_move(before.value, TaskStatus.CANCELED)
    source, parameters = sql.rows("v", {"task_id": "bigint"}, [(pk,) for pk in task_ids])
    rows = sql.execute(
        "UPDATE campaigns_updatetask SET status = 'CANCELED', reason = '', detail = '', "  # noqa: S608  (ours)
        f"ready_at = NULL, stray_until = NULL, changed_at = %s FROM {source} "
        "WHERE campaigns_updatetask.id = v.task_id "
        "AND campaigns_updatetask.status = %s AND campaigns_updatetask.pushed_at IS NULL "
        "RETURNING campaigns_updatetask.id, campaigns_updatetask.attempt",
        [now, *parameters, before.value],
    )
    add_events(
        [
            (
                pk,
                Event(
                    EventKind.MOVED,
                    now,
                    before=before.value,
                    after=TaskStatus.CANCELED.value,
                    attempt=attempt,
                ),
            )
            for pk, attempt in rows
        ]
    )
    return {pk for pk, _ in rows}


def add_events(events: Sequence[tuple[int, Event]]) -> None:
    """Append (task id, event) rows with one statement."""
    ignored = Counter(task for task, event in events if event.kind == EventKind.IGNORED)
    room: dict[int, int] = dict.fromkeys(ignored, MAX_IGNORED_EVENTS)
    if ignored:
        stored = TaskEvent.objects.filter(task__in=list(ignored), kind=EventKind.IGNORED)
        for row in stored.values("task").annotate(n=Count("pk")).order_by():
            room[row["task"]] = MAX_IGNORED_EVENTS - row["n"]
    values: list[tuple[Any, ...]] = []
    for task, event in events:
        if event.kind == EventKind.IGNORED:
            room[task] -= 1
            if room[task] < 0:
                continue
        values.append(
            (
                task,
                event.at,
                event.kind.value,
                event.before,
                event.after,
                event.attempt,
                event.step,
                event.reason,
                event.version,
                event.detail,
            )
        )
    if not values:
        return
    columns = {
        "task_id": "bigint",
        "at": "timestamptz",
        "kind": "text",
        "before": "text",
        "after": "text",
        "attempt": "smallint",
        "step": "smallint",
        "reason": "text",
        "version": "text",
        "detail": "text",
    }
    source, parameters = sql.rows("v", columns, values)
    names = ", ".join(f'"{name}"' for name in columns)
    picks = ", ".join(f'v."{name}"' for name in columns)
    sql.execute(f"INSERT INTO campaigns_taskevent ({names}) SELECT {picks} FROM {source}", parameters)  # noqa: S608


def add_counts(deltas: Mapping[tuple[int, str], int]) -> None:
    """{(campaign id, status): difference}; call it last in a transaction."""
    counters.add(CampaignCounter, {"campaign_id": "bigint", "status": "text"}, deltas)


def recount(campaign_ids: Iterable[int], *, repair: bool = False) -> dict[tuple[int, str], tuple[int, int]]:
    """Counters that differ from a count: {(campaign, status): (stored, counted)}."""
    ids = list(campaign_ids)
    stored = CampaignCounter.objects.totals(ids)
    counted: dict[int, dict[str, int]] = {pk: dict.fromkeys(TaskStatus.values, 0) for pk in ids}
    rows = UpdateTask.objects.filter(campaign__in=ids).values("campaign", "status").annotate(n=Count("pk"))
    for row in rows.order_by():
        counted[row["campaign"]][row["status"]] = row["n"]
    differences = {
        (pk, status): (stored[pk][status], counted[pk][status])
        for pk in ids
        for status in TaskStatus.values
        if stored[pk][status] != counted[pk][status]
    }
    if repair:
        add_counts({key: right - wrong for key, (wrong, right) in differences.items()})
    return differences
