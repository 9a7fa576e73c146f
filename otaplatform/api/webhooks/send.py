"""Delivering: due rows claimed, signed, sent, and tried again later and later.

`OTA-Signature: v1=` is the HMAC-SHA256, in hex, of `<OTA-Timestamp>.<body>` under the webhook's secret.
"""

import contextlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef
from django.utils import timezone

from otaplatform.api.models import DeliveryStatus, Webhook, WebhookDelivery
from otaplatform.api.webhooks import addresses

# After each failed attempt the next one waits this long; after the last the delivery is given up.
BACK_OFF = [timedelta(seconds=s) for s in (10, 60, 300, 1800, 7200, 21600, 43200, 86400)]
SOCKET_TIMEOUT = 10.0
LONGEST_CALL = 20.0
# One tick stops starting calls after this long, and its claims end after LEASE if it died.
TICK_SECONDS = 30.0
LEASE = timedelta(minutes=2)
THREADS = 8
PER_WEBHOOK = 50
KEEP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one call: the HTTP status, or what went wrong before there was one."""

    status: int | None = None
    error: str = ""

    @property
    def is_ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The signature header of a body."""
    mac = hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, "sha256")
    return f"v1={mac.hex()}"


def send_due(now: datetime | None = None, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Send what is due, webhook by webhook, several at a time; how many calls were made.

    A webhook whose call fails is left alone until the next tick, so a dead one holds up nobody.
    """
    now = now or timezone.now()
    due = WebhookDelivery.objects.due(now).filter(webhook=OuterRef("pk"))
    batches = [claim(webhook, now) for webhook in Webhook.objects.filter(Exists(due), is_enabled=True)]
    deadline = clock() + TICK_SECONDS
    sent = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for rows, results in zip(
            batches, pool.map(lambda rows: _send_batch(rows, deadline, clock), batches), strict=True
        ):
            for row, result in zip(rows, results, strict=False):
                record(row, result, timezone.now())
            unsent = [row.pk for row in rows[len(results) :]]
            WebhookDelivery.objects.filter(pk__in=unsent).update(due_at=now + BACK_OFF[0])
            sent += len(results)
    return sent


def claim(webhook: Webhook, now: datetime) -> list[WebhookDelivery]:
    """Due deliveries of a webhook that are ours until the lease ends."""
    due = WebhookDelivery.objects.due(now).filter(webhook=webhook).order_by("due_at", "id")
    ids = list(due.values_list("id", flat=True)[:PER_WEBHOOK])
    mine = []
    for pk in ids:
        if WebhookDelivery.objects.due(now).filter(pk=pk).update(due_at=now + LEASE):
            mine.append(pk)
    return list(WebhookDelivery.objects.filter(pk__in=mine).select_related("webhook").order_by("id"))


def _send_batch(rows: Sequence[WebhookDelivery], deadline: float, clock: Callable[[], float]) -> list[Result]:
    """Runs in a thread of its own and touches no database."""
    results: list[Result] = []
    for row in rows:
        if clock() >= deadline or (results and not results[-1].is_ok):
            break
        results.append(call(row.webhook.url, row.webhook.secret, row.pk, row.event, row.payload))
    return results


def call(url: str, secret: str, delivery: int, event: str, payload: Any) -> Result:
    """One POST. Redirects are not followed, and of the answer only the status counts."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "otaplatform-webhook",
        "OTA-Event": event,
        "OTA-Delivery": str(delivery),
        "OTA-Timestamp": str(timestamp),
        "OTA-Signature": sign(secret, timestamp, body),
        "Connection": "close",
    }
    try:
        parts = addresses.check_url(url)
        connection = addresses.connect(parts, SOCKET_TIMEOUT)
    except addresses.ForbiddenAddressError as error:
        return Result(error=str(error))
    except ssl.SSLError as error:
        return Result(error=f"TLS: {error.reason or error}"[:200])
    except (OSError, UnicodeError) as error:
        return Result(error=f"connect: {error}"[:200])
    # An answer that comes byte by byte would outlive every socket time-out.
    watch = threading.Timer(LONGEST_CALL, _cut, [connection.sock])
    watch.daemon = True
    watch.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, headers)
        return Result(connection.getresponse().status)
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return Result(error=f"{type(error).__name__}: {error}"[:200])
    finally:
        watch.cancel()
        connection.close()


def _cut(sock: socket.socket) -> None:
    """End a connection whose reader waits: unlike a close, this wakes it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def record(row: WebhookDelivery, result: Result, now: datetime) -> None:
    """Store what became of a call, and when it is repeated if it has to be."""
    attempts = row.attempts + 1
    values: dict[str, Any] = {
        "attempts": attempts,
        "sent_at": now,
        "response_status": result.status,
        "error": result.error,
    }
    if result.is_ok:
        values |= {"status": DeliveryStatus.DELIVERED, "due_at": None}
    elif attempts > len(BACK_OFF):
        values |= {"status": DeliveryStatus.FAILED, "due_at": None}
    else:
        values["due_at"] = now + BACK_OFF[attempts - 1]
    WebhookDelivery.objects.filter(pk=row.pk, status=DeliveryStatus.WAITING).update(**values)


def forget(now: datetime | None = None) -> int:
    """Remove deliveries that ended long ago."""
    old = WebhookDelivery.objects.exclude(status=DeliveryStatus.WAITING)
    return old.filter(created_at__lt=(now or timezone.now()) - KEEP).delete()[0]
