"""Webhooks and tokens, by program and in the console."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from devices.models import Product
from otaplatform.accounts.models import Account, AuditEntry
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery, WebhookEvent
from otaplatform.api.webhooks import services
from tests.factories import AccountFactory
from tests.otaplatform.api.conftest import V1, code_of
from tests.otaplatform.api.webhook_tools import Receiver, waiting


def test_webhooks_by_program(
    administrator: APIClient, operator: APIClient, outsider: APIClient, receiver: Receiver
) -> None:
    made = administrator.post(f"{V1}webhooks/", {"url": receiver.url, "events": ["task.failed"]})
    assert made.status_code == 201
    webhook = Webhook.objects.get()
    assert made.json()["secret"] == webhook.secret
    assert webhook.secret not in webhook.secret_encrypted
    url = f"{V1}webhooks/{webhook.pk}/"
    shown = administrator.get(url)
    assert "secret" not in shown.json()
    assert operator.get(url).status_code == 403
    assert outsider.get(url).status_code == outsider.delete(url).status_code == 404
    edited = administrator.patch(url, {"is_enabled": False}, HTTP_IF_MATCH=shown["ETag"]).json()
    assert (edited["is_enabled"], edited["events"]) == (False, ["task.failed"])
    assert administrator.post(f"{url}new-secret/").json()["secret"] != made.json()["secret"]
    delivery = waiting(webhook)
    (row,) = administrator.get(f"{url}deliveries/", {"status": "waiting"}).json()["results"]
    assert row["id"] == delivery.pk
    WebhookDelivery.objects.update(status=DeliveryStatus.FAILED)
    again = f"{url}deliveries/{delivery.pk}/send-again/"
    assert outsider.post(again).status_code == 404
    assert administrator.post(again).json()["status"] == "waiting"
    assert administrator.delete(url).status_code == 204
    assert AuditEntry.objects.filter(action="webhook.removed").exists()


def test_an_account_has_a_bounded_number_of_webhooks(administrator: APIClient, account: Account) -> None:
    for number in range(services.MAX_WEBHOOKS):
        services.create_webhook(account, url=f"https://example.com/{number}", actor=None)
    response = administrator.post(f"{V1}webhooks/", {"url": "https://example.com/"})
    assert code_of(response) == (409, "quota")


@pytest.fixture
def console(person: Any) -> Client:
    browser = Client()
    browser.force_login(person("Administrator"))
    return browser


def test_webhooks_in_the_console(console: Client, receiver: Receiver) -> None:
    assert b"No webhooks yet" in console.get("/webhooks/").content
    body = {"url": receiver.url, "events": ["task.failed"], "is_enabled": "on"}
    made = console.post("/webhooks/new/", body)
    webhook = Webhook.objects.get()
    assert webhook.secret.encode() in made.content
    assert "no-store" in made["Cache-Control"]
    page = f"/webhooks/{webhook.pk}/"
    assert webhook.secret.encode() not in console.get(page).content
    console.post(f"{page}edit/", body | {"events": WebhookEvent.values})
    webhook.refresh_from_db()
    assert len(webhook.events) == len(WebhookEvent.values)
    delivery = waiting(webhook)
    WebhookDelivery.objects.update(status=DeliveryStatus.FAILED, error="HTTP <b>500</b>")
    text = console.get(page, {"status": "failed"}).content.decode()
    assert "Send again" in text
    assert "HTTP &lt;b&gt;500" in text
    console.post(f"{page}deliveries/{delivery.pk}/")
    delivery.refresh_from_db()
    assert delivery.status == DeliveryStatus.WAITING
    before = webhook.secret
    assert console.post(f"{page}secret/").status_code == 200
    webhook.refresh_from_db()
    assert webhook.secret != before
    assert console.get(f"{page}remove/").status_code == 200
    console.post(f"{page}remove/")
    assert not Webhook.objects.exists()


def test_a_refused_address_is_said_on_the_form(console: Client) -> None:
    response = console.post("/webhooks/new/", {"url": "http://127.0.0.1/", "events": ["task.failed"]})
    assert b"private network" in response.content
    assert not Webhook.objects.exists()


def test_webhooks_are_for_administrators_of_their_account(
    person: Any, hook: Callable[..., Webhook], client: Client
) -> None:
    webhook = hook()
    client.force_login(person("Operator"))
    for path in ("/webhooks/", "/webhooks/new/", f"/webhooks/{webhook.pk}/", f"/webhooks/{webhook.pk}/edit/"):
        assert client.get(path).status_code == 403
    client.force_login(person("Administrator", of=AccountFactory.create()))
    for path in (
        f"/webhooks/{webhook.pk}/",
        f"/webhooks/{webhook.pk}/edit/",
        f"/webhooks/{webhook.pk}/remove/",
    ):
        assert client.get(path).status_code == 404
    assert client.post(f"/webhooks/{webhook.pk}/secret/").status_code == 404


def test_tokens_in_the_console(console: Client, product: Product) -> None:
    made = console.post("/me/tokens/", {"days": 7}).content.decode()
    token = made.partition('<code class="mono">')[2].partition("<")[0]
    program = APIClient()
    program.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert program.get(f"{V1}products/").status_code == 200
    page = console.get("/me/tokens/").content.decode()
    assert token[:15] in page
    assert token not in page
    console.post(f"/me/tokens/{token[:15]}/revoke/")
    assert program.get(f"{V1}products/").status_code == 401
