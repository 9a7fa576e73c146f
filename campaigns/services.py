"""What an operator does: launch, cancel, pause, retry. Every face (console, API, command line) calls these.

A verb checks the rules that belong to it, changes rows in one transaction, writes the audit log, and leaves
the long part to a resumable expansion. What follows from it (news for open pages, a worker to wake) is
registered by the verb itself for the moment of the commit; its callers have nothing to add.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from campaigns import dispatch, dynamic, expand, life, live, moves, named, selection, sweep, tasks
from campaigns.applied import Applied
from campaigns.models import Campaign, UpdateTask
from campaigns.states import (
    OPEN,
    Busy,
    CampaignKind,
    CampaignStatus,
    Policy,
    Reason,
    Region,
    TaskStatus,
)
from devices import presence, sql
from firmware.models import Firmware, FirmwareStatus
from firmware.services import mark_verified
from otaplatform.accounts import audit
from otaplatform.accounts.models import User

SCHEDULE_FROM = timedelta(minutes=5)
SCHEDULE_UNTIL = timedelta(days=7)
MAX_CHOSEN = 1_000_000
# A validation is done on a few devices.
MAX_VALIDATED = 1000
# What the expansion gives a device, by the campaign's status.
GIVEN = {CampaignStatus.PLANNED: TaskStatus.SCHEDULED, CampaignStatus.IN_PROGRESS: TaskStatus.QUEUED}


class RefusedError(ValidationError):
    """A verb that cannot be done now. `code` is for programs, the message for people.

    Codes: not_verified, unproven, not_associated, not_started, is_over, is_canceling, dynamic_exists,
    not_dynamic, downgrade, no_devices.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything an operator chooses for a batch update."""

    policy: str = Policy.STATIC
    region: str = Region.ALL
    device_names: Sequence[str] = ()
    source_versions: Sequence[str] = ()
    schedule_at: datetime | None = None
    retry_interval_minutes: int | None = None
    max_retries: int | None = None
    timeout_minutes: int | None = 60
    max_per_minute: int | None = None
    busy: str = Busy.LEAVE
    # What the operator agreed to after being told.
    accept_unproven: bool = False
    confirm_downgrade: bool = False


@dataclass(slots=True)
class Planned:
    """A checked plan: the counts, and of a directional one the devices left out and why."""

    preview: selection.Preview = field(default_factory=selection.Preview)
    excluded: dict[str, str] = field(default_factory=dict)
    # Whether there is any device that matches, or may match later if the plan is dynamic.
    has_devices: bool = True
    needs_acceptance: bool = False


def is_proven(firmware: Firmware) -> bool:
    """Whether a device of a validation (or any campaign) of this firmware really came to run it."""
    return UpdateTask.objects.filter(
        campaign__in=Campaign.objects.filter(firmware=firmware).values("id"), status=TaskStatus.SUCCEEDED
    ).exists()


def validate_schedule(schedule_at: datetime, now: datetime) -> None:
    """A scheduled time lies 5 minutes to 7 days ahead, counted from the beginning of the present minute.

    Times are chosen in whole minutes: at 10:00:40 the clock shows 10:00, and 10:05 can be chosen.
    """
    minute = now.replace(second=0, microsecond=0)
    if not minute + SCHEDULE_FROM <= schedule_at <= now + SCHEDULE_UNTIL:
        raise ValidationError(
            {
                "schedule_at": ValidationError(
                    _("Choose a time from 5 minutes to 7 days ahead."), code="invalid"
                )
            }
        )


def check_plan(
    firmware: Firmware, plan: Plan, now: datetime | None = None, *, chosen_at: datetime | None = None
) -> Planned:
    """Check every rule of a batch update and count what it would find; ValidationError with fields.

    A scheduled time is counted from when it was chosen: `chosen_at`, or now.
    """
    now = now or timezone.now()
    errors: dict[str, Any] = {}
    if plan.schedule_at is not None:
        if plan.policy != Policy.STATIC:
            errors["schedule_at"] = _("Only a static update can be scheduled.")
        else:
            try:
                validate_schedule(plan.schedule_at, chosen_at or now)
            except ValidationError as error:
                errors.update(error.error_dict)
    if (plan.retry_interval_minutes is None) != (plan.max_retries is None):
        errors["max_retries"] = _("Choose how often to retry together with the retry interval.")
    errors |= _field_errors(plan)
    if plan.region == Region.DIRECTIONAL:
        if not plan.device_names:
            errors["device_names"] = _("Choose at least one device.")
        elif len(plan.device_names) > MAX_CHOSEN:
            errors["device_names"] = _("At most 1,000,000 devices can be chosen.")
    if errors:
        raise ValidationError(errors)
    _require_association(firmware)
    planned = Planned(
        needs_acceptance=firmware.status != FirmwareStatus.NOT_NEEDED and not is_proven(firmware)
    )
    if plan.region == Region.DIRECTIONAL:
        looked = named.look(firmware, plan.device_names, plan.source_versions, now)
        planned.preview, planned.excluded = looked.preview, looked.excluded
        planned.has_devices = bool(looked.known if plan.policy == Policy.DYNAMIC else looked.preview.matching)
    else:
        planned.preview = selection.preview(firmware, plan.source_versions, now)
    return planned


def _field_errors(plan: Plan) -> dict[str, ValidationError]:
    """What the campaign's own fields refuse, e.g. a rate of 9 a minute."""
    limits = ("retry_interval_minutes", "max_retries", "timeout_minutes", "max_per_minute")
    chosen = {name: getattr(plan, name) for name in ("policy", "region", "busy", *limits)}
    others = {field.name for field in Campaign._meta.fields} - chosen.keys()
    try:
        Campaign(**chosen).clean_fields(exclude=others)
    except ValidationError as error:
        return {name: ValidationError(errors) for name, errors in error.error_dict.items()}
    return {}


