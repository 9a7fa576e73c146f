"""How often a log-in may fail: per user and address, per address, and per user.

An attempt is counted before its password is looked at, by conditional updates whose row counts are believed,
so attempts that come at the same moment cannot all slip through. A success gives its counts back. The
counters are rows: they hold while the cache is away, and people can see them.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from otaplatform.accounts.models import CounterKind, LoginCounter, User

# Behind one address there may be an office; a user may be attacked from many addresses.
_TIMES = {CounterKind.ADDRESS: 5, CounterKind.USER_AND_ADDRESS: 1, CounterKind.USER: 10}


@dataclass(frozen=True)
class Attempt:
    """One attempt to log in. `username` is what was typed; `user` is its user, if there is one."""

    username: str
    user: User | None
    address: str

    def subject(self, kind: CounterKind) -> str:
        name = self.username.casefold()
        text = {
            CounterKind.ADDRESS: self.address,
            CounterKind.USER_AND_ADDRESS: f"{self.address}\n{name}",
            CounterKind.USER: name,
        }[kind]
        return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Refusal:
    """Why an attempt is not looked at. `is_first`: the attempt before it was still allowed."""

    wait: timedelta
    is_first: bool


PASSWORD = (CounterKind.ADDRESS, CounterKind.USER_AND_ADDRESS, CounterKind.USER)


def window() -> timedelta:
    """How long failures are remembered together, counted from the first."""
    return timedelta(minutes=settings.OTA_LOGIN_WAIT_MINUTES)


def limit_of(kind: CounterKind) -> int:
    """Failures that are allowed in a window."""
    return int(settings.OTA_LOGIN_FAILURES) * _TIMES[kind]


def claim(
    attempt: Attempt, kinds: tuple[CounterKind, ...] = PASSWORD, now: datetime | None = None
) -> Refusal | None:
    """Count an attempt; None if it may be looked at."""
    if not settings.OTA_LOGIN_FAILURES:
        return None
    now = now or timezone.now()
    with transaction.atomic():
        # One row of each kind, always in this order: attempts wait for each other, and never in a circle.
        for kind in kinds:
            row = _count(attempt, kind, now)
            if row.count > limit_of(kind):
                wait = max(row.started_at + window() - now, timedelta(seconds=1))
                return Refusal(wait, row.count == limit_of(kind) + 1)
    return None


def forgive(attempt: Attempt, kinds: tuple[CounterKind, ...] = PASSWORD) -> None:
    """The attempt was right: it takes its counts back, and the user's failures from this address too."""
    with transaction.atomic():
        for kind in kinds:
            rows = LoginCounter.objects.filter(key=attempt.subject(kind))
            if kind == CounterKind.USER_AND_ADDRESS:
                rows.delete()
            else:
                rows.filter(count__gt=0).update(count=F("count") - 1)


def _count(attempt: Attempt, kind: CounterKind, now: datetime) -> LoginCounter:
    key = attempt.subject(kind)
    rows = LoginCounter.objects.filter(key=key)
    outdated = now - window()
    if not rows.filter(started_at__gt=outdated).update(count=F("count") + 1) and not rows.filter(
        started_at__lte=outdated
    ).update(count=1, started_at=now):
        LoginCounter.objects.filter(started_at__lte=outdated).delete()
        new = LoginCounter(
            key=key,
            kind=kind,
            user=None if kind == CounterKind.ADDRESS else attempt.user,
            address="" if kind == CounterKind.USER else attempt.address,
            count=0,
            started_at=now,
        )
        LoginCounter.objects.bulk_create([new], ignore_conflicts=True)
        rows.update(count=F("count") + 1)
    return rows.get()
