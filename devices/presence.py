"""Who is connected: broker events onto presence rows, folded in arrival order."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from devices import sql
from devices.models import (
    ASKING,
    BrokerEpoch,
    Channel,
    DevicePresence,
    DevicePresenceQuerySet,
    heard_since,
)

EXPIRE = 10_000


@dataclass(frozen=True, slots=True)
class Up:
    """A device connected. `connection_id` tells this connection from an older one of the same device."""

    device_id: int
    connection_id: str
    epoch: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Down:
    """A connection ended; it counts only if it is still the device's present one."""

    device_id: int
    connection_id: str
    epoch: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """A request of a device on a channel without connections; `is_login`: it authenticated, so it started."""

    device_id: int
    channel: Channel
    at: datetime
    is_login: bool = False


Event = Up | Down | Heard
Online = tuple[datetime, datetime]  # from, until


@dataclass(slots=True)
class Changes:
    """What a batch of events came to: those that counted, and the devices that are up and down after it.

    Of the requests only those count that begin a time online; `before` says for them when the device was
    online the last time. `renewed` are those of the connections that began because the broker did, so that
    what broke before them was not the device's doing.
    """

    counted: set[Event] = field(default_factory=set)
    renewed: set[Up] = field(default_factory=set)
    up: set[int] = field(default_factory=set)
    down: set[int] = field(default_factory=set)
    before: dict[Heard, Online] = field(default_factory=dict)
    # Since when the devices of these events had been connected before them.
    connected_before: dict[int, datetime | None] = field(default_factory=dict)


def record(events: Sequence[Event]) -> Changes:
    """Apply events in arrival order, inside the caller's transaction; leaves the rows locked.

    A Down of a connection that another one has replaced changes nothing: a device that was taken over is
    not offline. A request of a device that is connected as well changes nothing: it can be pushed to.
    """
    changes = Changes()
    if not events:
        return changes
    rows = {
        row.pk: row for row in DevicePresence.objects.locked(sorted({event.device_id for event in events}))
    }
    touched: dict[int, DevicePresence] = {}
    epoch = _epoch() if any(isinstance(event, Heard) for event in events) else None
    for event in events:
        row = rows.get(event.device_id)
        if row is None:
            continue
        changes.connected_before.setdefault(row.pk, row.connected_at)
        if isinstance(event, Up):
            if row.is_up and row.connection_id == event.connection_id and row.epoch == event.epoch:
                continue
            if row.epoch and row.epoch != event.epoch:
                changes.renewed.add(event)
            row.is_up, row.connection_id, row.epoch = True, event.connection_id, event.epoch
            row.channel = Channel.MQTT
            row.changed_at = row.connected_at = event.at
            changes.up.add(row.pk)
            changes.down.discard(row.pk)
        elif isinstance(event, Heard):
            if row.is_up and row.channel == Channel.MQTT and row.epoch == epoch:
                continue
            touched[row.pk] = row
            if _goes_on(row, event):
                row.changed_at = max(row.changed_at or event.at, event.at)
                continue
            if (before := online_time(row)) is not None:
                changes.before[event] = before
            row.is_up, row.channel, row.connection_id, row.epoch = True, event.channel, "", ""
            row.changed_at = row.connected_at = event.at
            changes.up.add(row.pk)
            changes.down.discard(row.pk)
        elif row.is_up and row.connection_id == event.connection_id and row.epoch == event.epoch:
            row.is_up, row.changed_at = False, event.at
            changes.up.discard(row.pk)
            changes.down.add(row.pk)
        else:
            continue
        changes.counted.add(event)
        touched[row.pk] = row
    _store(list(touched.values()))
    return changes


def _goes_on(row: DevicePresence, event: Heard) -> bool:
    return (
        row.is_up
        and row.channel == event.channel
        and not event.is_login
        and row.changed_at is not None
        and row.changed_at >= heard_since(event.at)
    )


def online_time(row: DevicePresence) -> Online | None:
    """When a device is or was online; for one that asks, that lasts beyond its last request."""
    if row.connected_at is None or row.changed_at is None:
        return None
    lasts = timedelta(minutes=settings.OTA_HTTP_ONLINE_MINUTES) if row.channel in ASKING else timedelta()
    return row.connected_at, row.changed_at + lasts


def _epoch() -> str | None:
    return BrokerEpoch.objects.values_list("epoch", flat=True).first()


def _store(rows: list[DevicePresence]) -> None:
    if not rows:
        return
    source, parameters = sql.rows(
        "v",
        {
            "id": "bigint",
            "is_up": "boolean",
            "channel": "text",
            "connection_id": "text",
            "epoch": "text",
            "changed_at": "timestamptz",
            "connected_at": "timestamptz",
        },
        [
            (
                row.pk,
                row.is_up,
                str(row.channel),
                row.connection_id,
                row.epoch,
                row.changed_at,
                row.connected_at,
            )
            for row in rows
        ],
    )
    sql.execute(
        f"UPDATE devices_devicepresence SET is_up = v.is_up, connection_id = v.connection_id, "  # noqa: S608
        f"epoch = v.epoch, changed_at = v.changed_at, connected_at = v.connected_at, "
        f"channel = v.channel FROM {source} WHERE devices_devicepresence.device_id = v.id",
        parameters,
    )