def _require_association(firmware: Firmware) -> None:
    if firmware.product_id is None:
        raise RefusedError(_("Associate the firmware with a product first."), code="not_associated")


def launch_batch(
    firmware: Firmware,
    plan: Plan,
    *,
    planned: Planned | None = None,
    actor: User | None = None,
    now: datetime | None = None,
) -> Campaign:
    """Launch (or schedule) a batch update; its tasks are then made by the expansion.

    `planned` is what `check_plan` has just said of the same plan, so that a long list is looked at once.
    RefusedError: the firmware is not verified; nothing ever succeeded with it and the operator has not
    accepted that, or the platform demands it; the batch downgrades devices unconfirmed; another dynamic
    batch of it is running.
    """
    now = now or timezone.now()
    planned = planned or check_plan(firmware, plan, now)
    if not Firmware.objects.batchable().filter(pk=firmware.pk).exists():
        raise RefusedError(_("Validate the firmware before a batch update."), code="not_verified")
    if planned.needs_acceptance and settings.OTA_DEMAND_SUCCESS:
        raise RefusedError(
            _(
                "No device has been updated successfully with this firmware yet. "
                "This platform demands that before a batch update."
            ),
            code="unproven",
        )
    if planned.needs_acceptance and not plan.accept_unproven:
        raise RefusedError(
            _("No device has been updated successfully with this firmware yet. Confirm to go on anyway."),
            code="unproven",
        )
    if planned.preview.on_newer and not plan.confirm_downgrade:
        raise RefusedError(
            _("%(count)s devices run a firmware that was uploaded later. Confirm the downgrade to go on."),
            code="downgrade",
            params={"count": planned.preview.on_newer},
        )
    if not planned.has_devices:
        raise RefusedError(_("None of the chosen devices can be updated."), code="no_devices")
    campaign = Campaign(
        kind=CampaignKind.UPGRADE,
        policy=plan.policy,
        region=plan.region,
        source_versions=list(plan.source_versions),
        schedule_at=plan.schedule_at,
        retry_interval_minutes=plan.retry_interval_minutes,
        max_retries=plan.max_retries,
        timeout_minutes=plan.timeout_minutes,
        max_per_minute=plan.max_per_minute,
        busy=plan.busy,
        preview=planned.preview.as_json(),
    )
    return _launch(campaign, firmware, plan.device_names, actor, now, "campaign.launched")


def launch_validation(
    firmware: Firmware,
    device_names: Sequence[str],
    *,
    source_versions: Sequence[str] = (),
    timeout_minutes: int | None = 60,
    actor: User | None = None,
    now: datetime | None = None,
) -> Campaign:
    """Push the firmware to a few devices and mark it Verified: a validation was performed.

    Whether the devices really updated is for Update Details to say. May be done any number of times.
    """
    now = now or timezone.now()
    _require_association(firmware)
    if not device_names:
        raise ValidationError({"device_names": _("Choose at least one device.")})
    if len(device_names) > MAX_VALIDATED:
        problem = ValidationError(
            _("A validation takes at most %(max)s devices. Use a batch update for more."),
            code="too_many",
            params={"max": f"{MAX_VALIDATED:,}"},
        )
        raise ValidationError({"device_names": problem})
    if excluded := named.look(firmware, device_names, source_versions, now).excluded:
        raise ValidationError(
            {"device_names": [exclusion_message(name, why) for name, why in excluded.items()]}
        )
    campaign = Campaign(
        kind=CampaignKind.VERIFY,
        region=Region.DIRECTIONAL,
        source_versions=list(source_versions),
        timeout_minutes=timeout_minutes,
    )
    with transaction.atomic():
        campaign = _launch(campaign, firmware, device_names, actor, now, "firmware.validated")
        mark_verified(firmware)
    return campaign


