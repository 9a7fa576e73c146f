"""Device to server: a batch of reports onto presence, versions, tasks, events and counters.

One transaction. Locks are taken in the order presence rows, tasks, counters; tasks are read without a lock
and written conditionally, and what another writer moved meanwhile is read and decided again.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from campaigns import dynamic, life, moves
from campaigns.applied import Applied
from campaigns.life import RESERVE, State
from campaigns.models import UpdateTask
from campaigns.states import FINAL, TaskStatus
from devices import counters, presence, versions
from devices.models import ASKING, DEFAULT_MODULE, Channel, DevicePresence
from devices.presence import Changes, Down, Heard, Up
from devices.versions import Inform, Recorded

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
        informed = {(inform.device_id, inform.module) for inform in informs}
        if informed:
            presence.release(informed)
        by_device: dict[int, list[Report]] = defaultdict(list)
        for report in reports:
            if not isinstance(report, _PRESENCE) or report in connected.counted:
                by_device[report.device_id].append(report)
        ended = _apply_to_tasks(by_device, recorded, connected, applied, now)
        if busy := _busy_with_others(reports):
            presence.keep_busy(busy, now + life.PUSH_SPACING)
        dynamic.enrol(informed, now, applied, ended=ended, connected=connected.up)
        moves.add_counts(applied.counts)
        counters.add_versions(recorded.counts)
    return applied


def _busy_with_others(reports: Sequence[Report]) -> dict[int, str]:
    """{device: module} of those whose last word is a step, and which have no pushed task that it is about.

    A second copy of an update that another copy has brought to its end already is still running there.
    """
    last: dict[int, Inform | Step] = {r.device_id: r for r in reports if isinstance(r, Inform | Step)}
    steps = {pk: r.module for pk, r in last.items() if isinstance(r, Step) and 0 <= r.step < 100}
    if not steps:
        return {}
    known = UpdateTask.objects.active().filter(device__in=steps, pushed_at__isnull=False)
    about = set(known.values_list("device_id", flat=True))
    return {pk: module or DEFAULT_MODULE for pk, module in steps.items() if pk not in about}


def _may_start_or_park(report: Report) -> bool:
    return not isinstance(report, Step) or report.step < 0


def _apply_to_tasks(
    by_device: dict[int, list[Report]],
    recorded: Recorded,
    connected: Changes,
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
        over = _past({pk: by_device[pk] for pk in pending}, recorded.changed, active)
        feed = _Feed(states, by_device, recorded, connected)
        for state in states:
            feed.into(state)
        asked = {(state.device_id, state.module, state.to_version) for state in states}
        for state in over:
            for report in by_device[state.device_id]:
                _feed_past(state, report, asked, is_active=state.device_id in active)
        missed = settle(states, now, applied) | (settle(over, now, applied) - active)
        # The target of a pushed task counts at once: the device was waited for to say it.
        versions.settle(
            {
                (state.device_id, state.module)
                for state in states
                if state.status == TaskStatus.SUCCEEDED and state.was_pushed and state.device_id not in missed
            },
            now,
        )
        ended |= {
            state.device_id
            for state in states
            if state.device_id not in missed and state.status in FINAL and state.status_before not in FINAL
        }
        pending = missed
    if pending:
        raise ContendedError(f"tasks of {len(pending)} devices")
    return ended


class _Feed:
    """Reports, in arrival order, into the active tasks of their devices."""

    def __init__(
        self,
        states: Sequence[State],
        by_device: dict[int, list[Report]],
        recorded: Recorded,
        connected: Changes,
    ) -> None:
        self._by_device, self._recorded, self._connected = by_device, recorded, connected
        self._rows = DevicePresence.objects.in_bulk({state.device_id for state in states})
        self._seen = versions.seen_before(
            {
                (state.device_id, state.module, state.pushed_at)
                for state in states
                if state.pushed_at is not None
                and any(
                    isinstance(report, Inform)
                    and report.version != state.to_version
                    and not state.is_source(report.version)
                    for report in by_device[state.device_id]
                )
            }
        )

    def into(self, state: State) -> None:
        """A module that is not the task's concerns it not; what comes after its end is only kept."""
        row = self._rows.get(state.device_id)
        connected_at = row.connected_at if row else None
        connected_at = self._connected.connected_before.get(state.device_id, connected_at)
        for report in self._by_device[state.device_id]:
            if isinstance(report, Up | Heard):
                connected_at = report.at
            if not state.is_active:
                if isinstance(report, Inform | Step):
                    _feed_past(state, report, set(), is_active=False)
            elif isinstance(report, Up):
                life.on_up(state, report.at, is_ours=report in self._connected.renewed)
            elif isinstance(report, Down):
                life.on_down(state, report.at)
            elif isinstance(report, Heard):
                life.on_heard(state, report.at, self._connected.before.get(report))
            elif isinstance(report, Step):
                if report.module in (None, state.module):
                    life.on_step(state, report.step, report.detail, report.at)
            elif report.module == state.module:
                self._inform(state, report, connected_at, row)

    def _inform(
        self, state: State, report: Inform, connected_at: datetime | None, row: DevicePresence | None
    ) -> None:
        running = self._recorded.running.get((report.device_id, report.module))
        seen: set[str] = set()
        if state.pushed_at is not None:
            seen = self._seen.get((state.device_id, state.module, state.pushed_at), seen)
        life.on_inform(
            state,
            report.version,
            report.at,
            connected_at,
            is_settled=(
                running is not None and running.version == report.version and running.is_settled(report.at)
            ),
            was_seen=report.version in seen,
            asks=row is not None and row.channel in ASKING,
        )


