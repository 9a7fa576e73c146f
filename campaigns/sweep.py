"""What time itself brings: silence, unconfirmed pushes, stray versions, finished campaigns. Run by ticks.

Each function handles a bounded chunk and may overlap itself: what two sweepers decide about the same row,
one of them writes.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from campaigns import dynamic, life, moves, reports
from campaigns.applied import Applied
from campaigns.life import ACKNOWLEDGE_WITHIN, MAX_RETURNS, State
from campaigns.models import AWAITED, JUDGED, READY, Campaign, UpdateTask, UpdateTaskQuerySet
from campaigns.states import (
    FINAL,
    OPEN,
    UPDATING,
    WAITING,
    CampaignStatus,
    Policy,
    Reason,
    TaskStatus,
)
from devices import presence, versions
from devices.models import DevicePresence, DeviceVersion
from devices.versions import Running

CHUNK = 1000
# An enrolment does not lock its campaign: one that began before the campaign ended commits within this time.
ENROLMENT = timedelta(minutes=1)


def sweep(now: datetime | None = None, *, limit: int = CHUNK) -> set[int]:
    """Time out the silent, push again the unacknowledged, judge versions; the campaigns touched."""
    now = now or timezone.now()
    lower_ghosts(limit)
    due = [*_silent(now)[:limit], *_undecided(now)[:limit], *_to_judge(now)[:limit], *_awaited(now)[:limit]]
    return _decide(due, now) | _enrol_settled(now, limit)


def end_waits(now: datetime | None = None, *, limit: int = CHUNK) -> set[int]:
    """Queue again the devices that came back in mid-update and gave no word; the campaigns touched."""
    now = now or timezone.now()
    return _decide(list(_awaited(now)[:limit]), now)


def _decide(task_ids: Sequence[int], now: datetime) -> set[int]:
    if not task_ids:
        return set()
    applied = Applied()
    with transaction.atomic():
        tasks = UpdateTask.objects.filter(id__in=task_ids)
        presence.lock(list(tasks.values_list("device_id", flat=True)))
        states = moves.read(tasks)
        devices = [state.device_id for state in states]
        online = set(DevicePresence.objects.online(now).filter(pk__in=devices).values_list("pk", flat=True))
        rows = DevicePresence.objects.in_bulk(devices)
        running = versions.running(devices)
        asked = _asked_later([state for state in states if state.status in FINAL])
        for state in states:
            runs = running.get((state.device_id, state.module))
            if state.stray_until and state.stray_until <= now:
                version, since = (runs.version, runs.changed_at) if runs else (None, None)
                life.on_judgement(state, now, version, since, was_asked=(state.id, version) in asked)
            if state.status == TaskStatus.QUEUED:
                _decide_queued(state, now)
            elif state.status in UPDATING:
                row = rows.get(state.device_id)
                connected_at = row.connected_at if row else None
                _decide_updating(state, now, runs, connected_at, is_online=state.device_id in online)
        missed = reports.settle(states, now, applied)
        ended = [
            s.device_id
            for s in states
            if s.status in FINAL and s.status_before not in FINAL and s.device_id not in missed
        ]
        dynamic.enrol([], now, applied, ended=ended)
        moves.add_counts(applied.counts)
    return applied.campaigns


def _enrol_settled(now: datetime, limit: int) -> set[int]:
    """Versions that stood long enough since their report: dynamic batches may match them now."""
    if not DeviceVersion.objects.filter(settles_at__lte=now).exists():
        return set()
    applied = Applied()
    with transaction.atomic():
        dynamic.enrol(versions.take_settled(now, limit), now, applied)
        moves.add_counts(applied.counts)
    return applied.campaigns


def _silent(now: datetime) -> "QuerySet[UpdateTask, int]":
    # Read through the (campaign, status, id) index: no index of its own has to follow every report.
    silent = Q(pk__in=[])
    timeouts = Campaign.objects.running().order_by().values_list("timeout_minutes", flat=True).distinct()
    for minutes in timeouts:
        if minutes is not None:
            silent |= Q(campaign__timeout_minutes=minutes, active_at__lte=now - timedelta(minutes=minutes))
    unacknowledged = Q(
        acknowledged_at__isnull=True, status=TaskStatus.NOTIFIED, pushed_at__lte=now - ACKNOWLEDGE_WITHIN
    )
    return _of_running(Q(status__in=UPDATING) & (unacknowledged | silent))


def _undecided(now: datetime) -> "QuerySet[UpdateTask, int]":
    # Read through the claim's index: these are ready, and the claim leaves them.
    return _of_running(READY & Q(ready_at__lte=now, returns__gt=MAX_RETURNS))


def _awaited(now: datetime) -> "QuerySet[UpdateTask, int]":
    return _of_running(AWAITED & Q(ready_at__lte=now))


def _to_judge(now: datetime) -> "QuerySet[UpdateTask, int]":
    """A version is judged on the time that it stood, whether its device is online or not."""
    running = Campaign.objects.running().order_by().values("id")
    due = UpdateTask.objects.filter(JUDGED, stray_until__lte=now)
    return due.filter(Q(status__in=FINAL) | Q(campaign__in=running)).values_list("id", flat=True)


def _of_running(condition: Q) -> "QuerySet[UpdateTask, int]":
    running = Campaign.objects.running().order_by().values("id")
    return UpdateTask.objects.filter(condition, campaign__in=running).values_list("id", flat=True)


def _asked_later(states: Sequence[State]) -> set[tuple[int, str | None]]:
    """{(task id, version)}: a newer task of the same device and module asked for that version."""
    if not states:
        return set()
    newer = UpdateTask.objects.filter(device__in=[state.device_id for state in states])
    told = newer.filter(Q(pushed_at__isnull=False) | Q(attempt__gt=1) | Q(status=TaskStatus.SUCCEEDED))
    rows = list(told.values_list("id", "device_id", "module", "to_version"))
    return {
        (state.id, version)
        for state in states
        for pk, device, module, version in rows
        if pk > state.id and (device, module) == (state.device_id, state.module)
    }


def _decide_queued(state: State, now: datetime) -> None:
    if state.ready_at and state.ready_at <= now and state.returns > MAX_RETURNS:
        life.fail(state, now, Reason.ROLLED_BACK)


def _decide_updating(
    state: State, now: datetime, runs: Running | None, connected_at: datetime | None, *, is_online: bool
) -> None:
    minutes = state.timeout_minutes
    if minutes is not None and state.active_at and state.active_at <= now - timedelta(minutes=minutes):
        life.on_silence(state, now, is_online=is_online)
    elif state.status == TaskStatus.IN_PROGRESS:
        # A version that has still to be judged is waited for.
        if state.ready_at and state.ready_at <= now and state.stray_until is None:
            is_settling = runs is not None and not runs.is_settled(now)
            life.on_word_missing(state, now, connected_at, is_settling=is_settling)
    elif state.acknowledged_at is None and state.pushed_at and state.pushed_at <= now - ACKNOWLEDGE_WITHIN:
        life.on_unacknowledged(state, now)


def lower_ghosts(limit: int = CHUNK, *, chunks: int = 20) -> None:
    """Devices of an earlier broker life that never said goodbye go down now."""
    for _ in range(chunks):
        ghosts = presence.ghosts(limit)
        if ghosts:
            reports.apply(ghosts)
        if len(ghosts) < limit:
            return


def finish(now: datetime | None = None) -> set[int]:
    """Complete campaigns that have nothing left to do."""
    now = now or timezone.now()
    unfinished = UpdateTask.objects.filter(campaign=OuterRef("pk"), status__in=OPEN)
    done = (
        Campaign.objects.running()
        .filter(expanded_at__isnull=False)
        .filter(~Q(policy=Policy.DYNAMIC) | Q(matching_stopped_at__lte=now - ENROLMENT))
        .filter(~Exists(unfinished))
    )
    completed = set()
    for pk in list(done.values_list("id", flat=True)):
        with transaction.atomic():
            # An "update again" holds this lock while it queues tasks: then ask once more.
            Campaign.objects.select_for_update(no_key=True).get(pk=pk)
            if done.filter(pk=pk).update(status=CampaignStatus.COMPLETED, finished_at=now, is_paused=False):
                completed.add(pk)
    return completed


def cancel_some(campaign: Campaign, now: datetime, touched: set[int], *, limit: int = CHUNK) -> bool:
    """Cancel a chunk of what a running cancel still has to end; False when nothing is left.

    The campaigns with news are added to `touched`.
    """
    return _cancel_unpushed(campaign, now, touched, limit * 5) or _cancel_pushed(
        campaign, now, touched, limit
    )


def _cancel_unpushed(campaign: Campaign, now: datetime, touched: set[int], limit: int) -> bool:
    """Those whose device knows nothing of them: no word of it can be on its way, so one statement does."""
    for status in sorted(WAITING.intersection(campaign.canceling)):
        with transaction.atomic():
            tasks = UpdateTask.objects.filter(campaign=campaign, status=status, pushed_at__isnull=True)
            found = list(tasks.order_by("id").values_list("id", "device_id")[:limit])
            if not found:
                continue
            devices = DevicePresence.objects.filter(pk__in=[device for _, device in found])
            presence.hold(devices.order_by("device_id"))
            moved = moves.cancel_unpushed([pk for pk, _ in found], TaskStatus(status), now)
            applied = Applied()
            applied.counts.update({(campaign.pk, status): -len(moved)})
            applied.counts.update({(campaign.pk, TaskStatus.CANCELED.value): len(moved)})
            dynamic.enrol([], now, applied, ended=[device for pk, device in found if pk in moved])
            moves.add_counts(applied.counts)
        touched |= {campaign.pk} | applied.campaigns
        return True
    return False


def _cancel_pushed(campaign: Campaign, now: datetime, touched: set[int], limit: int) -> bool:
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
    touched |= {campaign.pk} | applied.campaigns
    return True


def resume_cancels(now: datetime | None = None, *, chunks: int = 40, only: int | None = None) -> set[int]:
    """Go on with cancels (or with the `only` one) that were cut off or are too large for one request.

    Returns the campaigns with news: those canceled, and dynamic ones that took their devices in.
    """
    now = now or timezone.now()
    touched: set[int] = set()
    canceling = Campaign.objects.exclude(canceling=[])
    for campaign in canceling if only is None else canceling.filter(pk=only):
        for _ in range(chunks):
            if not cancel_some(campaign, now, touched):
                if campaign.finished_at is None or campaign.finished_at <= now - ENROLMENT:
                    # Unless a wider cancel was asked for meanwhile.
                    same = Campaign.objects.filter(pk=campaign.pk, canceling=campaign.canceling)
                    same.update(canceling=[])
                break
    return touched


def end_open(
    tasks: UpdateTaskQuerySet, end: Callable[[State, datetime], None], now: datetime, applied: Applied
) -> list[State]:
    """End those of these tasks that are open, whatever a dispatcher does with them meanwhile.

    The caller holds the presence rows, and writes `applied.counts` last.
    """
    ended: list[State] = []
    for _ in range(reports.ATTEMPTS):
        states = moves.read(tasks.open())
        for state in states:
            end(state, now)
        missed = reports.settle(states, now, applied)
        ended += [state for state in states if state.device_id not in missed]
        if not missed:
            return ended
    raise reports.ContendedError(f"tasks of {len(missed)} devices")
