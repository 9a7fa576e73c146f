"""The console's pages of webhooks: the list, one with the log of its deliveries, and the forms."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from otaplatform.accounts.pages import page_context
from otaplatform.accounts.paging import keyset
from otaplatform.accounts.scope import Staff, account_scope, require
from otaplatform.api.forms import WebhookForm
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookEvent
from otaplatform.api.webhooks import services


def _page(request: HttpRequest, template: str, title: str, **extra: Any) -> HttpResponse:
    context = page_context(request, title, nav="webhooks", **extra)
    return render(request, f"webhooks/{template}.html", context)


def _webhook(request: HttpRequest, pk: int) -> Webhook:
    return get_object_or_404(Webhook.objects.of(account_scope(request)), pk=pk)


@require("api.view_webhook")
def webhook_list(request: Staff) -> HttpResponse:
    """Webhooks, newest first."""
    page = keyset(request, Webhook.objects.of(account_scope(request)).select_related("account"))
    return _page(request, "list", _("Webhooks"), page=page)


@require("api.add_webhook")
def add(request: Staff) -> HttpResponse:
    """A new webhook; its secret is shown once."""
    account = account_scope(request)
    if account is None:
        messages.error(request, _("Choose an account in the header first."))
        return redirect("webhooks:list")
    initial = {"events": WebhookEvent.values, "is_enabled": True}
    form = WebhookForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            webhook = services.create_webhook(account, **form.cleaned_data, actor=request.user)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            return _detail(request, webhook, secret=webhook.secret)
    return _page(request, "form", _("New webhook"), form=form)


@require("api.change_webhook")
def edit(request: Staff, pk: int) -> HttpResponse:
    """Another address, other events, on or off."""
    webhook = _webhook(request, pk)
    initial = {"url": webhook.url, "events": webhook.events, "is_enabled": webhook.is_enabled}
    form = WebhookForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_webhook(webhook, **form.cleaned_data, actor=request.user)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, _("The webhook was saved."))
            return redirect("webhooks:detail", pk)
    return _page(request, "form", _("Edit webhook"), form=form, webhook=webhook)


@require("api.view_webhook", "api.view_webhookdelivery")
def detail(request: Staff, pk: int) -> HttpResponse:
    """One webhook and the log of its deliveries."""
    return _detail(request, _webhook(request, pk))


def _detail(request: HttpRequest, webhook: Webhook, secret: str = "") -> HttpResponse:
    events = [WebhookEvent(event).label for event in webhook.events]
    status = request.GET.get("status", "")
    rows = webhook.deliveries.all()
    if status in DeliveryStatus.values:
        rows = rows.filter(status=status)
    return _page(
        request,
        "detail",
        webhook.url,
        webhook=webhook,
        events=events,
        secret=secret,
        page=keyset(request, rows),
        statuses=DeliveryStatus.choices,
        status=status,
    )


@require_POST
@require("api.change_webhook")
def new_secret(request: Staff, pk: int) -> HttpResponse:
    """Replace the secret and show the new one once."""
    webhook = _webhook(request, pk)
    return _detail(request, webhook, secret=services.new_secret(webhook, request.user))


@require_POST
@require("api.change_webhook")
def send_again(request: Staff, pk: int, delivery: int) -> HttpResponse:
    """Queue a finished delivery once more."""
    row = get_object_or_404(_webhook(request, pk).deliveries, pk=delivery)
    if services.send_again(row, request.user):
        messages.success(request, _("The message will be sent again within seconds."))
    else:
        messages.info(request, _("The message is waiting to be sent already."))
    return redirect("webhooks:detail", pk)


@require("api.delete_webhook")
def remove(request: Staff, pk: int) -> HttpResponse:
    """Ask, then delete the webhook with its deliveries."""
    webhook = _webhook(request, pk)
    if request.method == "POST":
        services.remove_webhook(webhook, request.user)
        messages.success(request, _("The webhook was removed."))
        return redirect("webhooks:list")
    return _page(request, "remove", _("Remove webhook"), webhook=webhook)