EXCLUSIONS = {
    "unknown": _("%(name)s: the product has no such device."),
    "disabled": _("%(name)s: the device is disabled."),
    "not_activated": _("%(name)s: the device has never connected."),
    "on_target": _("%(name)s: the device runs this version already."),
    "other_version": _("%(name)s: the device runs none of the chosen versions."),
}


def exclusion_message(name: str, code: str) -> ValidationError:
    """Why a named device is left out, in words."""
    return ValidationError(EXCLUSIONS[code], code=code, params={"name": name})


def _launch(
    campaign: Campaign,
    firmware: Firmware,
    device_names: Sequence[str],
    actor: User | None,
    now: datetime,
    action: str,
) -> Campaign:
    assert firmware.product is not None
    campaign.account_id = firmware.account_id
    campaign.product, campaign.firmware = firmware.product, firmware
    campaign.created_by, campaign.created_at = actor, now
    if campaign.schedule_at is None:
        campaign.status, campaign.started_at = CampaignStatus.IN_PROGRESS, now
    try:
        with transaction.atomic():
            campaign.save(force_insert=True)
            if campaign.region == Region.DIRECTIONAL:
                named.choose(campaign, device_names)
            audit.record(
                firmware.account_id,
                actor,
                action,
                campaign,
                name=f"{firmware} {campaign}",
                now=now,
                campaign=campaign.pk,
            )
            tasks.after_commit([campaign.pk], wake=tasks.launch_soon)
    except IntegrityError as error:
        if "campaign_one_dynamic_per_firmware" in str(error) or campaign.policy == Policy.DYNAMIC:
            raise RefusedError(
                _("This firmware already has a running dynamic batch."), code="dynamic_exists"
            ) from error
        raise
    return campaign


def cancel_campaign(
    campaign: Campaign,
    *,
    statuses: Iterable[str] = tuple(sorted(OPEN)),
    actor: User | None = None,
    now: datetime | None = None,
) -> None:
    """Cancel the tasks in these statuses; with all open ones (the default) the campaign itself ends.

    What waits is canceled at once. A device that is updating may still finish: its report is then shown as
    finished late.
    """
    now = now or timezone.now()
    wanted = sorted(OPEN.intersection(TaskStatus(status) for status in statuses))
    unfinished = Campaign.objects.filter(
        pk=campaign.pk, status__in=[CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS]
    )
    values: dict[str, Any] = {"canceling": wanted}
    if set(wanted) == OPEN:
        values |= {
            "status": CampaignStatus.CANCELED,
            "expanded_at": Coalesce("expanded_at", Value(now)),
            "finished_at": now,
            "is_paused": False,
        }
        if campaign.policy == Policy.DYNAMIC:
            values["matching_stopped_at"] = now
    # Devices that have no task yet wait as well, for the one that the expansion would give them.
    waiting = [status for status, given in GIVEN.items() if given in wanted]
    with transaction.atomic():
        if not unfinished.update(**values):
            raise RefusedError(_("The batch is over already."), code="is_over")
        Campaign.objects.filter(pk=campaign.pk, expanded_at__isnull=True, status__in=waiting).update(
            expanded_at=now
        )
        audit.record(campaign.account_id, actor, "campaign.canceled", campaign, now=now, statuses=wanted)
    # A small batch is canceled when this returns: a chunk for each status. The tick goes on with a large one.
    touched = sweep.resume_cancels(now, chunks=len(OPEN), only=campaign.pk)
    # Its devices may have gone to dynamic batches.
    tasks.after_commit({campaign.pk, *touched}, wake=tasks.dispatch_soon if touched else None)


def pause(campaign: Campaign, *, actor: User | None = None, now: datetime | None = None) -> None:
    """Push nothing more until resumed; what is updating goes on."""
    _set_paused(campaign, True, actor, now)


def resume(campaign: Campaign, *, actor: User | None = None, now: datetime | None = None) -> None:
    _set_paused(campaign, False, actor, now)


def _set_paused(campaign: Campaign, paused: bool, actor: User | None, now: datetime | None) -> None:
    unfinished = Campaign.objects.filter(
        pk=campaign.pk, status__in=[CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS]
    )
    with transaction.atomic():
        if not unfinished.update(is_paused=paused):
            raise RefusedError(_("The batch is over already."), code="is_over")
        action = "campaign.paused" if paused else "campaign.resumed"
        audit.record(campaign.account_id, actor, action, campaign, now=now)
        tasks.after_commit([campaign.pk], wake=None if paused else tasks.dispatch_soon)