def begin_epoch(epoch: str, now: datetime | None = None) -> bool:
    """A broker began a new life: from now on nobody is online who did not connect in it.

    True if it is new. The rows of the old life are lowered later, a chunk at a time (`ghosts`).
    """
    BrokerEpoch.objects.get_or_create(pk=1)
    values = {"epoch": epoch, "since": now or timezone.now()}
    return BrokerEpoch.objects.filter(pk=1).exclude(epoch=epoch).update(**values) == 1


def ghosts(limit: int) -> list[Down]:
    """Connections of an earlier broker life that still look up, as the Down events they never sent."""
    epoch = _epoch()
    if epoch is None:
        return []
    # Two ranges instead of "another": an index has those, and there is nobody in them most of the time.
    other = Q(epoch__lt=epoch) | Q(epoch__gt=epoch)
    rows = DevicePresence.objects.filter(other, is_up=True, channel=Channel.MQTT)
    now = timezone.now()
    return [Down(row.pk, row.connection_id, row.epoch, now) for row in rows[:limit]]


def expire(now: datetime | None = None, limit: int = EXPIRE) -> list[int]:
    """Take down devices that ask and were not heard of for too long, by one statement; their ids.

    In the caller's transaction; a row that somebody holds is being heard of, and is left alone.
    """
    skip_locked = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    rows = sql.execute(
        "UPDATE devices_devicepresence SET is_up = FALSE WHERE device_id IN ("  # noqa: S608  (the pieces are ours)
        "SELECT device_id FROM devices_devicepresence "
        "WHERE is_up AND channel IN ('https', 'coap') AND changed_at < %s "
        f"ORDER BY changed_at LIMIT %s {skip_locked}) RETURNING device_id",
        [heard_since(now), limit],
    )
    return [row[0] for row in rows]


def forget_requests(device_id: int) -> None:
    """A device that asks may no longer: it is offline until it logs in again."""
    DevicePresence.objects.filter(pk=device_id, channel__in=ASKING).update(is_up=False)


def lock(device_ids: Collection[int]) -> dict[int, datetime | None]:
    """Lock these devices' presence rows; {device id: reserved until} of those that exist."""
    rows = DevicePresence.objects.locked(sorted(set(device_ids)))
    return dict(rows.values_list("device_id", "reserved_until"))


def hold(rows: DevicePresenceQuerySet) -> None:
    """Lock these presence rows, which come in id order, without reading them."""
    statement, parameters = rows.select_for_update().values("device_id").query.sql_with_params()
    sql.execute(f"SELECT COUNT(*) FROM ({statement}) held", parameters)  # noqa: S608  (Django's own statement)


def reserve(modules: Mapping[int, str], until: datetime) -> None:
    """Nothing new is pushed to these devices before their next inform of this module, or this time."""
    by_module: dict[str, list[int]] = defaultdict(list)
    for device, module in modules.items():
        by_module[module].append(device)
    for module, devices in sorted(by_module.items()):
        DevicePresence.objects.filter(device_id__in=devices).update(
            reserved_until=until, reserved_module=module
        )


def keep_busy(modules: Mapping[int, str], until: datetime) -> None:
    """These devices work on a copy that no task of theirs knows of: nothing is pushed until then,
    or their next inform of this module. A longer reservation stands. In the caller's transaction.

    A row that somebody holds is left alone: waiting for it here, after other locks, could be a deadlock.
    """
    by_module: dict[str, list[int]] = defaultdict(list)
    for device, module in modules.items():
        by_module[module].append(device)
    sooner = Q(reserved_until__isnull=True) | Q(reserved_until__lt=until)
    for module, devices in sorted(by_module.items()):
        rows = DevicePresence.objects.filter(sooner, device_id__in=devices)
        if connection.features.has_select_for_update_skip_locked:
            free = rows.select_for_update(skip_locked=True).order_by("device_id")
            rows = DevicePresence.objects.filter(pk__in=list(free.values_list("pk", flat=True)))
        rows.update(reserved_until=until, reserved_module=module)


def release(informed: Iterable[tuple[int, str]]) -> None:
    """These modules (device id, module) informed: whatever the devices did with them is over."""
    told = set(informed)
    reserved = DevicePresence.objects.filter(
        device_id__in={device for device, _ in told}, reserved_until__isnull=False
    )
    over = [row for row in reserved.values_list("device_id", "reserved_module") if row in told]
    if over:
        DevicePresence.objects.filter(device_id__in=[device for device, _ in over]).update(
            reserved_until=None, reserved_module=""
        )
