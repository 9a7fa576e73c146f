"""Dynamic campaigns: devices that match later get their task at that moment."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from django.db import transaction

from campaigns import moves
from campaigns.applied import Applied
from campaigns.models import Campaign, CampaignDevice, TaskEvent, UpdateTask
from campaigns.states import ACTIVE, Reason, Region, TaskStatus
from devices import presence, sql, versions
from devices.models import DEFAULT_MODULE, Channel, Device, DevicePresence
from devices.versions import SETTLE, Running

# A device that keeps reporting a matching version is taken in this often by one campaign, then no more.
MAX_MATCHES = 10
# Failures of tasks that nothing was tried with.
_NOT_BEGUN = (Reason.NO_LONGER_MATCHES, Reason.CONFLICT)


def enrol(
    informed: Iterable[tuple[int, str]],
    now: datetime,
    applied: Applied,
    *,
    ended: Iterable[int] = (),
    connected: Iterable[int] = (),
) -> None:
    """Give matching devices a task, in the caller's transaction; what came of it is added to `applied`.

    `informed` are (device id, module) that just reported, or whose report has just settled; `ended` are
    devices whose task just ended, which a campaign may have passed over while they were busy; `connected`
    may have been activated just now. A product's campaigns are asked newest first, and the first that
    matches, or whose target the device already runs, ends the search: two campaigns never throw a device
    back and forth. So does one that names versions, for a device that has not told its own yet. Only a
    version that has settled matches, and a device that was matched before only if it has another one since.
    """
    reported = {device for device, _ in informed}
    candidates = reported | set(ended) | set(connected)
    if not candidates or not Campaign.objects.matching().exists():
        return
    # Under these locks nobody else starts a task for the same devices, or removes them.
    rows = presence.lock(candidates)
    devices = {
        pk: product
        for ids in sql.chunks(sorted(rows))
        for pk, product in Device.objects.usable().activated().filter(id__in=ids).values_list("id", "product")
    }
    campaigns = defaultdict(list)
    for each in (
        Campaign.objects.matching().filter(product__in=set(devices.values())).select_related("firmware")
    ):
        campaigns[each.product_id].append(each)
    devices = {pk: product for pk, product in devices.items() if product in campaigns}
    if not devices:
        return
    online = set(
        DevicePresence.objects.online(now)
        .filter(pk__in=devices, channel=Channel.MQTT)
        .values_list("pk", flat=True)
    )
    busy = set(
        UpdateTask.objects.filter(device__in=devices, status__in=ACTIVE).values_list("device_id", flat=True)
    )
    running = versions.running(list(devices))
    ids = [each.pk for group in campaigns.values() for each in group]
    matched = _last_tasks(ids, devices)
    barred = _barred(matched.values())
    chosen = set(
        CampaignDevice.objects.filter(campaign__in=ids, device__in=devices).values_list(
            "campaign_id", "device_id"
        )
    )
    tasks = []
    for device, product in devices.items():
        if device in busy:
            continue
        campaign = _first_match(device, campaigns[product], running, chosen, now)
        if campaign is None:
            continue
        before = matched.get((campaign.pk, device))
        if before is not None and before.pk in barred:
            continue
        seen, last = (before.match_number, before.created_at) if before else (0, None)
        runs = running.get((device, campaign.firmware.module))
        # A device that was taken in before comes again only by its own word, and if that is a new one.
        if seen >= MAX_MATCHES or (seen and device not in reported):
            continue
        if last is not None and (runs is None or runs.changed_at <= last):
            continue
        version = runs.version if runs else None
        # A device that never told its version may run the target: it is about to say.
        ready_at = max(now if version is not None else now + SETTLE, rows[device] or now)
        tasks.append(
            UpdateTask(
                campaign=campaign,
                device_id=device,
                firmware=campaign.firmware,
                module=campaign.firmware.module,
                match_number=seen + 1,
                from_version=version or "",
                to_version=campaign.firmware.version,
                status=TaskStatus.QUEUED,
                due_at=now,
                ready_at=ready_at if device in online else None,
                created_at=now,
                changed_at=now,
            )
        )
    UpdateTask.objects.bulk_create(tasks)
    applied.counts.update((task.campaign_id, TaskStatus.QUEUED.value) for task in tasks)
    applied.campaigns |= {task.campaign_id for task in tasks}
    applied.ready |= any(task.ready_at is not None and task.ready_at <= now for task in tasks)


def enrol_ended(device_ids: Collection[int], now: datetime) -> None:
    """The same, in a transaction of its own, for devices whose task ended without a report."""
    if device_ids:
        applied = Applied()
        with transaction.atomic():
            enrol([], now, applied, ended=device_ids)
            moves.add_counts(applied.counts)


def _last_tasks(
    campaign_ids: Collection[int], device_ids: Collection[int]
) -> dict[tuple[int, int], UpdateTask]:
    """{(campaign, device): its last task there}, of those that had one."""
    rows = UpdateTask.objects.filter(campaign__in=campaign_ids, device__in=device_ids)
    only = ("campaign", "device", "match_number", "created_at", "status", "reason")
    return {(task.campaign_id, task.device_id): task for task in rows.only(*only).order_by("match_number")}


def _barred(last: Iterable[UpdateTask]) -> set[int]:
    """Tasks after which their device is not matched again by the same campaign, by their ids.

    After a failure only the campaign's own retries count, and after an operator's cancel nothing. A task that
    a newer batch replaced, or that never began, is no such end.
    """
    failed, canceled = set(), set()
    for task in last:
        if task.status == TaskStatus.FAILED and task.reason not in _NOT_BEGUN:
            failed.add(task.pk)
        elif task.status == TaskStatus.CANCELED:
            canceled.add(task.pk)
    if not canceled:
        return failed
    # What replaced a task stands in the detail of its cancel (`expand.replace_waiting`).
    replaced = TaskEvent.objects.filter(task__in=canceled, after=TaskStatus.CANCELED).exclude(detail="")
    return failed | canceled - set(replaced.values_list("task", flat=True))


def _first_match(
    device: int,
    campaigns: list[Campaign],
    running: dict[versions.Key, Running],
    chosen: set[tuple[int, int]],
    now: datetime,
) -> Campaign | None:
    for campaign in campaigns:
        runs = running.get((device, campaign.firmware.module))
        if runs is not None and not runs.is_settled(now):
            # Once it has, a tick asks again (`versions.take_settled`).
            return None
        version = runs.version if runs else None
        if version == campaign.firmware.version:
            return None
        if campaign.region == Region.DIRECTIONAL and (campaign.pk, device) not in chosen:
            continue
        wanted = (
            [campaign.firmware.source_version]
            if campaign.firmware.source_version
            else campaign.source_versions
        )
        if not wanted or version in wanted:
            return campaign
        if version is None and campaign.firmware.module == DEFAULT_MODULE:
            # It may run one of these: its first report decides, before an older campaign takes it in unseen.
            return None
    return None
