"""The audit log, one's own tokens, webhooks."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from knox.models import AuthToken
from rest_framework.request import Request
from rest_framework.response import Response

from otaplatform.accounts import tokens
from otaplatform.accounts.models import AuditEntry
from otaplatform.api import paging
from otaplatform.api.base import Filters, Resource, one
from otaplatform.api.models import Webhook, WebhookDelivery
from otaplatform.api.serializers import others as shapes
from otaplatform.api.webhooks import services


class AuditResource(Resource):
    """The audit log of the account."""

    permissions = {"list": "accounts.view_auditentry"}
    outputs = {"list": (200, shapes.AuditShown)}
    filters = {"list": shapes.AuditFilters}

    def list(self, request: Request) -> Response:
        """Who did what, newest first."""
        columns = {
            "action": "action",
            "actor": "actor_name",
            "object_type": "object_type",
            "object_id": "object_id",
        }
        asked, rows = self.asked(), AuditEntry.objects.all()
        if self.account is not None:
            rows = rows.filter(account=self.account)
        rows = rows.filter(**{columns[name]: value for name, value in asked.items() if name in columns})
        return self.list_of(self.page(rows))


class TokenResource(Resource):
    """The tokens of the user who asks; whoever may change users also sees and ends those of their account."""

    inputs = {"create": shapes.TokenNew}
    outputs = {
        "list": (200, shapes.TokenShown),
        "create": (201, shapes.TokenCreated),
        "destroy": (204, None),
    }
    filters = {"list": shapes.TokenFilters}

    def get_queryset(self) -> "QuerySet[AuthToken]":
        return tokens.visible_to(self.actor, self.account)

    def list(self, request: Request) -> Response:
        """One's own tokens, by their first characters; with `everybody` all that one may revoke."""
        rows = self.get_queryset()
        if not self.asked().get("everybody"):
            rows = rows.filter(user=self.actor)
        found = list(rows.order_by("-created", "token_key")[: tokens.MOST_LISTED])
        size = self.asked().get("page_size", paging.PAGE_SIZE)
        return self.list_of(paging.page_of_list(request, found, size=size))

    def create(self, request: Request) -> Response:
        """A new token. Its text is in this answer only."""
        row, token = tokens.issue(self.actor, self.read().get("days"))
        return self.show({"token": token, "key": row.token_key, "expires_at": row.expiry})

    def destroy(self, request: Request, key: str) -> Response:
        """Revoke a token at once."""
        for token in (found := list(self.get_queryset().filter(token_key=key))):
            tokens.revoke(token, self.actor)
        if not found:
            raise Http404
        return Response(status=204)


class WebhookResource(Resource):
    """Webhooks of the account."""

    permissions = {
        "list": "api.view_webhook",
        "retrieve": "api.view_webhook",
        "create": "api.add_webhook",
        "partial_update": "api.change_webhook",
        "destroy": "api.delete_webhook",
        "new_secret": "api.change_webhook",
        "deliveries": "api.view_webhookdelivery",
        "send_again": "api.change_webhook",
    }
    inputs = {"create": shapes.WebhookNew, "partial_update": shapes.WebhookEdit}
    outputs = {
        "list": (200, shapes.WebhookShown),
        "retrieve": (200, shapes.WebhookShown),
        "create": (201, shapes.WebhookCreated),
        "partial_update": (200, shapes.WebhookShown),
        "destroy": (204, None),
        "new_secret": (200, shapes.WebhookCreated),
        "deliveries": (200, shapes.DeliveryShown),
        "send_again": (200, shapes.DeliveryShown),
    }
    filters = {"list": Filters, "deliveries": shapes.DeliveryFilters}

    def get_queryset(self) -> "QuerySet[Webhook]":
        return Webhook.objects.of(self.account)

    def webhook(self) -> Webhook:
        webhook: Webhook = one(self.get_queryset(), pk=self.kwargs["pk"])
        return webhook

    def list(self, request: Request) -> Response:
        """Webhooks, newest first."""
        return self.list_of(self.page(self.get_queryset()))

    def create(self, request: Request) -> Response:
        """A new webhook. The secret of its signatures is in this answer only."""
        return self.show(services.create_webhook(self.own_account, **self.read(), actor=self.actor))

    def retrieve(self, request: Request, pk: int) -> Response:
        """One webhook; its ETag is what an edit sends as If-Match."""
        return self.show(self.webhook())

    def partial_update(self, request: Request, pk: int) -> Response:
        """Another address, other events, on or off."""
        data = self.read()
        with transaction.atomic():
            webhook = one(self.get_queryset().select_for_update(), pk=pk)
            self.unchanged(webhook)
            values: dict[str, Any] = {
                "url": webhook.url,
                "events": webhook.events,
                "is_enabled": webhook.is_enabled,
            }
            services.change_webhook(webhook, **values | data, actor=self.actor)
        return self.show(webhook)

    def destroy(self, request: Request, pk: int) -> Response:
        """Delete a webhook with its deliveries."""
        with transaction.atomic():
            webhook = one(self.get_queryset().select_for_update(), pk=pk)
            self.unchanged(webhook)
            services.remove_webhook(webhook, self.actor)
        return Response(status=204)

    def new_secret(self, request: Request, pk: int) -> Response:
        """Replace the secret of the signatures."""
        webhook = self.webhook()
        services.new_secret(webhook, self.actor)
        return self.show(webhook)

    def deliveries(self, request: Request, pk: int) -> Response:
        """What was sent, newest first."""
        asked, rows = self.asked(), self.webhook().deliveries.all()
        if status := asked.get("status"):
            rows = rows.filter(status=status)
        return self.list_of(self.page(rows))

    def send_again(self, request: Request, pk: int, delivery: int) -> Response:
        """Queue a finished delivery once more; one that is waiting stays as it is."""
        row: WebhookDelivery = one(self.webhook().deliveries.all(), pk=delivery)
        services.send_again(row, self.actor)
        row.refresh_from_db()
        return self.show(row)
