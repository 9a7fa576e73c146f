"""Server to device: claim what may go now, hand it to the broker, stamp what the broker took.

A claim commits before its message leaves, so a crash between the two costs a second push and never a lost
task: `sweep` makes an unacknowledged push again. NOTIFIED means handed to the broker.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from campaigns import dynamic, life, moves, unreached, wire
from campaigns.life import MAX_RETURNS, PUSH_SPACING, Event, State
from campaigns.models import Campaign, UpdateTask, UpdateTaskQuerySet
from campaigns.states import FINAL, UPDATING, EventKind, Reason, TaskStatus
from devices import sql, topics, versions
from devices.models import ASKING, Channel, Device, DevicePresence
from devices.mqtt import Delivery
from devices.presence import online_time
from devices.versions import SETTLE
from firmware.errors import FileUnavailableError
from firmware.links import make_link
from firmware.models import Firmware, FirmwareFile, SignMethod
from firmware.services import find_files, verify_files
from firmware.signing import digestsign

logger = logging.getLogger(__name__)

CLAIM = 1000
# Claims of one campaign in one run: the others, and the next tick's expiry, do not wait for a million.
ROUNDS = 20
Send = Callable[[Sequence[tuple[str, bytes]]], Sequence[int]]  # of `devices.mqtt.Delivery`


@dataclass(frozen=True, slots=True)
class Push:
    """One device to be told of one package."""

    task_id: int
    device_id: int
    product_key: str
    device_name: str
    package: wire.Package
    url: str
    # When it was handed over first: a copy within the spacing is the same message with the same link.
    at: datetime


def open_campaigns(now: datetime) -> list[Campaign]:
    """Campaigns with something that may be pushed now; the gates that concern a whole campaign."""
    ready = UpdateTask.objects.filter(
        campaign=OuterRef("pk"), status=TaskStatus.QUEUED, ready_at__isnull=False, ready_at__lte=now
    )
    return list(
        Campaign.objects.running()
        .filter(Exists(ready), is_paused=False)
        .select_related("firmware", "product")
        .order_by("id")
    )


def dispatch(
    send: Send,
    now: datetime | None = None,
    *,
    limit: int = CLAIM,
    rounds: int = ROUNDS,
    is_ready: Callable[[], bool] = lambda: True,
) -> set[int]:
    """Push the ready tasks of each open campaign, `limit` at a time; the campaigns in which something moved.

    `send` publishes (topic, payload) pairs and tells for each what the broker said of it: Delivery. Nothing
    is claimed unless `is_ready`. Safe to run in any number of workers at once: a row is claimed by exactly
    one. A campaign that cannot be pushed does not hold up the others.
    """
    touched: set[int] = set()
    waiting = open_campaigns(now or timezone.now())
    if not waiting or not is_ready():
        return touched
    for _ in range(rounds):
        full = []
        for campaign in waiting:
            try:
                moved, is_full = _dispatch_some(campaign, send, now or timezone.now(), limit)
            except Exception:
                logger.exception("campaign %s: could not be pushed", campaign.pk)
                continue
            if moved:
                touched.add(campaign.pk)
            if is_full:
                full.append(campaign)
        waiting = full
    return touched


def _dispatch_some(campaign: Campaign, send: Send, now: datetime, limit: int) -> tuple[bool, bool]:
    """Whether something moved, and whether more may wait behind it."""
    if not has_files(campaign, now):
        return True, False
    parts = _parts(campaign.firmware)
    # What no device could read is noticed before anything is claimed.
    wire.push_payload(parts.package, url=make_link(campaign.pk, parts.file, now), now_ms=0)
    claimed = claim(campaign, now, limit)
    if claimed is None:
        return False, False
    pushes = _pushes(parts, [(task, device, now) for task, device in claimed])
    taken = send([(topics.upgrade(p.product_key, p.device_name), _payload(p)) for p in pushes])
    said = [(push.task_id, each) for push, each in zip(pushes, taken, strict=True)]
    acknowledge([pk for pk, each in said if each == Delivery.TAKEN], now)
    unreached.put_back([pk for pk, each in said if each == Delivery.NO_SUBSCRIBER], now)
    return True, len(claimed) == limit and all(taken)


def _payload(push: Push) -> bytes:
    return wire.push_payload(push.package, url=push.url, now_ms=int(push.at.timestamp() * 1000))


def has_files(campaign: Campaign, now: datetime) -> bool:
    """Look at the stored file before anything is pushed; without it the campaign stops.

    Before the first push the file is digested, before a later one it must be there in its full length.
    """
    is_checked = campaign.file_checked_at is not None
    try:
        if is_checked:
            find_files(campaign.firmware)
        else:
            verify_files(campaign.firmware)
    except FileUnavailableError as error:
        logger.error("campaign %s: firmware file unavailable: %s", campaign.pk, error)
        stop_for_missing_file(campaign, now)
        return False
    if not is_checked:
        Campaign.objects.filter(pk=campaign.pk).update(file_checked_at=now)
    return True


def stop_for_missing_file(campaign: Campaign, now: datetime) -> None:
    """Fail what waits, a chunk at a time, with FILE_UNAVAILABLE; nothing more is pushed or matched.

    What is updating goes on: its device may have the file already.
    """
    # If the file is put back, it is digested before an "update again" reaches a device.
    Campaign.objects.filter(pk=campaign.pk).update(file_checked_at=None)
    Campaign.objects.matching().filter(pk=campaign.pk).update(matching_stopped_at=now)
    while True:
        with transaction.atomic():
            waiting = UpdateTask.objects.filter(campaign=campaign, status=TaskStatus.QUEUED).order_by("id")
            states = moves.read(waiting[:CLAIM])
            for state in states:
                state.move(TaskStatus.FAILED, now, reason=Reason.FILE_UNAVAILABLE.value)
                state.reason, state.detail = Reason.FILE_UNAVAILABLE.value, ""
                state.ready_at = None
            moved, counts = moves.write(states, now)
            moves.add_counts(counts)
        if not moved:
            return
        dynamic.enrol_ended([state.device_id for state in states if state.id in moved], now)


def _rate(campaign: Campaign, now: datetime) -> Campaign | None:
    """The campaign's row, locked so that workers count exactly, at the minute that counts; None: no limit."""
    if campaign.max_per_minute is None:
        return None
    row = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
    minute = now.replace(second=0, microsecond=0)
    # A worker that is a little behind counts into the minute that another one has begun already.
    if row.rate_minute is None or not minute <= row.rate_minute <= minute + timedelta(minutes=1):
        row.rate_minute, row.rate_used = minute, 0
    return row


