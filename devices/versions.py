"""What each device runs: version reports onto the version table, its history and its counters."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count

from devices import counters, presence, sql
from devices.models import DeviceVersion, DeviceVersionChange, VersionCounter


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
    last = {(inform.device_id, inform.module): inform for inform in informs}
    before = current([device for device, _ in last])
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
    return Recorded({key: before.get(key) for key in changed}, deltas)


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
