"""A receiver of webhooks, and what the tests of them share."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from django.db.models import Max
from django.utils import timezone

from campaigns.models import TaskEvent
from otaplatform.api.models import Webhook, WebhookCursor, WebhookDelivery, WebhookEvent
from otaplatform.api.webhooks import collect

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


def look() -> None:
    """Look until everything counts: other writers of the server hold a look up for a moment."""
    for _ in range(3000):
        collect.collect()
        last = TaskEvent.objects.aggregate(last=Max("id"))["last"] or 0
        if WebhookCursor.objects.get().task_event >= last:
            return
        threading.Event().wait(0.02)
    raise AssertionError("events never became complete")


def waiting(webhook: Webhook, number: int = 1) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        webhook=webhook,
        key=f"task.failed:{number}",
        event=WebhookEvent.TASK_FAILED,
        payload={"id": f"task.failed:{number}"},
        due_at=timezone.now(),
    )
