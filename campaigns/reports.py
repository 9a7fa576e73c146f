"""Device to server: a batch of reports onto presence, versions, tasks, events and counters.

One transaction. Locks are taken in the order presence rows, tasks, counters; tasks are read without a lock
and written conditionally, and what another writer moved meanwhile is read and decided again.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from campaigns import dynamic, life, moves
from campaigns.applied import Applied
from campaigns.life import RESERVE, State
from campaigns.models import UpdateTask
from campaigns.states import FINAL, TaskStatus
from devices import counters, presence, versions
from devices.models import ASKING, Channel, DevicePresence
from devices.presence import Down, Heard, Online, Up
from devices.versions import Inform

logger = logging.getLogger(__name__)

__all__ = ["Applied", "Down", "Heard", "Inform", "Report", "Step", "Up", "apply", "settle"]

# Rows that others keep moving under us: after this many readings the batch is given back to be retried.
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Step:
    """Progress 0…100, or a failure below 0, with the device's own words; None is "no module said"."""

    device_id: int
    module: str | None
    step: int
    detail: str
    at: datetime
    duplicate: bool = False


Report = Inform | Step | Up | Down | Heard
_PRESENCE = (Up, Down, Heard)


class ContendedError(RuntimeError):
    """Other writers moved the same tasks again and again; try the batch once more."""


def apply(reports: Sequence[Report], now: datetime | None = None) -> Applied:
    """Store a batch of reports, in arrival order. Duplicates (redelivered messages) change nothing."""
    now = now or timezone.now()
    reports = [report for report in reports if isinstance(report, _PRESENCE) or not report.duplicate]
    applied = Applied()
    with transaction.atomic():
        # Taken once and in order, so that no two batches, launches or sweeps wait for each other in a ring.
        presence.lock([report.device_id for report in reports if _may_start_or_park(report)])
        connected = presence.record([report for report in reports if isinstance(report, _PRESENCE)])
        informs = [report for report in reports if isinstance(report, Inform)]
        recorded = versions.record(informs)
        if informs:
            presence.release([inform.device_id for inform in informs])
        by_device: dict[int, list[Report]] = defaultdict(list)
        for report in reports:
            if not isinstance(report, _PRESENCE) or report in connected.counted:
                by_device[report.device_id].append(report)
        ended = _apply_to_tasks(by_device, recorded.before, connected.before, applied, now)
        informed = {(inform.device_id, inform.module) for inform in informs}
        dynamic.enrol(informed, now, applied, ended=ended, connected=connected.up)
        moves.add_counts(applied.counts)
        counters.add_versions(recorded.counts)
    return applied


def _may_start_or_park(report: Report) -> bool:
    return not isinstance(report, Step) or report.step < 0


def _apply_to_tasks(
    by_device: dict[int, list[Report]],
    changed: dict[versions.Key, str | None],
    online_before: dict[Heard, Online],
    applied: Applied,
    now: datetime,
) -> set[int]:
    """Devices whose task ended in this batch."""
    ended: set[int] = set()
    pending = set(by_device)
    for _attempt in range(ATTEMPTS):
        if not pending:
            return ended
        states = moves.read(UpdateTask.objects.active().filter(device__in=list(pending)))
        active = {state.device_id for state in states}
        over = _last_final(
            {pk for pk in pending if _concerns_the_past(by_device[pk], changed, is_active=pk in active)}
        )
        rows = DevicePresence.objects.in_bulk(active)
        for state in states:
            for report in by_device[state.device_id]:
                if isinstance(report, Heard):
                    life.on_heard(state, report.at, online_before.get(report))
                else:
                    _feed(state, report, rows.get(state.device_id))
        for state in over:
            for report in by_device[state.device_id]:
                if state.device_id not in active or _finishes(report, state):
                    _feed(state, report)
        missed = settle(states, now, applied) | (settle(over, now, applied) - active)
        ended |= {
            state.device_id
            for state in states
            if state.device_id not in missed and state.status in FINAL and state.status_before not in FINAL
        }
        pending = missed
    if pending:
        raise ContendedError(f"tasks of {len(pending)} devices")
    return ended


