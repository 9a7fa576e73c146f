"""The fixed ticks: what beat starts and how often, restored in the scheduler's tables at every migrate."""

from typing import TYPE_CHECKING, Any

from django.db import transaction

from campaigns.tasks import TICKS as CAMPAIGN_TICKS
from otaplatform.api.tasks import TICKS as API_TICKS

if TYPE_CHECKING:  # The scheduler's tables are not ready yet when Celery reads this module.
    from otaplatform.accounts.models import User

DAY = 24 * 60 * 60

# Task name -> interval in seconds.
TICKS: dict[str, int] = {**CAMPAIGN_TICKS, **API_TICKS, "firmware.tasks.sweep_orphans": DAY}


def ensure_ticks(using: str = "default", **kwargs: Any) -> None:
    """After each migrate: exactly our ticks are scheduled; whether one is switched on is left alone.

    A tick's message expires after the interval, so ticks never pile up behind a stopped worker. Each tick
    gets a heartbeat row, so its age counts from here until it runs for the first time.
    """
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    from otaplatform.models import Heartbeat

    for name, seconds in TICKS.items():
        interval, _ = IntervalSchedule.objects.using(using).get_or_create(
            every=seconds, period=IntervalSchedule.SECONDS
        )
        wanted = {"task": name, "interval": interval, "expire_seconds": seconds}
        tick, created = PeriodicTask.objects.using(using).get_or_create(name=name, defaults=wanted)
        if not created and any(getattr(tick, field) != value for field, value in wanted.items()):
            for field, value in wanted.items():
                setattr(tick, field, value)
            tick.save(using=using)
        Heartbeat.objects.using(using).get_or_create(name=heartbeat_name(name))
    PeriodicTask.objects.using(using).exclude(name__in=TICKS).delete()


def switch_tick(tick: Any, enabled: bool, actor: "User") -> None:
    """Switch a tick (a `PeriodicTask`) on or off; beat sees it within seconds."""
    from otaplatform.accounts import audit

    with transaction.atomic():
        tick.enabled = enabled
        tick.save()
        action = "tick.switched_on" if enabled else "tick.switched_off"
        audit.record(None, actor, action, tick, name=tick.name)


def heartbeat_name(task: str) -> str:
    """The name of the heartbeat row of a tick."""
    return f"tick:{task}"
