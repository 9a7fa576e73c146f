"""The API's own rows: answers kept for repeated requests, registration jobs, webhooks, deliveries."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from devices.models import Product
from otaplatform.accounts.models import Account
from otaplatform.accounts.secret import Secret


class IdempotencyKey(models.Model):
    """A POST that was made under a key, and its answer once there is one (encrypted: it may hold secrets)."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    # SHA-256 over method, address and body.
    fingerprint = models.CharField(max_length=64)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)
    # NULL while the first request is still running.
    status = models.PositiveSmallIntegerField(null=True)
    answer_encrypted = models.TextField(blank=True)

    answer = Secret("answer_encrypted")

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key


class RegistrationJob(models.Model):
    """A registration of many devices by the API, with what became of each row."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="+")
    product = models.ForeignKey(Product, models.CASCADE, related_name="registration_jobs")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    # [[DeviceName, device id or null, why not]] in the order of the request.
    rows: Any = models.JSONField(default=list)

    class Meta:
        verbose_name = _("registration job")
        verbose_name_plural = _("registration jobs")

    def __str__(self) -> str:
        return f"#{self.pk}"


class WebhookEvent(models.TextChoices):
    CAMPAIGN_LAUNCHED = "campaign.launched", _("Update batch launched")
    CAMPAIGN_COMPLETED = "campaign.completed", _("Update batch completed")
    CAMPAIGN_CANCELED = "campaign.canceled", _("Update batch canceled")
    TASK_SUCCEEDED = "task.succeeded", _("Device updated")
    TASK_FAILED = "task.failed", _("Update of a device failed")


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def of(self, account: Account | None) -> "WebhookQuerySet":
        """The webhooks of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(account=account)


class Webhook(models.Model):
    """An address of the account's own that is told of events."""

    account = models.ForeignKey(Account, models.PROTECT, verbose_name=_("account"), related_name="webhooks")
    url = models.URLField(_("address"), max_length=500)
    secret_encrypted = models.TextField(editable=False)
    events: Any = models.JSONField(_("events"), default=list)
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    secret = Secret("secret_encrypted")

    objects = WebhookQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.url


class DeliveryStatus(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    DELIVERED = "delivered", _("Delivered")
    FAILED = "failed", _("Given up")


class DeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    def due(self, now: datetime) -> "DeliveryQuerySet":
        return self.filter(status=DeliveryStatus.WAITING, due_at__lte=now)


class WebhookDelivery(models.Model):
    """One message to one webhook: the row is the queue, and afterwards the log."""

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries", db_index=False)
    # What it is about ("task.failed:812"); looking at the same event again makes no second delivery.
    key = models.CharField(max_length=80)
    event = models.CharField(_("event"), max_length=20, choices=WebhookEvent)
    payload: Any = models.JSONField(_("message"))
    status = models.CharField(
        _("status"), max_length=9, choices=DeliveryStatus, default=DeliveryStatus.WAITING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    due_at = models.DateTimeField(_("next attempt"), null=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    sent_at = models.DateTimeField(_("last attempt"), null=True)
    response_status = models.PositiveSmallIntegerField(_("answer"), null=True)
    error = models.CharField(_("error"), max_length=200, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        constraints = [models.UniqueConstraint(fields=["webhook", "key"], name="delivery_once")]
        indexes = [
            models.Index(fields=["webhook", "-id"], name="delivery_newest"),
            models.Index(
                fields=["due_at"],
                condition=models.Q(status=DeliveryStatus.WAITING),
                name="delivery_due",
            ),
        ]

    def __str__(self) -> str:
        return self.key


class WebhookCursor(models.Model):
    """How far the events have been looked at: one row.

    `settled` and `horizon` are for PostgreSQL, where a lower id may be committed after a higher one: events
    up to `settled` are complete once every transaction with an id below `horizon` has ended.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    task_event = models.BigIntegerField(default=0)
    settled = models.BigIntegerField(default=0)
    horizon = models.BigIntegerField(default=0)
    campaigns_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("webhook cursor")
        verbose_name_plural = _("webhook cursors")

    def __str__(self) -> str:
        return str(self.task_event)
