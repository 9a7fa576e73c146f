"""Campaigns, their tasks, and the events of those. Statuses are written in lower case, reasons as codes."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from campaigns.history import describe
from campaigns.models import Campaign, CampaignCounter, TaskEvent, UpdateTask
from campaigns.services import EXCLUSIONS, MAX_CHOSEN
from campaigns.states import OPEN, CampaignKind, CampaignStatus, EventKind, Reason, TaskStatus
from campaigns.why import why
from otaplatform.api.base import Filters
from otaplatform.api.fields import MAX_ID, Choice, Choices, Shown, Strict, StrictModel, Texts, Truth, Whole

STATUSES = [status.lower() for status in TaskStatus.values]
COUNTED = [
    TaskStatus.SCHEDULED,
    TaskStatus.QUEUED,
    TaskStatus.NOTIFIED,
    TaskStatus.IN_PROGRESS,
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
    TaskStatus.CANCELED,
]
_STATUS = {"type": "string", "enum": STATUSES}
_REASONS = [("", ""), *Reason.choices]
EXCLUDED_SHOWN = 1000


class Counts(serializers.Serializer[Any]):
    scheduled = serializers.IntegerField()
    queued = serializers.IntegerField()
    notified = serializers.IntegerField()
    in_progress = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    canceled = serializers.IntegerField()


class CampaignShown(Shown):
    """With `totals`, the stored counts of the page's campaigns, in the context."""

    product: Any = serializers.SlugRelatedField(slug_field="product_key", read_only=True)
    version = serializers.CharField(source="firmware.version", read_only=True)
    counts = serializers.SerializerMethodField()
    source_versions = serializers.ListField(child=serializers.CharField(), read_only=True)
    created_by: Any = serializers.SlugRelatedField(slug_field="username", read_only=True, allow_null=True)

    class Meta:
        model = Campaign
        fields = (
            "id",
            "kind",
            "status",
            "is_paused",
            "product",
            "firmware",
            "version",
            "policy",
            "region",
            "source_versions",
            "schedule_at",
            "retry_interval_minutes",
            "max_retries",
            "timeout_minutes",
            "max_per_minute",
            "busy",
            "counts",
            "matching_stopped_at",
            "created_by",
            "created_at",
            "started_at",
            "finished_at",
        )

    @extend_schema_field(Counts)
    def get_counts(self, campaign: Campaign) -> dict[str, int]:
        totals = self.context.get("totals") or CampaignCounter.objects.totals([campaign.pk])
        return {status.lower(): totals[campaign.pk][status] for status in COUNTED}


class CampaignNew(StrictModel):
    firmware = Whole(min_value=1, max_value=MAX_ID)
    device_names = Texts(limit=MAX_CHOSEN, required=False)
    source_versions = Texts(limit=1000, required=False)
    accept_unproven = Truth(required=False)
    confirm_downgrade = Truth(required=False)

    class Meta:
        model = Campaign
        fields = (
            "firmware",
            "policy",
            "region",
            "device_names",
            "source_versions",
            "schedule_at",
            "retry_interval_minutes",
            "max_retries",
            "timeout_minutes",
            "max_per_minute",
            "busy",
            "accept_unproven",
            "confirm_downgrade",
        )


class BusyBatch(serializers.Serializer[Any]):
    campaign = serializers.IntegerField()
    devices = serializers.IntegerField()


class Excluded(serializers.Serializer[Any]):
    device_name = serializers.CharField()
    code = serializers.ChoiceField(sorted(EXCLUSIONS))
    message = serializers.CharField()


class PreviewShown(serializers.Serializer[Any]):
    matching = serializers.IntegerField()
    online = serializers.IntegerField()
    not_activated = serializers.IntegerField()
    on_target = serializers.IntegerField()
    on_newer = serializers.IntegerField(help_text="Needs confirm_downgrade if there are any")
    busy = serializers.IntegerField()
    busy_waiting = serializers.IntegerField()
    busy_by_campaign = BusyBatch(many=True)
    needs_accept_unproven = serializers.BooleanField()
    excluded_count = serializers.IntegerField()
    excluded = Excluded(many=True, help_text=f"The first {EXCLUDED_SHOWN} of them")


class CampaignFilters(Filters):
    firmware = serializers.IntegerField(required=False, min_value=1, max_value=MAX_ID)
    product = serializers.CharField(required=False, max_length=20, help_text="ProductKey")
    kind = serializers.ChoiceField(CampaignKind.choices, required=False)
    status = serializers.ChoiceField(CampaignStatus.choices, required=False)


class CancelChoice(Strict):
    states = Choices(
        sorted(status.lower() for status in OPEN),
        required=False,
        help_text="Tasks in these states; left out: all, and the campaign ends",
    )


class RetryChoice(Strict):
    reason = Choice(Reason.choices, required=False, help_text="Left out: all failed tasks")


class Restarted(serializers.Serializer[Any]):
    restarted = serializers.IntegerField(help_text="Tasks that were started over")


class TaskShown(serializers.ModelSerializer[Any]):
    """With `around` and `now` for the reasons, in the context."""

    campaign = serializers.IntegerField(source="campaign_id", read_only=True)
    device_name = serializers.CharField(source="device.name", read_only=True)
    status = serializers.SerializerMethodField()
    reason = serializers.ChoiceField(_REASONS, read_only=True, help_text="Empty, or why it failed")
    max_attempts = serializers.IntegerField(source="campaign.max_attempts", read_only=True)
    why = serializers.SerializerMethodField(help_text="Why the device is not updating yet; null when over")
    why_code = serializers.SerializerMethodField()

    serializer_field_mapping = Shown.serializer_field_mapping

    class Meta:
        model = UpdateTask
        fields = (
            "id",
            "campaign",
            "device_name",
            "status",
            "progress",
            "reason",
            "detail",
            "attempt",
            "max_attempts",
            "due_at",
            "pushed_at",
            "from_version",
            "to_version",
            "why",
            "why_code",
            "is_late",
            "is_reverted",
            "created_at",
            "changed_at",
        )
        read_only_fields = fields

    @extend_schema_field(_STATUS)
    def get_status(self, task: UpdateTask) -> str:
        return task.status.lower()

    def get_why(self, task: UpdateTask) -> str | None:
        gate = why(task, self.context["around"], self.context["now"])
        return None if gate is None else str(gate)

    def get_why_code(self, task: UpdateTask) -> str | None:
        gate = why(task, self.context["around"], self.context["now"])
        return None if gate is None else gate.code


class TaskFilters(Filters):
    status = serializers.ChoiceField(STATUSES, required=False)
    reason = serializers.ChoiceField(Reason.choices, required=False)
    device_name = serializers.CharField(required=False, max_length=32)


class EventShown(Shown):
    before = serializers.SerializerMethodField()
    after = serializers.SerializerMethodField()
    kind = serializers.ChoiceField(EventKind.choices, read_only=True)
    reason = serializers.ChoiceField(_REASONS, read_only=True)
    text = serializers.SerializerMethodField(help_text="The event in words")

    class Meta:
        model = TaskEvent
        fields = (
            "id",
            "at",
            "kind",
            "before",
            "after",
            "attempt",
            "step",
            "reason",
            "version",
            "detail",
            "text",
        )

    @extend_schema_field({"type": "string", "enum": ["", *STATUSES]})
    def get_before(self, event: TaskEvent) -> str:
        return event.before.lower()

    @extend_schema_field({"type": "string", "enum": ["", *STATUSES]})
    def get_after(self, event: TaskEvent) -> str:
        return event.after.lower()

    def get_text(self, event: TaskEvent) -> str:
        return describe(event)
