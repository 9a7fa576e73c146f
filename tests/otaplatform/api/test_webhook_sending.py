"""Webhooks: how a message is signed and sent, and what if nobody answers."""

import hashlib
import hmac
import json
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery
from otaplatform.api.webhooks import send, services
from tests.otaplatform.api.webhook_tools import Receiver, waiting


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
    assert services.send_again(delivery, None)
    assert not services.send_again(delivery, None)
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