def stop_matching(campaign: Campaign, *, actor: User | None = None, now: datetime | None = None) -> None:
    """A dynamic batch takes in no further devices; those waiting stay."""
    now = now or timezone.now()
    with transaction.atomic():
        if not Campaign.objects.matching().filter(pk=campaign.pk).update(matching_stopped_at=now):
            raise RefusedError(_("Only a running dynamic batch can stop matching."), code="not_dynamic")
        audit.record(campaign.account_id, actor, "campaign.matching_stopped", campaign, now=now)
        tasks.after_commit([campaign.pk])


def cancel_tasks(
    campaign: Campaign, task_ids: Sequence[int], *, actor: User | None = None, now: datetime | None = None
) -> int:
    """Cancel these open tasks of the campaign; how many really were."""
    now = now or timezone.now()
    applied = Applied()
    named = UpdateTask.objects.filter(campaign=campaign, id__in=list(task_ids))
    with transaction.atomic():
        presence.lock(list(named.values_list("device_id", flat=True)))
        canceled = sweep.end_open(named, life.cancel, now, applied)
        audit.record(
            campaign.account_id, actor, "tasks.canceled", campaign, now=now, tasks=[s.id for s in canceled]
        )
        devices = [state.device_id for state in canceled]
        dynamic.enrol([], now, applied, ended=devices)
        moves.add_counts(applied.counts)
        tasks.after_commit(
            applied.campaigns, device_ids=devices, wake=tasks.dispatch_soon if applied.ready else None
        )
    return len(canceled)


def stop_without_file(firmware_id: int, now: datetime | None = None) -> None:
    """A device could not be given the stored file: if it is gone, the running campaigns of it stop.

    Called by whoever opens the file for a device and fails. What waits fails with FILE_UNAVAILABLE.
    """
    now = now or timezone.now()
    running = Campaign.objects.running().filter(firmware=firmware_id).select_related("firmware")
    stopped = [campaign.pk for campaign in running if not dispatch.has_files(campaign, now)]
    tasks.after_commit(stopped)


def remove_devices(device_ids: Iterable[int], now: datetime | None = None) -> None:
    """End the open tasks of devices that were removed."""
    now = now or timezone.now()
    for ids in sql.chunks(sorted(set(device_ids))):
        applied = Applied()
        with transaction.atomic():
            presence.lock(list(ids))
            sweep.end_open(UpdateTask.objects.filter(device__in=ids), life.removed, now, applied)
            moves.add_counts(applied.counts)
            tasks.after_commit(applied.campaigns, device_ids=ids)


def update_again(
    campaign: Campaign,
    *,
    task_ids: Sequence[int] | None = None,
    reason: str | None = None,
    actor: User | None = None,
    now: datetime | None = None,
) -> int:
    """Start failed or canceled tasks over: exactly these, or all failed ones (of one reason); how many did.

    A device that a dynamic batch matched several times has several tasks. "All" means its last one: what
    failed before that is history. A device that is busy with another task, or named with two of its tasks,
    starts one at most. A finished campaign runs again.
    RefusedError: it has not started yet, or is still being canceled.
    """
    now = now or timezone.now()
    ended = UpdateTask.objects.filter(campaign=campaign)
    if task_ids is not None:
        before = [TaskStatus.FAILED, TaskStatus.CANCELED]
        ended = ended.filter(id__in=list(task_ids), status__in=before)
    else:
        before = [TaskStatus.FAILED]
        later = ended.filter(device=OuterRef("device"), module=OuterRef("module"), id__gt=OuterRef("pk"))
        ended = ended.filter(~Exists(later), status__in=before)
        if reason:
            ended = ended.filter(reason=Reason(reason))
    chosen = list(ended.order_by("id").values_list("id", "device_id"))
    if not chosen:
        return 0
    with transaction.atomic():
        row = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        if row.status == CampaignStatus.PLANNED:
            raise RefusedError(_("The batch has not started yet."), code="not_started")
        if row.canceling and UpdateTask.objects.filter(campaign=row, status__in=row.canceling).exists():
            raise RefusedError(_("The batch is still being canceled."), code="is_canceling")
        Campaign.objects.filter(pk=row.pk).update(canceling=[])
        audit.record(campaign.account_id, actor, "tasks.restarted", campaign, now=now, devices=len(chosen))
    started = 0
    for start in range(0, len(chosen), expand.CHUNK):
        ids, devices = zip(*chosen[start : start + expand.CHUNK], strict=True)
        started += len(expand.start(campaign, devices, now, before, task_ids=ids))
    news = [device for _, device in chosen[: live.MAX_ROWS]]
    tasks.after_commit([campaign.pk], device_ids=news, wake=tasks.dispatch_soon if started else None)
    return started
