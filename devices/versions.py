"""What each device runs: version reports onto the version table, its history and its counters.

A version has *settled* when it stood for SETTLE, or when the device came back to the one that had settled
before; only then does it decide anything. iotkit-embedded 3.x informs its own version at each connect and
the application's up to three seconds later.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, F, Q, Window
from django.db.models.functions import RowNumber

from devices import counters, presence, sql
from devices.models import Device, DeviceVersion, DeviceVersionChange, VersionCounter

SETTLE = timedelta(seconds=10)

logger = logging.getLogger(__name__)

MAX_MODULES = 32  # of one device; what it reports of further ones is not stored
MAX_CHANGES = 100  # kept of one device, the newest; how often it may change, its broker limits


@dataclass(frozen=True, slots=True)
class Inform:
    """A device says which version of a module it runs."""

    device_id: int
    product_id: int
    module: str
    version: str
    at: datetime
    duplicate: bool = False


Key = tuple[int, str]  # device id, module


@dataclass(frozen=True, slots=True)
class Running:
    """What a device runs of one module, since when, and what it ran before that, as far as it had settled."""

    version: str
    changed_at: datetime
    previous: str = ""
    previous_at: datetime | None = None

    def is_settled(self, now: datetime) -> bool:
        return self.changed_at <= now - SETTLE

    def settled(self, now: datetime) -> tuple[str, datetime | None]:
        """The version that counts now and since when it stands; ("", None) if none ever settled."""
        return (self.version, self.changed_at) if self.is_settled(now) else (self.previous, self.previous_at)

    def after(self, version: str, at: datetime) -> "Running":
        """What it runs once it reported another version."""
        stood, since = self.settled(at)
        if since is not None and version == stood:
            return Running(version, since)
        return Running(version, at, stood, since)


def current(device_ids: Sequence[int]) -> dict[Key, str]:
    """{(device id, module): version}, settled or not."""
    return {key: runs.version for key, runs in running(device_ids).items()}


def running(device_ids: Sequence[int]) -> dict[Key, Running]:
    """{(device id, module): what it runs}."""
    rows = DeviceVersion.objects.filter(device_id__in=device_ids).values_list(
        "device_id", "module", "version", "changed_at", "previous", "previous_at"
    )
    return {
        (device, module): Running(version, changed_at, previous, previous_at)
        for device, module, version, changed_at, previous, previous_at in rows
    }


def settled(versions: Collection[str], now: datetime) -> Q:
    """DeviceVersion rows whose version counts now and is one of these."""
    since = now - SETTLE
    return Q(changed_at__lte=since, version__in=versions) | Q(changed_at__gt=since, previous__in=versions)


@dataclass(slots=True)
class Recorded:
    """What a batch of informs came to.

    `changed` are the keys whose version is another one now, `running` what each device that informed runs
    now, and `counts` the counters' differences.
    """

    changed: set[Key]
    running: dict[Key, Running]
    counts: Counter[tuple[int, str, str]]


def record(informs: Sequence[Inform]) -> Recorded:
    """Store the last report of each device and module, inside the caller's transaction.

    A report that repeats what is stored writes nothing, and neither does one of a device that was removed
    meanwhile. The counters are left to the caller, which writes them last (`counters.add_versions`).
    """
    before = running([inform.device_id for inform in informs])
    last = {(inform.device_id, inform.module): inform for inform in _within_bounds(informs, before)}
    if all(key in before and before[key].version == inform.version for key, inform in last.items()):
        return Recorded(set(), before, Counter())
    # Another gateway may report for the same device, or somebody remove it: its presence row orders them.
    presence.lock([device for device, _ in last])
    before = running([device for device, _ in last])
    present = set(Device.objects.present().filter(pk__in={d for d, _ in last}).values_list("pk", flat=True))
    changed = sorted(
        key
        for key, inform in last.items()
        if key[0] in present and (key not in before or before[key].version != inform.version)
    )
    deltas: Counter[tuple[int, str, str]] = Counter()
    after = dict(before)
    for key in changed:
        inform = last[key]
        deltas[inform.product_id, inform.module, inform.version] += 1
        if (old := before.get(key)) is None:
            after[key] = Running(inform.version, inform.at)
        else:
            deltas[inform.product_id, inform.module, old.version] -= 1
            after[key] = old.after(inform.version, inform.at)
    _store([(last[key], after[key]) for key in changed])
    DeviceVersionChange.objects.bulk_create(
        DeviceVersionChange(
            device_id=key[0],
            module=key[1],
            before=before[key].version if key in before else "",
            version=last[key].version,
            at=last[key].at,
        )
        for key in changed
    )
    _forget_old_changes(sorted({device for device, _ in changed}))
    return Recorded(set(changed), after, deltas)


def _within_bounds(informs: Sequence[Inform], before: Iterable[Key]) -> list[Inform]:
    """Without those by which a device would come to have more than `MAX_MODULES` modules."""
    known: dict[int, set[str]] = defaultdict(set)
    for device, module in before:
        known[device].add(module)
    kept = []
    for inform in informs:
        modules = known[inform.device_id]
        if inform.module in modules or len(modules) < MAX_MODULES:
            modules.add(inform.module)
            kept.append(inform)
        else:
            logger.debug("device %s reports more than %s modules", inform.device_id, MAX_MODULES)
    return kept


def _forget_old_changes(device_ids: Sequence[int]) -> None:
    for ids in sql.chunks(device_ids):
        ranked = DeviceVersionChange.objects.filter(device__in=ids).annotate(
            newer=Window(RowNumber(), partition_by="device_id", order_by=F("id").desc())
        )
        old = list(ranked.filter(newer__gt=MAX_CHANGES).values_list("id", flat=True))
        for some in sql.chunks(old):
            DeviceVersionChange.objects.filter(id__in=some).delete()


def _store(rows: Sequence[tuple[Inform, Running]]) -> None:
    if not rows:
        return
    columns = {
        "device_id": "bigint",
        "product_id": "bigint",
        "module": "text",
        "version": "text",
        "reported_at": "timestamptz",
        "changed_at": "timestamptz",
        "previous": "text",
        "previous_at": "timestamptz",
        "settles_at": "timestamptz",
    }
    source, parameters = sql.rows(
        "v",
        columns,
        [
            (
                i.device_id,
                i.product_id,
                i.module,
                i.version,
                i.at,
                runs.changed_at,
                runs.previous,
                runs.previous_at,
                None if runs.is_settled(i.at) else i.at + SETTLE,
            )
            for i, runs in rows
        ],
    )
    names = ", ".join(columns)
    picks = ", ".join(f"v.{name}" for name in columns)
    replaced = ", ".join(f"{name} = excluded.{name}" for name in list(columns)[3:])
    sql.execute(
        f"INSERT INTO devices_deviceversion ({names}) SELECT {picks} FROM {source} WHERE true "  # noqa: S608
        f"ON CONFLICT (device_id, module) DO UPDATE SET {replaced}",
        parameters,
    )


def seen_before(asked: Collection[tuple[int, str, datetime]]) -> dict[tuple[int, str, datetime], set[str]]:
    """The versions that devices had reported by a time: {(device id, module, time): versions}."""
    seen: dict[tuple[int, str, datetime], set[str]] = {each: set() for each in asked}
    if not seen:
        return seen
    of_module: dict[Key, list[tuple[datetime, set[str]]]] = defaultdict(list)
    for (device, module, until), found in seen.items():
        of_module[device, module].append((until, found))
    rows = DeviceVersionChange.objects.filter(device_id__in={device for device, _ in of_module})
    for device, module, before, version, at in rows.values_list(
        "device_id", "module", "before", "version", "at"
    ):
        for until, found in of_module.get((device, module), ()):
            if at <= until:
                found.update((before, version))
    return seen


def settle(keys: Collection[Key], now: datetime) -> None:
    """What these devices run of these modules counts from now on; in the caller's transaction."""
    by_module: dict[str, list[int]] = defaultdict(list)
    for device, module in keys:
        by_module[module].append(device)
    for module, devices in by_module.items():
        fresh = DeviceVersion.objects.filter(device__in=devices, module=module, changed_at__gt=now - SETTLE)
        fresh.update(changed_at=now - SETTLE)


