"""What each device runs: version reports onto the version table, its history and its counters."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber

from devices import counters, presence, sql
from devices.models import DeviceVersion, DeviceVersionChange, VersionCounter

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


def current(device_ids: Sequence[int]) -> dict[Key, str]:
    """{(device id, module): version}."""
    rows = DeviceVersion.objects.filter(device_id__in=device_ids)
    return {
        (device, module): version
        for device, module, version in rows.values_list("device", "module", "version")
    }


@dataclass(slots=True)
class Recorded:
    """{(device id, module): version before, or None} of those that changed, and the counters' differences."""

    before: dict[Key, str | None]
    counts: Counter[tuple[int, str, str]]


def record(informs: Sequence[Inform]) -> Recorded:
    """Store the last report of each device and module, inside the caller's transaction.

    A report that repeats what is stored writes nothing. The counters are left to the caller, which writes
    them last (`counters.add_versions`).
    """
    before = current([inform.device_id for inform in informs])
    last = {(inform.device_id, inform.module): inform for inform in _within_bounds(informs, before)}
    changed = [key for key, inform in last.items() if before.get(key) != inform.version]
    if not changed:
        return Recorded({}, Counter())
    # Another gateway may report for the same device: its presence row orders the two.
    presence.lock([device for device, _ in changed])
    before = current([device for device, _ in changed])
    changed = sorted(key for key in changed if before.get(key) != last[key].version)
    deltas: Counter[tuple[int, str, str]] = Counter()
    for key in changed:
        inform = last[key]
        deltas[inform.product_id, inform.module, inform.version] += 1
        if (old := before.get(key)) is not None:
            deltas[inform.product_id, inform.module, old] -= 1
    _store([last[key] for key in changed])
    DeviceVersionChange.objects.bulk_create(
        DeviceVersionChange(
            device_id=key[0],
            module=key[1],
            before=before.get(key, ""),
            version=last[key].version,
            at=last[key].at,
        )
        for key in changed
    )
    _forget_old_changes(sorted({device for device, _ in changed}))
    return Recorded({key: before.get(key) for key in changed}, deltas)


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


def _store(informs: Sequence[Inform]) -> None:
    if not informs:
        return
    source, parameters = sql.rows(
        "v",
        {
            "device_id": "bigint",
            "product_id": "bigint",
            "module": "text",
            "version": "text",
            "reported_at": "timestamptz",
        },
        [(i.device_id, i.product_id, i.module, i.version, i.at) for i in informs],
    )
    sql.execute(
        "INSERT INTO devices_deviceversion (device_id, product_id, module, version, reported_at) "  # noqa: S608
        f"SELECT v.device_id, v.product_id, v.module, v.version, v.reported_at FROM {source} WHERE true "
        "ON CONFLICT (device_id, module) DO UPDATE "
        "SET version = excluded.version, reported_at = excluded.reported_at",
        parameters,
    )


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