def _concerns_the_past(
    reports: Iterable[Report], changed: dict[versions.Key, str | None], *, is_active: bool
) -> bool:
    return any(
        (isinstance(report, Step) and not is_active)
        or (isinstance(report, Inform) and (report.device_id, report.module) in changed)
        for report in reports
    )


def _finishes(report: Report, state: State) -> bool:
    """Late, while the device has its next task already; other reports concern that one."""
    return isinstance(report, Inform) and report.version == state.to_version


def _last_final(device_ids: set[int]) -> list[State]:
    """The latest task of each module that is over and that these devices knew of, or succeeded in."""
    if not device_ids:
        return []
    known = Q(pushed_at__isnull=False) | Q(status=TaskStatus.SUCCEEDED)
    latest = (
        UpdateTask.objects.filter(known, device__in=device_ids, status__in=FINAL)
        .values("device", "module")
        .annotate(last=Max("id"))
        .order_by()
    )
    return moves.read(UpdateTask.objects.filter(id__in=list(latest.values_list("last", flat=True))))


def _feed(state: State, report: Report, row: DevicePresence | None = None) -> None:
    """One report onto one task; a module that is not the task's concerns it not."""
    if state.is_active:
        if isinstance(report, Up):
            life.on_up(state, report.at)
        elif isinstance(report, Down):
            life.on_down(state, report.at)
        elif isinstance(report, Inform):
            if report.module == state.module:
                asks = row is not None and row.channel in ASKING
                connected_at = row.connected_at if row else None
                life.on_inform(state, report.version, report.at, connected_at, asks=asks)
        elif isinstance(report, Step) and report.module in (None, state.module):
            life.on_step(state, report.step, report.detail, report.at)
    elif isinstance(report, Inform):
        if report.module == state.module:
            life.on_version_after_end(state, report.version, report.at)
    elif isinstance(report, Step) and report.module in (None, state.module):
        life.ignore(state, report.at, step=report.step, detail=report.detail)


def settle(states: Sequence[State], now: datetime, applied: Applied) -> set[int]:
    """Write decided states in the caller's transaction; devices whose rows had moved on meanwhile.

    What goes back to the queue is parked if its device is offline, under the lock of its presence row, so
    that it cannot miss the moment when the device comes back. The caller writes `applied.counts` last.
    """
    states = [state for state in states if state.is_changed or state.is_progressed or state.events]
    queued = [state for state in states if state.is_changed and state.status == TaskStatus.QUEUED]
    if queued:
        park(queued)
    written, counts = moves.write(states, now)
    reserved = [state.device_id for state in states if state.reserve and state.id in written]
    if reserved:
        presence.reserve(reserved, now + RESERVE)
    applied.counts.update(counts)
    applied.campaigns |= {state.campaign_id for state in states if state.id in written}
    applied.ready |= any(
        state.id in written and state.ready_at is not None and state.ready_at <= now for state in queued
    )
    return {state.device_id for state in states if state.id not in written}


def park(states: Sequence[State]) -> None:
    """Locks the devices' presence rows; offline ones lose their `ready_at`, reserved ones wait."""
    rows = presence.lock([state.device_id for state in states])
    online = set(
        DevicePresence.objects.online()
        .filter(pk__in=list(rows), channel=Channel.MQTT)
        .values_list("pk", flat=True)
    )
    for state in states:
        if state.device_id not in online:
            state.ready_at = None
        elif state.ready_at is None:
            # Queued while offline, and the device came back before we held its row.
            state.ready_at = _when_back(state)
        reserved = rows.get(state.device_id)
        if state.ready_at and reserved:
            state.ready_at = max(state.ready_at, reserved)


def _when_back(state: State) -> datetime:
    now = timezone.now()
    wish = now if state.pushed_at is None else now + life.INFORM_GRACE
    return max(wish, state.due_at or wish)
