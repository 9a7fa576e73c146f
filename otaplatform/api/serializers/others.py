"""The audit log, tokens, webhooks."""

from typing import Any

from django.conf import settings
from knox.models import AuthToken
from rest_framework import serializers

from otaplatform.accounts.models import AuditEntry
from otaplatform.api.base import Filters
from otaplatform.api.fields import Choices, Moment, Shown, Strict, Truth, Whole
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery, WebhookEvent


class AuditShown(Shown):
    actor = serializers.CharField(source="actor_name", read_only=True)

    class Meta:
        model = AuditEntry
        fields = ("id", "at", "actor", "action", "object_type", "object_id", "object_name", "detail")


class AuditFilters(Filters):
    action = serializers.CharField(required=False, max_length=64)
    actor = serializers.CharField(required=False, max_length=150)
    object_type = serializers.CharField(required=False, max_length=32)
    object_id = serializers.CharField(required=False, max_length=64)


class TokenShown(serializers.ModelSerializer[Any]):
    key = serializers.CharField(source="token_key", read_only=True, help_text="Its first characters")
    created_at = Moment(source="created", read_only=True)
    expires_at = Moment(source="expiry", read_only=True, allow_null=True)

    user = serializers.CharField(source="user.username", read_only=True)

    class Meta:
        model = AuthToken
        fields = ("key", "user", "created_at", "expires_at")


class TokenFilters(Filters):
    everybody = serializers.BooleanField(required=False, help_text="Also those of the account's other people")


class TokenNew(Strict):
    days = Whole(min_value=1, max_value=settings.OTA_TOKEN_MAX_DAYS, required=False, help_text="Left out: 90")


class TokenCreated(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="Shown this once")
    key = serializers.CharField()
    expires_at = Moment()


class WebhookShown(Shown):
    events = serializers.ListField(child=serializers.ChoiceField(WebhookEvent.choices), read_only=True)

    class Meta:
        model = Webhook
        fields = ["id", "url", "events", "is_enabled", "created_at"]


class WebhookCreated(WebhookShown):
    secret = serializers.CharField(read_only=True, help_text="What signatures are made with; shown this once")

    class Meta(WebhookShown.Meta):
        fields = [*WebhookShown.Meta.fields, "secret"]


class WebhookNew(Strict):
    url = serializers.URLField(max_length=500)
    events = Choices(WebhookEvent.choices, required=False, help_text="Left out: all")
    is_enabled = Truth(required=False)


class WebhookEdit(WebhookNew):
    url = serializers.URLField(max_length=500, required=False)


class DeliveryShown(Shown):
    class Meta:
        model = WebhookDelivery
        fields = (
            "id",
            "event",
            "status",
            "attempts",
            "due_at",
            "sent_at",
            "response_status",
            "error",
            "payload",
            "created_at",
        )


class DeliveryFilters(Filters):
    status = serializers.ChoiceField(DeliveryStatus.choices, required=False)
