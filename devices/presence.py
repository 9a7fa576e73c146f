"""Who is connected: broker events onto presence rows, folded in arrival order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from devices import sql
from devices.models import BrokerEpoch, Channel, DevicePresence, DevicePresenceQuerySet


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


@dataclass(slots=True)
class Changes:
    """What a batch of events came to: those that counted, and the devices that are up and down after it."""

    counted: set[Up | Down] = field(default_factory=set)
    up: set[int] = field(default_factory=set)
    down: set[int] = field(default_factory=set)


def record(events: Sequence[Up | Down]) -> Changes:
    """Apply events in arrival order, inside the caller's transaction; leaves the rows locked.

    A Down of a connection that another one has replaced changes nothing: a device that was taken over is
    not offline.
    """
    changes = Changes()
    if not events:
        return changes
    rows = {
        row.pk: row for row in DevicePresence.objects.locked(sorted({event.device_id for event in events}))
    }
    touched: dict[int, DevicePresence] = {}
    for event in events:
        row = rows.get(event.device_id)
        if row is None:
            continue
        if isinstance(event, Up):
            if row.is_up and row.connection_id == event.connection_id and row.epoch == event.epoch:
                continue
            row.is_up, row.connection_id, row.epoch = True, event.connection_id, event.epoch
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


def _store(rows: list[DevicePresence]) -> None:
    if not rows:
        return
    source, parameters = sql.rows(
        "v",
        {
            "id": "bigint",
            "is_up": "boolean",
            "connection_id": "text",
            "epoch": "text",
            "changed_at": "timestamptz",
            "connected_at": "timestamptz",
        },
        [(row.pk, row.is_up, row.connection_id, row.epoch, row.changed_at, row.connected_at) for row in rows],
    )
    sql.execute(
        f"UPDATE devices_devicepresence SET is_up = v.is_up, connection_id = v.connection_id, "  # noqa: S608
        f"epoch = v.epoch, changed_at = v.changed_at, connected_at = v.connected_at, "
        f"channel = '{Channel.MQTT.value}' FROM {source} WHERE devices_devicepresence.device_id = v.id",
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
    epoch = BrokerEpoch.objects.values_list("epoch", flat=True).first()
    if epoch is None:
        return []
    rows = DevicePresence.objects.filter(is_up=True, channel=Channel.MQTT).exclude(epoch=epoch)
    now = timezone.now()
    return [Down(row.pk, row.connection_id, row.epoch, now) for row in rows[:limit]]


def lock(device_ids: Collection[int]) -> dict[int, datetime | None]:
    """Lock these devices' presence rows; {device id: reserved until} of those that exist."""
    rows = DevicePresence.objects.locked(sorted(set(device_ids)))
    return dict(rows.values_list("device_id", "reserved_until"))


def hold(rows: DevicePresenceQuerySet) -> None:
    """Lock these presence rows, which come in id order, without reading them."""
    statement, parameters = rows.select_for_update().values("device_id").query.sql_with_params()
    sql.execute(f"SELECT COUNT(*) FROM ({statement}) held", parameters)  # noqa: S608  (Django's own statement)


def reserve(device_ids: Sequence[int], until: datetime) -> None:
    """Nothing new is pushed to these devices before their next inform or this time."""
    DevicePresence.objects.filter(device_id__in=device_ids).update(reserved_until=until)


def release(device_ids: Sequence[int]) -> None:
    """They informed: whatever they were doing is over."""
    DevicePresence.objects.filter(device_id__in=device_ids, reserved_until__isnull=False).update(
        reserved_until=None
    )
