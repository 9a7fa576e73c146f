"""Campaigns, the task of each device in them, and everything that happened to a task."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from campaigns.states import (
    ACTIVE,
    FINAL,
    OPEN,
    TABS,
    Busy,
    CampaignKind,
    CampaignStatus,
    EventKind,
    Policy,
    Reason,
    Region,
    RetryInterval,
    RetryTimes,
    TaskStatus,
)
from devices.models import DEFAULT_MODULE, Device, Product
from firmware.models import Firmware
from otaplatform.accounts.models import Account


class CampaignQuerySet(models.QuerySet["Campaign"]):
    def of(self, account: Account | None) -> "CampaignQuerySet":
        """The campaigns of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(account=account)

    def running(self) -> "CampaignQuerySet":
        return self.filter(status=CampaignStatus.IN_PROGRESS)

    def due(self, now: datetime | None = None) -> "CampaignQuerySet":
        """Planned, and the scheduled time has come."""
        return self.filter(status=CampaignStatus.PLANNED, schedule_at__lte=now or timezone.now())

    def unexpanded(self) -> "CampaignQuerySet":
        """Launched (or due and started), with devices still to be given their task."""
        return self.filter(expanded_at__isnull=True).exclude(status=CampaignStatus.CANCELED)

    def matching(self) -> "CampaignQuerySet":
        """Dynamic campaigns that still take in devices, newest first."""
        return self.running().filter(policy=Policy.DYNAMIC, matching_stopped_at__isnull=True).order_by("-id")