def take_settled(now: datetime, limit: int) -> list[Key]:
    """Versions whose time to settle is over, each told once; in the caller's transaction."""
    due = DeviceVersion.objects.filter(settles_at__lte=now).order_by("settles_at")
    rows = list(due.values_list("pk", "device_id", "module")[:limit])
    # A report that came in between has set a later time.
    DeviceVersion.objects.filter(pk__in=[row[0] for row in rows], settles_at__lte=now).update(settles_at=None)
    return [(device, module) for _, device, module in rows]


def recount(*, repair: bool = False) -> dict[tuple[int, str, str], tuple[int, int]]:
    """Counters that differ from a count: {(product, module, version): (stored, counted)}."""
    with transaction.atomic():
        if repair and connection.vendor == "postgresql":
            sql.execute("LOCK TABLE devices_deviceversion IN SHARE ROW EXCLUSIVE MODE", [])
        counted = {
            (row["product"], row["module"], row["version"]): row["n"]
            for row in DeviceVersion.objects.filter(device__removed_at__isnull=True)
            .values("product", "module", "version")
            .annotate(n=Count("pk"))
        }
        stored: Counter[tuple[int, str, str]] = Counter()
        for product, module, version, count in VersionCounter.objects.values_list(
            "product", "module", "version", "count"
        ):
            stored[product, module, version] += count
        differences = {
            key: (stored.get(key, 0), counted.get(key, 0))
            for key in stored.keys() | counted.keys()
            if stored.get(key, 0) != counted.get(key, 0)
        }
        if repair:
            counters.add_versions({key: right - wrong for key, (wrong, right) in differences.items()})
    return differences
