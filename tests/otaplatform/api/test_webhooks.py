"""Webhooks: what is told, to whom, how it is signed, where it may go, and what if nobody answers."""

import hashlib
import hmac
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Max
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from campaigns import services as updates
from campaigns.models import Campaign, TaskEvent
from campaigns.services import Plan
from devices.models import Product
from firmware.models import Firmware
from otaplatform.accounts.models import Account, AuditEntry
from otaplatform.api.models import DeliveryStatus, Webhook, WebhookCursor, WebhookDelivery, WebhookEvent
from otaplatform.api.webhooks import addresses, collect, send, services
from tests.factories import AccountFactory, DeviceFactory, FirmwareFactory, ProductFactory
from tests.otaplatform.api.conftest import V1, code_of, work

POSTGRES = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")

Received = list[tuple[dict[str, str], bytes]]


class Receiver(HTTPServer):
    """A local web server that answers with `status` and keeps what it was sent."""

    def __init__(self) -> None:
        self.status, self.headers, self.received = 204, {}, []
        super().__init__(("127.0.0.1", 0), Handler)

    status: int
    headers: dict[str, str]
    received: Received

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OTA_WEBHOOK_ALLOW_PRIVATE = True
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def look() -> None:
    """Look until everything counts: other writers of the server hold a look up for a moment."""
    for _ in range(3000):
        collect.collect()
        last = TaskEvent.objects.aggregate(last=Max("id"))["last"] or 0
        if WebhookCursor.objects.get().task_event >= last:
            return
        threading.Event().wait(0.02)
    raise AssertionError("events never became complete")


@pytest.fixture
def hook(account: Account) -> Callable[..., Webhook]:
    def make(url: str = "https://example.com/hook", **values: Any) -> Webhook:
        owner = values.pop("account", account)
        webhook = services.create_webhook(owner, url=url, actor=None, **values)
        look()
        return webhook

    return make


@pytest.fixture
def finished(firmware: Firmware) -> Callable[[], Campaign]:
    """A batch with a device that succeeds and one that fails, run from start to end."""

    def run() -> Campaign:
        for name in ("meter-1", "meter-2"):
            DeviceFactory.create(product=firmware.product, name=name, version="1.0", online=True)
        campaign = updates.launch_batch(firmware, Plan(accept_unproven=True))
        work(failing=("meter-2",))
        return campaign

    return run


def events(webhook: Webhook) -> list[str]:
    return sorted(webhook.deliveries.values_list("event", flat=True))


# ---- what is told ------------------------------------------------------------------------------------