class Campaign(models.Model):
    """One validation or one batch update of a firmware."""

    account = models.ForeignKey(Account, models.PROTECT, verbose_name=_("account"), related_name="campaigns")
    product = models.ForeignKey(Product, models.PROTECT, verbose_name=_("product"), related_name="campaigns")
    firmware = models.ForeignKey(
        Firmware, models.PROTECT, verbose_name=_("firmware"), related_name="campaigns"
    )
    kind = models.CharField(_("kind"), max_length=7, choices=CampaignKind)
    policy = models.CharField(_("update policy"), max_length=7, choices=Policy, default=Policy.STATIC)
    region = models.CharField(_("update region"), max_length=11, choices=Region, default=Region.ALL)
    # Empty: devices on any version.
    source_versions: Any = models.JSONField(_("pending update versions"), default=list, blank=True)
    schedule_at = models.DateTimeField(_("scheduled time"), null=True, blank=True)
    retry_interval_minutes = models.PositiveSmallIntegerField(
        _("retry after failed update"), null=True, blank=True, choices=RetryInterval
    )
    max_retries = models.PositiveSmallIntegerField(
        _("max. retry times"), null=True, blank=True, choices=RetryTimes
    )
    timeout_minutes = models.PositiveIntegerField(
        _("time-out per device (minutes)"),
        null=True,
        blank=True,
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(1440)],
    )
    max_per_minute = models.PositiveIntegerField(
        _("devices per minute"),
        null=True,
        blank=True,
        validators=[MinValueValidator(10), MaxValueValidator(1_000_000)],
    )
    busy = models.CharField(_("busy devices"), max_length=7, choices=Busy, default=Busy.LEAVE)

    status = models.CharField(
        _("status"), max_length=11, choices=CampaignStatus, default=CampaignStatus.PLANNED, editable=False
    )
    is_paused = models.BooleanField(_("paused"), default=False, editable=False)
    matching_stopped_at = models.DateTimeField(_("matching stopped"), null=True, editable=False)
    # What the launch page counted before the operator agreed.
    preview: Any = models.JSONField(_("preview"), default=dict, blank=True, editable=False)
    # Expansion walks device ids upwards; a tick resumes behind the cursor.
    cursor = models.BigIntegerField(default=0, editable=False)
    expanded_at = models.DateTimeField(null=True, editable=False)
    # The second walk of a scheduled campaign: SCHEDULED tasks start behind this task id.
    start_cursor = models.BigIntegerField(default=0, editable=False)
    # Statuses whose tasks a running cancel still has to end, e.g. ["QUEUED"]; a tick resumes it.
    canceling: Any = models.JSONField(default=list, blank=True, editable=False)
    file_checked_at = models.DateTimeField(null=True, editable=False)
    # The minute that the rate limit counts in, and how many devices it has let through.
    rate_minute = models.DateTimeField(null=True, editable=False)
    rate_used = models.PositiveIntegerField(default=0, editable=False)

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, verbose_name=_("launched by"), null=True, related_name="+"
    )
    created_at = models.DateTimeField(_("launched"), default=timezone.now, editable=False)
    started_at = models.DateTimeField(_("started"), null=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, editable=False)

    objects = CampaignQuerySet.as_manager()

    class Meta:
        verbose_name = _("update batch")
        verbose_name_plural = _("update batches")
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(schedule_at__isnull=True) | Q(policy=Policy.STATIC),
                name="campaign_scheduled_is_static",
            ),
            models.CheckConstraint(
                condition=Q(retry_interval_minutes__isnull=True, max_retries__isnull=True)
                | Q(retry_interval_minutes__in=RetryInterval.values, max_retries__in=RetryTimes.values),
                name="campaign_retry_known",
            ),
            models.CheckConstraint(
                condition=Q(timeout_minutes__isnull=True) | Q(timeout_minutes__range=(1, 1440)),
                name="campaign_timeout_range",
            ),
            models.CheckConstraint(
                condition=Q(max_per_minute__isnull=True) | Q(max_per_minute__range=(10, 1_000_000)),
                name="campaign_rate_range",
            ),
            models.UniqueConstraint(
                fields=["firmware"],
                condition=Q(
                    policy=Policy.DYNAMIC, status=CampaignStatus.IN_PROGRESS, matching_stopped_at__isnull=True
                ),
                name="campaign_one_dynamic_per_firmware",
                violation_error_message=_("This firmware already has a running dynamic batch."),
            ),
        ]
        indexes = [
            # Ticks look only at what is not finished.
            models.Index(
                fields=["status", "id"],
                condition=Q(status__in=[CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS]),
                name="campaign_unfinished",
            ),
            models.Index(fields=["account", "-id"], name="campaign_account_newest"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def max_attempts(self) -> int:
        return 1 + (self.max_retries or 0)


# The claim's index: what could be pushed now. A due row whose device is offline has ready_at NULL.
READY = Q(status=TaskStatus.QUEUED, ready_at__isnull=False)
# In the middle of an update and just come back: a word of theirs is waited for.
AWAITED = Q(status=TaskStatus.IN_PROGRESS, ready_at__isnull=False)
JUDGED = Q(stray_until__isnull=False)


# Devices whose ids are listed in a query rather than asked for inside it.
FEW = 500


class UpdateTaskQuerySet(models.QuerySet["UpdateTask"]):
    def of(self, account: Account | None) -> "UpdateTaskQuerySet":
        """The tasks of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(campaign__account=account)

    def active(self) -> "UpdateTaskQuerySet":
        return self.filter(status__in=ACTIVE)

    def open(self) -> "UpdateTaskQuerySet":
        return self.filter(status__in=OPEN)

    def over_and_known(self) -> "UpdateTaskQuerySet":
        """Tasks that are over and that their device was told of, in whichever attempt, or that succeeded."""
        told = Q(pushed_at__isnull=False) | Q(attempt__gt=1)
        return self.filter(told | Q(status=TaskStatus.SUCCEEDED), status__in=FINAL)

    def in_tab(self, tab: str) -> "UpdateTaskQuerySet":
        """The rows of a tab of Update Details (a key of `states.TABS`)."""
        return self.filter(status__in=TABS[tab])

    def of_devices_named(self, prefix: str, products: Sequence[int]) -> "UpdateTaskQuerySet":
        """Tasks of devices of these products whose name begins with a prefix, those removed since too.

        A few devices are looked up first, because then an index leads to their tasks; a prefix of many is
        soon met while walking the tasks.
        """
        devices = Device.objects.filter(product__in=products).named_from(prefix)
        # Present and removed devices each have an index of their own; their union would use neither.
        each = (devices.present(), devices.filter(removed_at__isnull=False))
        few = [pk for some in each for pk in some.values_list("id", flat=True)[: FEW + 1]]
        if len(few) <= FEW:
            return self.filter(device__in=few)
        return self.filter(device__in=devices.values("id"))


class UpdateTask(models.Model):
    """One device in one campaign. The row is the queue: what is not in it does not happen.

    `status` is written by `campaigns.moves` alone.
    """

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, verbose_name=_("update batch"), related_name="tasks", db_index=False
    )
    # No database constraint: it would be 40 % of the cost of an expansion; devices are marked, not deleted.
    device = models.ForeignKey(
        Device, models.DO_NOTHING, verbose_name=_("device"), related_name="tasks", db_constraint=False
    )
    firmware = models.ForeignKey(
        Firmware,
        models.DO_NOTHING,
        verbose_name=_("firmware"),
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    module = models.CharField(_("module"), max_length=64, default=DEFAULT_MODULE)
    # Empty, or the module in a campaign that updates several modules of a device side by side.
    lane = models.CharField(max_length=64, blank=True, default="")
    match_number = models.PositiveSmallIntegerField(default=1)
    from_version = models.CharField(_("from version"), max_length=64, blank=True, default="")
    to_version = models.CharField(_("to version"), max_length=64)

    status = models.CharField(_("status"), max_length=11, choices=TaskStatus)
    progress = models.PositiveSmallIntegerField(_("progress"), default=0)
    reason = models.CharField(_("reason"), max_length=17, choices=Reason, blank=True, default="")
    detail = models.CharField(_("device's words"), max_length=256, blank=True, default="")
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)
    # Fallbacks to the source version in this attempt.
    returns = models.PositiveSmallIntegerField(default=0)
    # Pushes of this attempt, and those of them since its last step.
    pushes = models.PositiveSmallIntegerField(db_default=0)
    stepless = models.PositiveSmallIntegerField(db_default=0)
    # The furthest step since the last push, and when the last one came.
    last_step = models.PositiveSmallIntegerField(null=True)
    stepped_at = models.DateTimeField(null=True, blank=True)
    # A fallback after the last push was counted already, or cannot be told from our own restart.
    has_returned = models.BooleanField(db_default=False)

    due_at = models.DateTimeField(_("due"), null=True, blank=True)
    # When it may be pushed; of a task that is updating, until when its device is waited for to go on.
    ready_at = models.DateTimeField(null=True, blank=True)
    # Handed to the publisher; NULL until the first push of this attempt.
    pushed_at = models.DateTimeField(_("pushed"), null=True, blank=True)
    # The broker's PUBACK for that push.
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    # When a version that has to stand before it counts is judged; of a task that is over, for a reversion.
    stray_until = models.DateTimeField(null=True, blank=True)
    # Last push, step that grew or byte downloaded: what the time-out counts from.
    active_at = models.DateTimeField(null=True, blank=True)
    is_late = models.BooleanField(_("finished late"), default=False)
    is_reverted = models.BooleanField(_("reverted"), default=False)
    downloads = models.PositiveIntegerField(_("downloads"), default=0)
    # How far into the file the device got since the last push, and when that was last written down.
    downloaded_bytes = models.BigIntegerField(db_default=0)
    downloaded_at = models.DateTimeField(null=True, blank=True)
    # By an operator's "update again": links from before this time are dead.
    restarted_at = models.DateTimeField(null=True, blank=True)
    # When the device last asked for the file with the link of its last push.
    requested_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    changed_at = models.DateTimeField(_("last change"), default=timezone.now)

    objects = UpdateTaskQuerySet.as_manager()

    class Meta:
        verbose_name = _("update task")
        verbose_name_plural = _("update tasks")
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "device", "module", "match_number"], name="task_once_per_match"
            ),
            models.UniqueConstraint(
                fields=["device", "lane"],
                condition=Q(status__in=sorted(ACTIVE)),
                name="task_one_active_per_device",
            ),
            models.CheckConstraint(condition=Q(progress__range=(0, 100)), name="task_progress_range"),
        ]
        indexes = [
            models.Index(fields=["campaign", "status", "id"], name="task_list"),
            models.Index(fields=["campaign", "ready_at"], condition=READY, name="task_ready"),
            # The few that ticks look for whatever their batch: waited for, and to be judged.
            models.Index(fields=["ready_at"], condition=AWAITED, name="task_awaited"),
            models.Index(fields=["stray_until"], condition=JUDGED, name="task_judged"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class TaskEvent(models.Model):
    """Something that happened to a task: a move, a push, a failure. Rows are only ever added."""

    task = models.ForeignKey(
        UpdateTask, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="events"
    )
    at = models.DateTimeField(_("time"))
    kind = models.CharField(_("event"), max_length=13, choices=EventKind)
    before = models.CharField(max_length=11, choices=TaskStatus, blank=True, default="")
    after = models.CharField(max_length=11, choices=TaskStatus, blank=True, default="")
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)
    step = models.SmallIntegerField(_("step"), null=True)
    reason = models.CharField(_("reason"), max_length=17, choices=Reason, blank=True, default="")
    version = models.CharField(_("version"), max_length=64, blank=True, default="")
    detail = models.CharField(_("details"), max_length=256, blank=True, default="")

    class Meta:
        verbose_name = _("task event")
        verbose_name_plural = _("task events")
        indexes = [models.Index(fields=["task", "id"], name="event_of_task")]

    def __str__(self) -> str:
        return f"{self.kind} {self.after}"


class CampaignDevice(models.Model):
    """A device that an operator chose for a directional campaign or a validation."""

    campaign = models.ForeignKey(Campaign, models.CASCADE, related_name="chosen", db_index=False)
    device = models.ForeignKey(
        Device, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )

    class Meta:
        verbose_name = _("chosen device")
        verbose_name_plural = _("chosen devices")
        constraints = [models.UniqueConstraint(fields=["campaign", "device"], name="campaign_device_once")]

    def __str__(self) -> str:
        return f"{self.campaign_id}/{self.device_id}"


class CampaignCounterQuerySet(models.QuerySet["CampaignCounter"]):
    def totals(self, campaign_ids: list[int]) -> dict[int, dict[str, int]]:
        """{campaign id: {status: tasks}} with every status present."""
        totals: dict[int, dict[str, int]] = {pk: dict.fromkeys(TaskStatus.values, 0) for pk in campaign_ids}
        rows = (
            self.filter(campaign__in=campaign_ids).values("campaign", "status").annotate(tasks=Sum("count"))
        )
        for row in rows:
            totals[row["campaign"]][row["status"]] = row["tasks"]
        return totals


class CampaignCounter(models.Model):
    """How many tasks of a campaign are in a status, spread over slots so that writers do not queue."""

    campaign = models.ForeignKey(Campaign, models.CASCADE, db_index=False)
    status = models.CharField(max_length=11, choices=TaskStatus)
    slot = models.PositiveSmallIntegerField()
    count = models.BigIntegerField(default=0)

    objects = CampaignCounterQuerySet.as_manager()

    class Meta:
        verbose_name = _("campaign counter")
        verbose_name_plural = _("campaign counters")
        constraints = [
            models.UniqueConstraint(fields=["campaign", "status", "slot"], name="campaign_counter_key")
        ]

    def __str__(self) -> str:
        return f"{self.status}: {self.count}"