def _past(
    by_device: Mapping[int, Sequence[Report]], changed: Collection[versions.Key], active: Collection[int]
) -> list[State]:
    """Tasks that are over and that these reports may concern.

    A step of a device that does nothing belongs to the last one. A changed version may finish every earlier
    one late, and may be a reversion of the last that succeeded.
    """
    stepping, informed = set(), defaultdict(set)
    for pk, reports in by_device.items():
        for report in reports:
            if isinstance(report, Step) and pk not in active:
                stepping.add(pk)
            elif isinstance(report, Inform) and (pk, report.module) in changed:
                informed[pk, report.module].add(report.version)
    devices = stepping | {pk for pk, _ in informed}
    if not devices:
        return []
    rows = UpdateTask.objects.over_and_known().filter(device__in=devices).order_by("id")
    last: dict[versions.Key, int] = {}
    last_success: dict[versions.Key, int] = {}
    late: set[int] = set()
    for pk, device, module, status, is_late, target in rows.values_list(
        "id", "device_id", "module", "status", "is_late", "to_version"
    ):
        key = (device, module)
        if device in stepping:
            last[key] = pk
        if status == TaskStatus.SUCCEEDED or is_late:
            last_success[key] = pk
        elif target in informed.get(key, ()):
            late.add(pk)
    reverting = {pk for key, pk in last_success.items() if key in informed}
    return moves.read(UpdateTask.objects.filter(id__in=late | reverting | set(last.values())))


def _feed_past(
    state: State, report: Report, asked: Collection[tuple[int, str, str]], *, is_active: bool
) -> None:
    """One report onto a task that is over; while the device has its next task steps concern that one."""
    if isinstance(report, Inform):
        if report.module == state.module and (
            report.version == state.to_version or (state.device_id, state.module, report.version) not in asked
        ):
            life.on_version_after_end(state, report.version, report.at)
    elif isinstance(report, Step) and not is_active and report.module in (None, state.module):
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
    reserved = {state.device_id: state.module for state in states if state.reserve and state.id in written}
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
    wish = now if state.pushed_at is None else now + life.WORD_WITHIN
    return max(wish, state.due_at or wish)