def _allowed(rate: Campaign | None, limit: int) -> int:
    if rate is None:
        return limit
    return max(0, min(limit, (rate.max_per_minute or 0) - rate.rate_used))


def _count_rate(rate: Campaign | None, pushed: int) -> None:
    if rate is not None and pushed:
        rate.rate_used += pushed
        rate.save(update_fields=["rate_minute", "rate_used"])


def claim(campaign: Campaign, now: datetime, limit: int = CLAIM) -> list[tuple[int, int]] | None:
    """Take ready tasks of online devices, in one statement: (task id, device id) of those to push.

    The version is looked at once more: a device that is on the target already succeeds, one that left the
    chosen versions fails with NO_LONGER_MATCHES. A version that has not settled decides nothing: the push
    waits for it. None if nothing moved at all.
    """
    with transaction.atomic():
        rate = _rate(campaign, now)
        allowance = _allowed(rate, limit)
        if allowance == 0:
            return None
        rows = _claim_rows(campaign, now, allowance)
        events = []
        counts: dict[tuple[int, str], int] = defaultdict(int)
        pushes, ended = [], []
        for task_id, device_id, status, attempt, source in rows:
            counts[campaign.pk, TaskStatus.QUEUED.value] -= 1
            counts[campaign.pk, status] += 1
            if status == TaskStatus.NOTIFIED:
                pushes.append((task_id, device_id))
            else:
                ended.append(device_id)
            events.append(
                (
                    task_id,
                    Event(
                        EventKind.PUSHED if status == TaskStatus.NOTIFIED else EventKind.MOVED,
                        now,
                        before=TaskStatus.QUEUED.value,
                        after=status,
                        attempt=attempt,
                        reason=Reason.NO_LONGER_MATCHES.value if status == TaskStatus.FAILED else "",
                        version=campaign.firmware.version if status == TaskStatus.SUCCEEDED else source,
                    ),
                )
            )
        moves.add_events(events)
        _count_rate(rate, len(pushes))
        moves.add_counts(counts)
    dynamic.enrol_ended(ended, now)
    return pushes if rows else None


