"""Devices that ask (HTTPS, CoAP): they have no connection whose end would tell that they are gone."""

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from campaigns import life, moves, reports
from campaigns.applied import Applied
from campaigns.models import UpdateTask
from campaigns.states import TaskStatus
from devices import presence, sql


def expire(now: datetime | None = None) -> set[int]:
    """Devices that ask and were not heard of for too long go offline; the campaigns touched.

    What they had been given and not begun goes back to the queue, as for a lost connection.
    """
    now = now or timezone.now()
    applied = Applied()
    with transaction.atomic():
        gone = presence.expire(now)
        for ids in sql.chunks(gone):
            states = moves.read(UpdateTask.objects.filter(device__in=ids, status=TaskStatus.NOTIFIED))
            for state in states:
                life.on_down(state, now)
            reports.settle(states, now, applied)
        moves.add_counts(applied.counts)
    return applied.campaigns
