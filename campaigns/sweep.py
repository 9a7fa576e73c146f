"""What time itself brings: silence, unconfirmed pushes, stray versions, finished campaigns. Run by ticks.

Each function handles a bounded chunk and may overlap itself: what two sweepers decide about the same row,
one of them writes.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from campaigns import dynamic, life, moves, reports
from campaigns.applied import Applied
from campaigns.life import ACKNOWLEDGE_WITHIN, MAX_RETURNS, State
from campaigns.models import Campaign, UpdateTask
from campaigns.states import (
    FINAL,
    OPEN,
    UPDATING,
    CampaignStatus,
    Policy,
    Reason,
    TaskStatus,
)
from devices import presence, sql, versions
from devices.models import DevicePresence

CHUNK = 1000


def sweep(now: datetime | None = None, *, limit: int = CHUNK) -> set[int]:
    """Time out the silent, push again the unacknowledged, judge stray versions; the campaigns touched."""
    now = now or timezone.now()
    lower_ghosts(limit)
    due = list(_due(now)[:limit])
    if not due:
        return set()
    applied = Applied()
    with transaction.atomic():
        tasks = UpdateTask.objects.filter(id__in=due)
        presence.lock(list(tasks.values_list("device_id", flat=True)))
        states = moves.read(tasks)
        devices = [state.device_id for state in states]
        online = set(DevicePresence.objects.online(now).filter(pk__in=devices).values_list("pk", flat=True))
        running = versions.current(devices)
        for state in states:
            _judge(state, now, state.device_id in online, running.get((state.device_id, state.module)))
        missed = reports.settle(states, now, applied)
        ended = [s.device_id for s in states if s.status in FINAL and s.device_id not in missed]
        dynamic.enrol([], now, applied, ended=ended)
        moves.add_counts(applied.counts)
    return applied.campaigns


def _due(now: datetime) -> "QuerySet[UpdateTask, int]":
    # Read through the (campaign, status, id) index: no index of its own has to follow every report.
    tasks = UpdateTask.objects.filter(campaign__in=Campaign.objects.running().values("id"))
    silent = Q(pk__in=[])
    timeouts = Campaign.objects.running().order_by().values_list("timeout_minutes", flat=True).distinct()
    for minutes in timeouts:
        if minutes is not None:
            silent |= Q(campaign__timeout_minutes=minutes, active_at__lte=now - timedelta(minutes=minutes))
    updating = Q(status__in=UPDATING) & (
        Q(acknowledged_at__isnull=True, status=TaskStatus.NOTIFIED, pushed_at__lte=now - ACKNOWLEDGE_WITHIN)
        | Q(stray_until__lte=now)
        | silent
    )
    returned_too_often = Q(status=TaskStatus.QUEUED, ready_at__lte=now, returns__gt=MAX_RETURNS)
    return tasks.filter(updating | returned_too_often).values_list("id", flat=True)


def _judge(state: State, now: datetime, is_online: bool, running: str | None) -> None:
    if state.status == TaskStatus.QUEUED:
        if state.returns > MAX_RETURNS and state.ready_at and state.ready_at <= now:
            life.fail(state, now, Reason.ROLLED_BACK)
        return
    if state.status not in UPDATING:
        return
    if state.stray_until and state.stray_until <= now:
        life.on_stray_due(state, now, running)
    if state.status not in UPDATING:
        return
    minutes = state.timeout_minutes
    if minutes is not None and state.active_at and state.active_at <= now - timedelta(minutes=minutes):
        life.on_silence(state, now, is_online=is_online)
    elif (
        state.status == TaskStatus.NOTIFIED
        and state.acknowledged_at is None
        and state.pushed_at
        and state.pushed_at <= now - ACKNOWLEDGE_WITHIN
    ):
        life.on_unacknowledged(state, now)


def lower_ghosts(limit: int = CHUNK) -> int:
    """Devices of an earlier broker life that never said goodbye go down now."""
    ghosts = presence.ghosts(limit)
    if ghosts:
        reports.apply(ghosts)
    return len(ghosts)


def finish(now: datetime | None = None) -> set[int]:
    """Complete campaigns that have nothing left to do."""
    now = now or timezone.now()
    unfinished = UpdateTask.objects.filter(campaign=OuterRef("pk"), status__in=OPEN)
    done = (
        Campaign.objects.running()
        .filter(expanded_at__isnull=False)
        .filter(~Q(policy=Policy.DYNAMIC) | Q(matching_stopped_at__isnull=False))
        .filter(~Exists(unfinished))
    )
    ids = list(done.values_list("id", flat=True))
    return {
        pk
        for pk in ids
        if done.filter(pk=pk).update(status=CampaignStatus.COMPLETED, finished_at=now, is_paused=False)
    }


def cancel_some(campaign: Campaign, now: datetime, *, limit: int = CHUNK) -> bool:
    """Cancel a chunk of what a running cancel still has to end; False when nothing is left."""
    with transaction.atomic():
        tasks = UpdateTask.objects.filter(campaign=campaign, status__in=campaign.canceling).order_by("id")
        ids = list(tasks.values_list("id", "device_id")[:limit])
        if not ids:
            return False
        presence.lock([device for _, device in ids])
        states = moves.read(UpdateTask.objects.filter(id__in=[pk for pk, _ in ids]))
        for state in states:
            if state.status in campaign.canceling:
                life.cancel(state, now)
        applied = Applied()
        missed = reports.settle(states, now, applied)
        dynamic.enrol([], now, applied, ended=[s.device_id for s in states if s.device_id not in missed])
        moves.add_counts(applied.counts)
    return True


def resume_cancels(now: datetime | None = None, *, chunks: int = 20) -> set[int]:
    """Go on with cancels that were cut off or are too large for one request."""
    now = now or timezone.now()
    touched = set()
    for campaign in Campaign.objects.exclude(canceling=[]):
        touched.add(campaign.pk)
        for _ in range(chunks):
            if not cancel_some(campaign, now):
                Campaign.objects.filter(pk=campaign.pk).update(canceling=[])
                break
    return touched


def remove_devices(device_ids: Iterable[int], now: datetime | None = None) -> set[int]:
    """End the open tasks of devices that were removed."""
    now = now or timezone.now()
    applied = Applied()
    for ids in sql.chunks(sorted(set(device_ids))):
        with transaction.atomic():
            presence.lock(list(ids))
            states = moves.read(UpdateTask.objects.filter(device__in=ids, status__in=OPEN))
            for state in states:
                state.move(TaskStatus.FAILED, now, reason=Reason.DEVICE_REMOVED.value)
                state.reason, state.ready_at = Reason.DEVICE_REMOVED.value, None
            applied.counts.clear()
            reports.settle(states, now, applied)
            moves.add_counts(applied.counts)
    return applied.campaigns