# What our own earlier attempt left on the device is no reason not to try again: the version that it was
# judged for, or the one that it was pushed onto.
_LEFT_BY_US = (
    "(campaigns_updatetask.attempt > 1 AND (due.version = campaigns_updatetask.from_version "
    "OR campaigns_updatetask.reason = 'WRONG_VERSION' AND due.version = campaigns_updatetask.detail))"
)


def _is_left_by_us(task: State, version: str | None) -> bool:
    """`_LEFT_BY_US` for one task."""
    judged = task.detail if task.reason == Reason.WRONG_VERSION else None
    return task.attempt > 1 and version is not None and version in (task.from_version, judged)


def _claim_rows(campaign: Campaign, now: datetime, limit: int) -> list[tuple[int, int, str, int, str]]:
    skip_locked = (
        "FOR UPDATE OF t SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    )
    chosen = _chosen_versions(campaign)
    matches = "TRUE"
    if chosen:
        matches = f"(due.version IN ({', '.join(['%s'] * len(chosen))}) OR {_LEFT_BY_US})"
    # Where the version decides it must have settled; until then the task stays ready, and is looked at again.
    undecided = "FALSE" if chosen else "d.version <> t.to_version"
    outcome = (
        "CASE WHEN due.version = campaigns_updatetask.to_version THEN 'SUCCEEDED' "
        f"WHEN {matches} THEN 'NOTIFIED' ELSE 'FAILED' END"
    )
    statement = f"""
        WITH due AS (
            SELECT t.id AS task_id, d.version AS version
            FROM campaigns_updatetask t
            JOIN campaigns_campaign c ON c.id = t.campaign_id AND c.status = 'in_progress' AND NOT c.is_paused
            JOIN devices_devicepresence p ON p.device_id = t.device_id
            JOIN devices_brokerepoch b ON b.id = 1 AND b.epoch = p.epoch
            JOIN devices_device v ON v.id = t.device_id AND NOT v.is_disabled AND v.removed_at IS NULL
            LEFT JOIN devices_deviceversion d ON d.device_id = t.device_id AND d.module = t.module
            WHERE t.campaign_id = %s AND t.status = 'QUEUED' AND t.ready_at IS NOT NULL AND t.ready_at <= %s
              AND p.is_up AND p.channel = %s AND t.returns <= {MAX_RETURNS} AND t.stray_until IS NULL
              AND (p.reserved_until IS NULL OR p.reserved_until <= %s)
              AND (d.version IS NULL OR d.changed_at <= %s OR {undecided})
              AND NOT EXISTS (
                  SELECT 1 FROM campaigns_updatetask o WHERE o.device_id = t.device_id AND o.pushed_at > %s)
            ORDER BY t.ready_at LIMIT %s {skip_locked}
        )
        UPDATE campaigns_updatetask SET
            status = {outcome},
            progress = CASE WHEN due.version = campaigns_updatetask.to_version THEN 100 ELSE progress END,
            reason = CASE WHEN due.version = campaigns_updatetask.to_version THEN ''
                          WHEN {matches} THEN reason ELSE 'NO_LONGER_MATCHES' END,
            detail = CASE WHEN ({outcome}) = 'NOTIFIED' THEN detail ELSE '' END,
            from_version = CASE WHEN due.version IS NULL OR due.version = campaigns_updatetask.to_version
                                THEN from_version ELSE due.version END,
            pushed_at = CASE WHEN ({outcome}) = 'NOTIFIED' THEN %s ELSE pushed_at END,
            pushes = CASE WHEN ({outcome}) = 'NOTIFIED' THEN pushes + 1 ELSE pushes END,
            stepless = CASE WHEN ({outcome}) = 'NOTIFIED' THEN stepless + 1 ELSE stepless END,
            last_step = NULL, has_returned = FALSE,
            ready_at = NULL, active_at = %s, acknowledged_at = NULL, changed_at = %s
        FROM due WHERE campaigns_updatetask.id = due.task_id AND campaigns_updatetask.status = 'QUEUED'
        RETURNING campaigns_updatetask.id, campaigns_updatetask.device_id, campaigns_updatetask.status,
                  campaigns_updatetask.attempt, campaigns_updatetask.from_version
    """  # noqa: S608  (the pieces are ours; values are parameters)
    return sql.execute(
        statement,
        [
            *(campaign.pk, now, Channel.MQTT.value, now, now - SETTLE, now - PUSH_SPACING, limit),
            *chosen * 4,
            now,
            *chosen * 2,
            *(now, now),
        ],
    )


def _chosen_versions(campaign: Campaign) -> list[str]:
    source = campaign.firmware.source_version
    return [source] if source else list(campaign.source_versions)


def acknowledge(task_ids: Sequence[int], now: datetime) -> None:
    """The broker took these pushes."""
    for ids in sql.chunks(task_ids):
        UpdateTask.objects.filter(
            id__in=ids, status__in=UPDATING, acknowledged_at__isnull=True, pushed_at__lte=now
        ).update(acknowledged_at=now)


def package_of(firmware: Firmware, file: FirmwareFile) -> wire.Package:
    """What the wire says of a firmware."""
    product = firmware.product
    assert product is not None, "a campaign's firmware belongs to a product"
    return wire.Package(
        size=file.size,
        version=firmware.version,
        md5=file.md5,
        sha256=file.sha256,
        sign_method="SHA256" if firmware.sign_method == SignMethod.SHA256 else "Md5",
        module=firmware.module,
        is_diff=bool(firmware.source_version),
        digestsign=digestsign(file, product),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the pushes of a campaign have in common."""

    package: wire.Package
    file: FirmwareFile


def _parts(firmware: Firmware) -> _Parts:
    file = firmware.files.get()
    return _Parts(package_of(firmware, file), file)


def _pushes(parts: _Parts, claimed: Sequence[tuple[int, int, datetime]]) -> list[Push]:
    names = _names(device for _, device, _ in claimed)
    return [
        Push(task, device, *names[device], package=parts.package, url=make_link(task, parts.file, at), at=at)
        for task, device, at in claimed
        if device in names
    ]


def _names(device_ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    names: dict[int, tuple[str, str]] = {}
    for ids in sql.chunks(list(device_ids)):
        for pk, key, name in Device.objects.filter(id__in=ids).values_list(
            "id", "product__product_key", "name"
        ):
            names[pk] = (key, name)
    return names


def pull(requests: Sequence[tuple[int, str | None]], now: datetime | None = None) -> dict[int, Push]:
    """What each device that asks (device id, module or None) is to be given, after committing it.

    A pull passes the same gates as a push, but needs no presence: the device itself asks. QUEUED, NOTIFIED
    and IN_PROGRESS tasks are answered; a QUEUED one becomes NOTIFIED. Within the spacing of a push the same
    message is given again, which is no new push. Once the answer is out, `acknowledge` stamps it.
    """
    now = now or timezone.now()
    return _give(requests, _may_be_pulled([device for device, _ in requests], now), now)


def offer(requests: Sequence[tuple[int, str | None]], now: datetime | None = None) -> dict[int, Push]:
    """What goes to devices that cannot be pushed to with the answer to their version report: as `pull`.

    Only what is for them (`is_offered`). Until it is downloaded it is offered again, in case the answer did
    not arrive; a version that is still being judged is waited for. A device that is connected over MQTT is
    pushed to instead.
    """
    now = now or timezone.now()
    asking = DevicePresence.objects.online(now).filter(channel__in=ASKING)
    rows = asking.in_bulk([device for device, _ in requests])
    tasks = _may_be_pulled(rows, now).filter(
        Q(status=TaskStatus.QUEUED)
        # Without spacing: the SDK's own first report must not eat the offer meant for the application's.
        | Q(status=TaskStatus.NOTIFIED) & ~Q(requested_at__gte=F("pushed_at")),
        stray_until__isnull=True,
    )
    found = tasks.values_list("id", "device_id", "due_at", "pushed_at")
    offered = [pk for pk, device, due_at, pushed_at in found if is_offered(due_at, pushed_at, rows[device])]
    return _give(requests, tasks.filter(id__in=offered), now)


def is_offered(due_at: datetime | None, pushed_at: datetime | None, presence: DevicePresence) -> bool:
    """Whether a task is offered to a device that asks, rather than given only when it asks for an update.

    Devices that are offline are not notified later: a task is offered if it became due in the device's
    last time online, or has reached it once, or if OTA_HTTP_OFFER_LATE says so.
    """
    if settings.OTA_HTTP_OFFER_LATE or pushed_at is not None:
        return True
    online = online_time(presence)
    return due_at is not None and online is not None and online[0] <= due_at <= online[1]


def _may_be_pulled(device_ids: Iterable[int], now: datetime) -> UpdateTaskQuerySet:
    return (
        UpdateTask.objects.filter(
            device__in=list(device_ids),
            status__in=[TaskStatus.QUEUED, *UPDATING],
            campaign__is_paused=False,
            campaign__status="in_progress",
            returns__lte=MAX_RETURNS,
        )
        .filter(Q(due_at__isnull=True) | Q(due_at__lte=now))
        .exclude(device__presence__reserved_until__gt=now)
        .order_by("id")
    )


def _give(
    requests: Sequence[tuple[int, str | None]], tasks: UpdateTaskQuerySet, now: datetime
) -> dict[int, Push]:
    wanted = dict(requests)
    answers: dict[int, Push] = {}
    by_campaign: dict[int, list[State]] = defaultdict(list)
    for state in moves.read(tasks):
        if wanted[state.device_id] in (None, state.module):
            by_campaign[state.campaign_id].append(state)
    campaigns = Campaign.objects.select_related("firmware", "product").in_bulk(list(by_campaign))
    for pk, states in by_campaign.items():
        try:
            for push in _pull_some(campaigns[pk], states, now):
                answers[push.device_id] = push
        except DatabaseError:
            raise
        except Exception:
            logger.exception("campaign %s: a request could not be answered", pk)
    return answers


def _pull_some(campaign: Campaign, states: list[State], now: datetime) -> list[Push]:
    if not has_files(campaign, now):
        return []
    parts = _parts(campaign.firmware)
    return _pushes(parts, _claim_pulled(campaign, states, now))


def _claim_pulled(campaign: Campaign, states: list[State], now: datetime) -> list[tuple[int, int, datetime]]:
    """(task, device, when it was handed over first) of those to be answered."""
    chosen = _chosen_versions(campaign)
    running = versions.running([state.device_id for state in states])
    with transaction.atomic():
        rate = _rate(campaign, now)
        room = _allowed(rate, len(states))
        answered = []
        for state in states:
            runs = running.get((state.device_id, state.module))
            version = runs.version if runs else None
            is_copy = state.pushed_at is not None and state.pushed_at > now - PUSH_SPACING
            if is_copy and version != state.to_version:
                if state.status == TaskStatus.QUEUED:
                    state.move(TaskStatus.NOTIFIED, now, version=version or "")
                    state.ready_at = None
                answered.append(state)
                continue
            if state.status == TaskStatus.QUEUED:
                if runs and (chosen or version == state.to_version) and not runs.is_settled(now):
                    continue
                if version == state.to_version:
                    life.succeed(state, now, version)
                    continue
                if (
                    chosen
                    and version not in chosen
                    and not state.pushed_at
                    and not _is_left_by_us(state, version)
                ):
                    state.move(TaskStatus.FAILED, now, reason=Reason.NO_LONGER_MATCHES.value)
                    state.reason, state.detail = Reason.NO_LONGER_MATCHES.value, ""
                    state.ready_at = None
                    continue
                if room == 0:
                    continue
                room -= 1
                state.move(TaskStatus.NOTIFIED, now, kind=EventKind.PULLED, version=version or "")
                life.note_push(state, now)
            else:
                state.note(EventKind.PULLED, now, version=version or "")
            state.from_version = version or state.from_version
            # A device that only asks again and again is not getting on: its time-out is not put off.
            state.ready_at, state.pushed_at = None, now
            state.acknowledged_at, state.is_changed = None, True
            answered.append(state)
        moved, counts = moves.write([state for state in states if state.is_changed], now)
        given = [state for state in answered if state.id in moved or not state.is_changed]
        _count_rate(rate, sum(s.status_before == TaskStatus.QUEUED and s.pushed_at == now for s in given))
        moves.add_counts(counts)
    dynamic.enrol_ended([s.device_id for s in states if s.id in moved and s.status in FINAL], now)
    return [(state.id, state.device_id, state.pushed_at or now) for state in given]
