"""Signs of life: who writes them, how old they may be, and the light answer at /healthz."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import Error
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from otaplatform.models import Heartbeat
from otaplatform.ticks import TICKS, heartbeat_name

logger = logging.getLogger(__name__)

# Parts that write a heartbeat every few seconds.
PARTS = ("gateway", "worker")
PART_SILENCE = timedelta(seconds=30)


def beat(name: str, now: datetime | None = None, **detail: Any) -> None:
    """Record that a part or tick has just done its work. A database that is away is logged, never raised."""
    row = Heartbeat(name=name, at=now or timezone.now(), detail=detail)
    try:
        Heartbeat.objects.bulk_create(
            [row], update_conflicts=True, unique_fields=["name"], update_fields=["at", "detail"]
        )
    except Error:
        logger.warning("no heartbeat written for %s", name, exc_info=True)


@dataclass(frozen=True)
class State:
    """One part's state. `age`: seconds since its last sign of life; None if it gives none, or never has."""

    name: str
    ok: bool
    age: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok} if self.age is None else {"ok": self.ok, "age": round(self.age, 1)}


def allowed_silence(interval: int) -> timedelta:
    """A tick may be late by two turns, and by half a minute for a start of the parts."""
    return timedelta(seconds=3 * interval + 30)


def check(now: datetime | None = None) -> list[State]:
    """The state of every part and every enabled tick, from one look at each service."""
    now = now or timezone.now()
    beats, switched_off = _database()
    states = [State("database", beats is not None), State("redis", _redis_answers())]
    beats = beats or {}

    def state(name: str, key: str, silence: timedelta) -> State:
        row = beats.get(key)
        if row is None:
            return State(name, False)
        age = now - row.at
        return State(name, age <= silence and row.detail.get("ok", True), max(0.0, age.total_seconds()))

    states += [state(name, name, PART_SILENCE) for name in PARTS]
    gateway = beats.get("gateway")
    # A silent gateway is told by its own line; what it last said of the broker stands until it speaks again.
    states.append(State("presence", gateway is None or gateway.detail.get("presence", True)))
    states += [
        state(heartbeat_name(task), heartbeat_name(task), allowed_silence(interval))
        for task, interval in TICKS.items()
        if task not in switched_off
    ]
    return states


def _database() -> tuple[dict[str, Heartbeat] | None, set[str]]:
    from django_celery_beat.models import PeriodicTask

    try:
        rows = Heartbeat.objects.in_bulk()
        off = set(PeriodicTask.objects.filter(enabled=False).values_list("name", flat=True))
    except Error:
        return None, set()
    return rows, off


def _redis_answers() -> bool:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 if every part is well, else 503; names and ages only, for a load balancer or a monitor."""
    states = check()
    well = all(state.ok for state in states)
    body = {
        "status": "ok" if well else "failing",
        "parts": {state.name: state.as_json() for state in states if not state.name.startswith("tick:")},
        "ticks": {
            state.name.removeprefix("tick:"): state.as_json()
            for state in states
            if state.name.startswith("tick:")
        },
    }
    return JsonResponse(body, status=200 if well else 503)
