"""Starting tasks: a launch, a scheduled time, an "update again". The one place that decides who is busy.

Each chunk is one transaction that locks the devices' presence rows in id order, gives a task to those
without an active one and fails the others with CONFLICT. A repeated chunk skips devices that already have
their task, so an expansion may be cut off anywhere and resumed behind its cursor.

Locks are taken in the order campaign, presence rows by id, tasks, counters by key. The campaign's is the
kind that lets others insert rows that refer to it: they hold presence rows while they do.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from campaigns import life, moves, reports, selection
from campaigns.life import Event
from campaigns.models import Campaign, UpdateTask
from campaigns.selection import Stretch
from campaigns.states import (
    ACTIVE,
    Busy,
    CampaignStatus,
    EventKind,
    Policy,
    Reason,
    TaskStatus,
)
from devices import presence, sql
from devices.models import Channel, Device

CHUNK = 5000


def expand(
    campaign_id: int, now: datetime | None = None, *, chunk: int = CHUNK, max_chunks: int = 10_000
) -> bool:
    """Give every covered device its task; True when none is left. Resumes behind the stored cursor."""
    return any(_expand_chunk(campaign_id, now or timezone.now(), chunk) for _ in range(max_chunks))


def _expand_chunk(campaign_id: int, now: datetime, size: int) -> bool:
    with transaction.atomic():
        campaign = (
            Campaign.objects.unexpanded()
            .select_for_update(of=("self",), no_key=True)
            .select_related("firmware", "product")
            .filter(pk=campaign_id)
            .first()
        )
        if campaign is None:
            return True
        stretch = selection.next_stretch(campaign, size)
        if stretch is None:
            Campaign.objects.filter(pk=campaign.pk).update(expanded_at=now)
            return True
        counts: Counter[tuple[int, str]] = Counter()
        starts = campaign.status == CampaignStatus.IN_PROGRESS
        if starts:
            presence.hold(selection.presence_of(campaign, stretch))
            if campaign.busy == Busy.REPLACE:
                covered = selection.of_campaign(campaign, stretch)
                counts.update(replace_waiting(campaign, covered.values("id"), now))
        for status, tasks in _insert(campaign, stretch, now, starts=starts).items():
            counts[campaign.pk, status] += tasks
        Campaign.objects.filter(pk=campaign.pk).update(cursor=stretch.last)
        moves.add_counts(counts)
    return False


def _insert(campaign: Campaign, stretch: Stretch, now: datetime, *, starts: bool) -> Counter[str]:
    """INSERT … SELECT from the selection: (status: rows) really inserted."""
    firmware = campaign.firmware
    devices = selection.of_campaign(campaign, stretch).values("id")
    inner, inner_parameters = devices.query.sql_with_params()
    due_at = now if starts else campaign.schedule_at
    # A dynamic campaign takes a busy device in when its task ends.
    taken = "TRUE"
    if starts:
        # An online device is ready at once, or when its reservation ends; an offline one is parked.
        ready = (
            "CASE WHEN p.is_up AND p.channel = %s "
            "AND p.epoch = (SELECT epoch FROM devices_brokerepoch WHERE id = 1) "
            "THEN CASE WHEN p.reserved_until > %s THEN p.reserved_until ELSE %s END END"
        )
        is_busy = "a.id IS NOT NULL"
        if campaign.policy == Policy.DYNAMIC:
            taken, is_busy = "a.id IS NULL", "FALSE"
        status = f"CASE WHEN {is_busy} THEN 'FAILED' ELSE 'QUEUED' END"
        reason = f"CASE WHEN {is_busy} THEN 'CONFLICT' ELSE '' END"
        ready_at = f"CASE WHEN {is_busy} THEN NULL ELSE {ready} END"
        ready_parameters = [Channel.MQTT.value, now, now]
    else:
        status, reason, ready_at, ready_parameters = "'SCHEDULED'", "''", "NULL", []
    statement = f"""
        INSERT INTO campaigns_updatetask (
            campaign_id, device_id, firmware_id, module, lane, match_number, from_version, to_version, status,
            progress, reason, detail, attempt, returns, due_at, ready_at, is_late, is_reverted, downloads,
            created_at, changed_at)
        SELECT %s, s.id, %s, %s, '', 1, COALESCE(d.version, ''), %s, {status},
            0, {reason}, '', 1, 0, %s, {ready_at}, %s, %s, 0,
            %s, %s
        FROM ({inner}) s
        JOIN devices_devicepresence p
            ON p.device_id = s.id AND p.device_id > %s AND p.device_id <= %s
        LEFT JOIN devices_deviceversion d
            ON d.device_id = s.id AND d.module = %s AND d.device_id > %s AND d.device_id <= %s
        LEFT JOIN campaigns_updatetask a
            ON a.device_id = s.id AND a.lane = '' AND a.device_id > %s AND a.device_id <= %s
            AND a.status IN ('CONFIRM', 'QUEUED', 'NOTIFIED', 'IN_PROGRESS')
        WHERE {taken}
        ON CONFLICT (campaign_id, device_id, module, match_number) DO NOTHING
        RETURNING id, status
    """  # noqa: S608  (the pieces are ours; values are parameters)
    rows = sql.execute(
        statement,
        [
            campaign.pk,
            firmware.pk,
            firmware.module,
            firmware.version,
            due_at,
            *ready_parameters,
            False,
            False,
            now,
            now,
            *inner_parameters,
            *stretch,
            firmware.module,
            *stretch,
            *stretch,
        ],
    )
    moves.add_events(
        [(task, conflict_event("", now)) for task, status in rows if status == TaskStatus.FAILED.value]
    )
    return Counter(status for _, status in rows)


def conflict_event(before: str, now: datetime) -> Event:
    return Event(
        EventKind.MOVED, now, before=before, after=TaskStatus.FAILED.value, reason=Reason.CONFLICT.value
    )


def replace_waiting(
    campaign: Campaign, device_ids: Sequence[int] | QuerySet[Device, Any], now: datetime
) -> Counter[tuple[int, str]]:
    """Cancel older campaigns' tasks of these devices that only wait; the caller holds the presence rows.

    To replace is an act of the launch: what was launched after it is newer than the operator's wish.
    The differences are returned, because counters are written last.
    """
    waiting = (TaskStatus.QUEUED, TaskStatus.CONFIRM)
    tasks = UpdateTask.objects.filter(device__in=device_ids, status__in=waiting, campaign__lt=campaign)
    states = moves.read(tasks)
    for state in states:
        life.cancel(state, now, detail=str(campaign))
    moved, counts = moves.write(states, now)
    reserved = {s.device_id: s.module for s in states if s.reserve and s.id in moved}
    presence.reserve(reserved, now + life.RESERVE)
    return counts


def start_scheduled(campaign_id: int, now: datetime | None = None, *, chunk: int = CHUNK) -> bool:
    """Start SCHEDULED tasks of a campaign whose time has come, a chunk at a time; True when none is left."""
    now = now or timezone.now()
    Campaign.objects.due(now).filter(pk=campaign_id).update(status=CampaignStatus.IN_PROGRESS, started_at=now)
    while (campaign := Campaign.objects.running().filter(pk=campaign_id).first()) is not None:
        tasks = UpdateTask.objects.filter(campaign=campaign, status=TaskStatus.SCHEDULED).order_by("id")
        devices = list(tasks.values_list("device_id", flat=True)[:chunk])
        if not devices:
            return True
        start(campaign, devices, now, [TaskStatus.SCHEDULED])
    return True


def start(
    campaign: Campaign,
    device_ids: Sequence[int],
    now: datetime,
    before: Sequence[TaskStatus],
    *,
    task_ids: Sequence[int] | None = None,
) -> set[int]:
    """Queue these devices' tasks that are in one of the `before` statuses; a busy device's task conflicts.

    Each device's last task in the campaign is meant, or its last among `task_ids`. Returns the ids of the
    tasks that moved. Used at the scheduled time and by "update again".
    """
    with transaction.atomic():
        # Running, and held so until the tasks are there: else it could be completed in between.
        unlocked = Campaign.objects.filter(pk=campaign.pk)
        if TaskStatus.SCHEDULED in before:
            if unlocked.running().select_for_update(no_key=True).first() is None:
                return set()
        else:
            unlocked.update(status=CampaignStatus.IN_PROGRESS, finished_at=None)
        rows = presence.lock(device_ids)
        counts: Counter[tuple[int, str]] = Counter()
        if TaskStatus.SCHEDULED in before and campaign.busy == Busy.REPLACE:
            counts.update(replace_waiting(campaign, device_ids, now))
        states = []
        tasks = UpdateTask.objects.filter(campaign=campaign, device__in=rows)
        if task_ids is not None:
            tasks = tasks.filter(id__in=task_ids)
        latest = tasks.values("device").annotate(last=Max("id")).values_list("last", flat=True)
        busy = set(
            UpdateTask.objects.filter(device__in=rows, status__in=ACTIVE).values_list("device_id", flat=True)
        )
        present = set(Device.objects.present().filter(pk__in=rows).values_list("pk", flat=True))
        for state in moves.read(UpdateTask.objects.filter(id__in=list(latest), status__in=before)):
            if state.device_id not in present:
                if state.status == TaskStatus.SCHEDULED:
                    life.removed(state, now)
                    states.append(state)
                continue
            if state.device_id in busy:
                if state.status == TaskStatus.SCHEDULED:
                    state.move(TaskStatus.FAILED, now, reason=Reason.CONFLICT.value)
                    state.reason = Reason.CONFLICT.value
                    states.append(state)
                continue
            life.again(state, now)
            states.append(state)
        reports.park([state for state in states if state.status == TaskStatus.QUEUED])
        moved, moved_counts = moves.write(states, now)
        if TaskStatus.SCHEDULED not in before:
            # A link of the life before stays dead.
            for ids in sql.chunks(sorted(moved)):
                UpdateTask.objects.filter(id__in=ids).update(restarted_at=now)
        counts.update(moved_counts)
        moves.add_counts(counts)
    return moved