def test_a_batch_tells_its_launch_its_end_and_each_device(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook()
    campaign = finished()
    look()
    assert events(webhook) == ["campaign.completed", "campaign.launched", "task.failed", "task.succeeded"]
    failed = webhook.deliveries.get(event=WebhookEvent.TASK_FAILED).payload
    assert failed["data"]["device_name"] == "meter-2"
    assert (failed["data"]["reason"], failed["data"]["detail"]) == ("DOWNLOAD", "no route")
    ended = webhook.deliveries.get(event=WebhookEvent.CAMPAIGN_COMPLETED).payload["data"]
    assert (ended["campaign"], ended["counts"]["succeeded"]) == (campaign.pk, 1)


def test_looking_again_tells_nothing_twice(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook()
    finished()
    for _ in range(3):
        look()
        WebhookCursor.objects.update(task_event=0)
    assert len(events(webhook)) == 4


def test_a_batch_that_runs_again_ends_again(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    webhook = hook(events=["campaign.completed"])
    campaign = finished()
    look()
    updates.update_again(campaign)
    work()
    look()
    assert events(webhook) == ["campaign.completed"] * 2


def test_a_canceled_batch_is_told(hook: Callable[..., Webhook], firmware: Firmware) -> None:
    webhook = hook()
    updates.cancel_campaign(updates.launch_batch(firmware, Plan(accept_unproven=True)))
    look()
    assert events(webhook) == ["campaign.canceled", "campaign.launched"]


def test_only_what_was_asked_for_is_told_and_only_to_the_account(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    picky = hook(events=["task.failed"])
    foreign = hook(account=AccountFactory.create())
    silent = hook(is_enabled=False)
    finished()
    look()
    assert events(picky) == ["task.failed"]
    assert events(foreign) == events(silent) == []


def test_what_happened_before_a_webhook_was_made_is_not_told(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    finished()
    webhook = hook()
    look()
    assert events(webhook) == []


def test_an_idle_look_takes_a_constant_few_queries(
    hook: Callable[..., Webhook], django_assert_max_num_queries: Any
) -> None:
    hook()
    with django_assert_max_num_queries(12):
        collect.collect()
        send.send_due()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not POSTGRES, reason="SQLite has one writer")
def test_an_event_that_is_committed_after_a_later_one_is_not_missed(
    hook: Callable[..., Webhook], finished: Callable[[], Campaign]
) -> None:
    """A transaction that is open during a look keeps everything since from counting as complete."""
    webhook = hook(events=["task.failed"])
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT pg_current_xact_id()")
                begun.set()
                assert end.wait(60)
                cursor.execute("COMMIT")
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    finished()
    collect.collect()
    collect.collect()
    assert events(webhook) == []
    end.set()
    thread.join(60)
    look()
    assert events(webhook) == ["task.failed"]


# ---- how it is sent ----------------------------------------------------------------------------------


def waiting(webhook: Webhook, number: int = 1) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        webhook=webhook,
        key=f"task.failed:{number}",
        event=WebhookEvent.TASK_FAILED,
        payload={"id": f"task.failed:{number}"},
        due_at=timezone.now(),
    )


def test_a_message_is_signed_with_its_time(hook: Callable[..., Webhook], receiver: Receiver) -> None:
    webhook = hook(receiver.url)
    delivery = waiting(webhook)
    assert send.send_due() == 1
    ((headers, body),) = receiver.received
    signed = f"{headers['OTA-Timestamp']}.".encode() + body
    mac = hmac.new(webhook.secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["OTA-Signature"] == f"v1={mac}"
    assert json.loads(body) == {"id": "task.failed:1"}
    assert (headers["OTA-Event"], headers["OTA-Delivery"]) == ("task.failed", str(delivery.pk))
    delivery.refresh_from_db()
    assert (delivery.status, delivery.response_status) == (DeliveryStatus.DELIVERED, 204)
    assert send.send_due() == 0


def test_what_is_not_taken_is_sent_later_and_later_and_then_given_up(
    hook: Callable[..., Webhook], receiver: Receiver
) -> None:
    receiver.status = 500
    delivery = waiting(hook(receiver.url))
    waits = []
    for _ in range(len(send.BACK_OFF) + 1):
        assert delivery.due_at is not None
        send.send_due(delivery.due_at)
        delivery.refresh_from_db()
        if delivery.due_at:
            assert delivery.sent_at is not None
            waits.append(delivery.due_at - delivery.sent_at)
    assert waits == send.BACK_OFF
    assert (delivery.status, delivery.response_status) == (DeliveryStatus.FAILED, 500)
    receiver.status = 200
    assert services.send_again(delivery)
    assert not services.send_again(delivery)
    send.send_due()
    delivery.refresh_from_db()
    assert delivery.status == DeliveryStatus.DELIVERED


def test_a_redirect_is_not_followed(hook: Callable[..., Webhook], receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"Location": receiver.url}
    delivery = waiting(hook(receiver.url))
    send.send_due()
    delivery.refresh_from_db()
    assert (len(receiver.received), delivery.response_status) == (1, 302)


def test_a_dead_address_holds_up_nobody_and_is_left_alone_until_the_next_tick(
    hook: Callable[..., Webhook], receiver: Receiver
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = hook(f"http://127.0.0.1:{free.getsockname()[1]}/")
    for number in range(5):
        waiting(dead, number)
    living = waiting(hook(receiver.url))
    assert send.send_due() == 2
    living.refresh_from_db()
    assert living.status == DeliveryStatus.DELIVERED
    assert sorted(dead.deliveries.values_list("attempts", flat=True)) == [0, 0, 0, 0, 1]
    assert "connect" in dead.deliveries.get(attempts=1).error


def test_a_claimed_delivery_is_nobody_else_s(hook: Callable[..., Webhook]) -> None:
    webhook, now = hook(), timezone.now()
    waiting(webhook)
    assert len(send.claim(webhook, now + timedelta(seconds=1))) == 1
    assert send.claim(webhook, now + timedelta(seconds=1)) == []
    assert len(send.claim(webhook, now + timedelta(seconds=2) + send.LEASE)) == 1


def test_a_disabled_webhook_is_sent_nothing(hook: Callable[..., Webhook], receiver: Receiver) -> None:
    waiting(hook(receiver.url, is_enabled=False))
    assert send.send_due() == 0


def test_an_endless_answer_is_cut_off(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "LONGEST_CALL", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        result = send.call(url, "s", 1, "task.failed", {})
    assert result.status is None
    assert result.error


def test_old_deliveries_are_forgotten_but_none_that_waits(hook: Callable[..., Webhook]) -> None:
    webhook = hook()
    for number, status in enumerate(DeliveryStatus.values):
        WebhookDelivery.objects.filter(pk=waiting(webhook, number).pk).update(status=status)
    assert send.forget() == 0
    assert send.forget(timezone.now() + send.KEEP + timedelta(days=1)) == 2


# ---- where it may go ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "https://",
        "https://user:pw@example.com/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://a.localhost/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: y",
    ],
)
def test_addresses_inside_our_own_network_are_refused(account: Account, url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.create_webhook(account, url=url, actor=None)
    assert "url" in refused.value.message_dict


def test_a_name_that_leads_inside_is_not_called(
    hook: Callable[..., Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only one of its addresses does; and what was judged is what is connected to."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    monkeypatch.setattr(socket, "create_connection", lambda *args: pytest.fail("connected"))
    delivery = waiting(hook("http://rebinding.example/"))
    send.send_due()
    delivery.refresh_from_db()
    assert "private network" in delivery.error


def test_the_connection_goes_to_the_judged_address_without_asking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def lookup(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    connected: list[Any] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert send.call("http://example.com/", "s", 1, "task.failed", {}).status is None
    assert (asked, connected) == (["example.com"], [("93.184.216.34", 80)])


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_alike_however_it_is_written(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    mapped = ipaddress.IPv6Address(f"::ffff:{plain}")
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + number)
    assert addresses.is_allowed(plain) == addresses.is_allowed(mapped) == addresses.is_allowed(nat64)


# ---- by program and in the console -------------------------------------------------------------------


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


def test_a_firmware_of_another_account_tells_that_account_only(
    hook: Callable[..., Webhook], account: Account
) -> None:
    webhook = hook()
    other = FirmwareFactory.create(product=ProductFactory.create())
    updates.launch_batch(other, Plan(accept_unproven=True))
    look()
    assert events(webhook) == []
