"""Devices chosen by their names, up to a million: which of them a campaign takes in, and why not the others.

A list is looked at with one statement whose rows are the answer already counted: a name comes back only if
it is left out. For a long list the database reads the product's devices once; in parts it would for each.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone

from campaigns.models import Campaign
from campaigns.selection import Preview, wanted_versions
from campaigns.states import WAITING, Policy
from devices import sql
from devices.models import DevicePresence, validate_device_name
from firmware.models import Firmware

_NAME = re.compile(validate_device_name.regex)


@dataclass(slots=True)
class Looked:
    """The counts of a list, and {name: code} of those left out, in the order of the list.

    Codes: `unknown`, `disabled`, `not_activated`, `on_target`, `other_version`.
    """

    preview: Preview = field(default_factory=Preview)
    excluded: dict[str, str] = field(default_factory=dict)
    # Devices that the product has, whether they match or not.
    known: int = 0


def look(
    firmware: Firmware, names: Iterable[str], source_versions: Sequence[str], now: datetime | None = None
) -> Looked:
    """What a campaign of these devices would find now. A repeated name counts once."""
    looked, by_campaign = Looked(), Counter[int]()
    preview = looked.preview
    unique = list(dict.fromkeys(names))
    codes = {name: "unknown" for name in unique if not _is_name(name)}
    for code, name, is_online, is_newer, campaign, waits, devices in _answers(
        firmware, unique, source_versions, now or timezone.now()
    ):
        if code:
            codes[name] = code
            continue
        preview.matching += devices
        preview.online += devices * is_online
        preview.on_newer += devices * is_newer
        if campaign is not None:
            by_campaign[campaign] += devices
            preview.busy_waiting += devices * waits
    looked.excluded = {name: codes[name] for name in unique if name in codes}
    left_out = Counter(codes.values())
    looked.known = len(unique) - left_out["unknown"]
    preview.not_activated, preview.on_target = left_out["not_activated"], left_out["on_target"]
    preview.set_busy(by_campaign)
    return looked


def choose(campaign: Campaign, names: Sequence[str]) -> None:
    """Store the devices of a directional campaign, in the caller's transaction.

    Those that match now; for a dynamic campaign all that the product has, because they may match later.
    """
    source, parameters = _devices(campaign.firmware, names)
    condition, condition_parameters = _code(campaign.firmware, campaign.source_versions)
    condition = f"{condition} = ''"
    if campaign.policy == Policy.DYNAMIC:
        condition, condition_parameters = "d.id IS NOT NULL", []
    sql.execute(
        "INSERT INTO campaigns_campaigndevice (campaign_id, device_id) "  # noqa: S608  (the pieces are ours)
        f"SELECT %s, d.id FROM {source} WHERE {condition} ORDER BY d.id "
        "ON CONFLICT (campaign_id, device_id) DO NOTHING",
        [campaign.pk, *parameters, *condition_parameters],
    )


def _is_name(text: str) -> bool:
    """What cannot be a name is not asked for: PostgreSQL refuses some characters outright."""
    return _NAME.fullmatch(text) is not None


def _devices(firmware: Firmware, names: Sequence[str]) -> tuple[str, list[Any]]:
    """FROM items n (the names), d (their devices, if any) and v (what those run)."""
    source, parameters = sql.rows("n", {"name": "text"}, [(name,) for name in names if _is_name(name)])
    return (
        f"{source} LEFT JOIN devices_device d "
        "ON d.product_id = %s AND d.name = n.name AND d.removed_at IS NULL "
        "LEFT JOIN devices_deviceversion v ON v.device_id = d.id AND v.module = %s",
        [*parameters, firmware.product_id, firmware.module],
    )


def _code(firmware: Firmware, source_versions: Sequence[str]) -> tuple[str, list[Any]]:
    """The code of a row of `_devices`, empty if the device is taken in: the rule of `selection.covered`."""
    wanted = wanted_versions(firmware, source_versions)
    other, parameters = "", []
    if wanted:
        places = ", ".join(["%s"] * len(wanted))
        other = f"WHEN v.version IS NULL OR v.version NOT IN ({places}) THEN 'other_version'"
        parameters = list(wanted)
    return (
        "CASE WHEN d.id IS NULL THEN 'unknown' WHEN d.is_disabled THEN 'disabled' "
        "WHEN d.activated_at IS NULL THEN 'not_activated' "
        f"WHEN v.version = %s THEN 'on_target' {other} ELSE '' END",
        [firmware.version, *parameters],
    )


def _answers(
    firmware: Firmware, names: Sequence[str], source_versions: Sequence[str], now: datetime
) -> list[tuple[str, str, int, int, int | None, int, int]]:
    """(code, name if left out, online, on a newer upload, busy campaign, its task waits, devices)."""
    source, parameters = _devices(firmware, names)
    code, code_parameters = _code(firmware, source_versions)
    online, online_parameters = DevicePresence.objects.online(now).values("device_id").query.sql_with_params()
    waiting = ", ".join(f"'{status.value}'" for status in sorted(WAITING))
    statement = f"""
        SELECT code, CASE WHEN code <> '' THEN name END, is_online, is_newer, campaign_id, waits, COUNT(*)
        FROM (
            SELECT {code} AS code, n.name AS name,
                CASE WHEN o.device_id IS NULL THEN 0 ELSE 1 END AS is_online,
                CASE WHEN v.version IN (SELECT f.version FROM firmware_firmware f
                    WHERE f.product_id = %s AND f.module = %s AND f.id > %s) THEN 1 ELSE 0 END AS is_newer,
                a.campaign_id AS campaign_id, CASE WHEN a.status IN ({waiting}) THEN 1 ELSE 0 END AS waits
            FROM {source}
            LEFT JOIN ({online}) o ON o.device_id = d.id
            LEFT JOIN campaigns_updatetask a ON a.device_id = d.id AND a.lane = ''
                AND a.status IN ('CONFIRM', 'QUEUED', 'NOTIFIED', 'IN_PROGRESS')
        ) looked
        GROUP BY 1, 2, 3, 4, 5, 6
    """  # noqa: S608  (the pieces are ours; values are parameters)
    rows: list[Any] = sql.execute(
        statement,
        [
            *code_parameters,
            firmware.product_id,
            firmware.module,
            firmware.pk,
            *parameters,
            *online_parameters,
        ],
    )
    return rows
