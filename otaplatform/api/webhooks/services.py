"""What can be done to webhooks. Console and API call these verbs."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from otaplatform.accounts import audit
from otaplatform.accounts.models import Account, User
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery, WebhookEvent
from otaplatform.api.webhooks import addresses

MAX_WEBHOOKS = 20


def create_webhook(
    account: Account,
    *,
    url: str,
    events: Sequence[str] = (),
    is_enabled: bool = True,
    actor: User | None,
    now: datetime | None = None,
) -> Webhook:
    """A new webhook (of all events if none is named) with a secret of its own."""
    webhook = Webhook(account=account, created_at=now or timezone.now())
    webhook.secret = secrets.token_hex(32)
    _set(webhook, url, events, is_enabled)
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        if Webhook.objects.of(account).count() >= MAX_WEBHOOKS:
            raise ValidationError(
                _("An account has at most %(max)s webhooks."), code="quota", params={"max": MAX_WEBHOOKS}
            )
        webhook.save(force_insert=True)
        audit.record(account, actor, "webhook.created", webhook, events=webhook.events)
    return webhook


def change_webhook(
    webhook: Webhook, *, url: str, events: Sequence[str], is_enabled: bool, actor: User | None
) -> Webhook:
    """Another address, other events, on or off; the secret stays."""
    _set(webhook, url, events, is_enabled)
    with transaction.atomic():
        webhook.save(update_fields=["url", "events", "is_enabled"])
        audit.record(webhook.account_id, actor, "webhook.changed", webhook, events=webhook.events)
    return webhook


def _set(webhook: Webhook, url: str, events: Sequence[str], is_enabled: bool) -> None:
    webhook.url, webhook.is_enabled = url, is_enabled
    webhook.events = sorted(set(events) & set(WebhookEvent.values)) or sorted(WebhookEvent.values)
    problems: dict[str, Any] = {}
    try:
        webhook.full_clean(exclude=["account", "events", "secret_encrypted"])
    except ValidationError as error:
        problems = error.error_dict
    if "url" not in problems:
        try:
            addresses.check_url(url)
        except addresses.ForbiddenAddressError as error:
            problems["url"] = [ValidationError(str(error), code="forbidden")]
    if problems:
        raise ValidationError(problems)


def remove_webhook(webhook: Webhook, actor: User | None) -> None:
    """Delete a webhook with its deliveries."""
    with transaction.atomic():
        audit.record(webhook.account_id, actor, "webhook.removed", webhook)
        webhook.delete()


def new_secret(webhook: Webhook, actor: User | None) -> str:
    """Replace the secret; signatures are made with the new one from now on."""
    with transaction.atomic():
        webhook.secret = secret = secrets.token_hex(32)
        webhook.save(update_fields=["secret_encrypted"])
        audit.record(webhook.account_id, actor, "webhook.secret_reset", webhook)
    return secret


def send_again(delivery: WebhookDelivery, actor: User | None, now: datetime | None = None) -> bool:
    """Queue a finished delivery once more, with all its attempts; False if it is waiting already."""
    finished = WebhookDelivery.objects.filter(pk=delivery.pk).exclude(status=DeliveryStatus.WAITING)
    due = {"status": DeliveryStatus.WAITING, "attempts": 0, "due_at": now or timezone.now(), "error": ""}
    with transaction.atomic():
        if not finished.update(**due):
            return False
        webhook = delivery.webhook
        audit.record(webhook.account_id, actor, "webhook.sent_again", webhook, message=delivery.key)
    return True
