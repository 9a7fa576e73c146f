"""The beat ticks: due rows in, verbs called. Each is safe to overlap itself; no task carries an eta."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from celery import shared_task
from django.db import transaction
from django.db.models import Exists, OuterRef

from campaigns import asking, live, moves, sweep
from campaigns import dispatch as dispatching
from campaigns import expand as expanding
from campaigns.models import Campaign, UpdateTask
from campaigns.states import CampaignStatus, TaskStatus
from devices import sql, versions
from devices.mqtt import publisher

logger = logging.getLogger(__name__)

# Each tick and its interval in seconds. The rows of the scheduler are restored from this at every migrate.
TICKS = {
    "campaigns.tasks.start_due": 5,
    "campaigns.tasks.expand": 5,
    "campaigns.tasks.dispatch": 2,
    "campaigns.tasks.sweep_tasks": 10,
    "campaigns.tasks.expire": 30,
    "campaigns.tasks.finish": 5,
    "campaigns.tasks.recount": 60 * 60,
}


def _each(campaign_ids: Iterable[int], verb: Callable[[int], object]) -> None:
    """Each on its own: one that cannot go on does not hold up the others."""
    for pk in campaign_ids:
        try:
            verb(pk)
        except Exception:
            logger.exception("campaign %s: will be tried again at the next tick", pk)
        live.changed([pk])


@shared_task
def start_due() -> None:
    """Scheduled campaigns whose time has come, and those whose start was cut off."""
    scheduled = UpdateTask.objects.filter(campaign=OuterRef("pk"), status=TaskStatus.SCHEDULED)
    cut_off = Campaign.objects.running().filter(Exists(scheduled), schedule_at__isnull=False)
    due = [*Campaign.objects.due().values_list("id", flat=True), *cut_off.values_list("id", flat=True)]
    _each(due, expanding.start_scheduled)


@shared_task
def expand() -> None:
    """Launched campaigns whose devices do not all have their task yet."""
    waiting = list(Campaign.objects.unexpanded().values_list("id", flat=True))
    _each(waiting, expanding.expand)
    if waiting:
        dispatch_soon()


@shared_task
def dispatch() -> None:
    """Push what is ready, if the broker is there to take it."""
    live.changed(sweep.end_waits())
    broker = publisher()
    if broker.ready():
        live.changed(dispatching.dispatch(broker.publish))


@shared_task
def sweep_tasks() -> None:
    live.changed(sweep.sweep() | sweep.resume_cancels())


@shared_task
def expire() -> None:
    """Devices without a connection that have not asked for a while are offline."""
    live.changed(asking.expire())


@shared_task
def finish() -> None:
    live.changed(sweep.finish())


@shared_task
def recount() -> None:
    """Hold the stored counters against the rows; `manage.py recount` mends what is told here."""
    with sql.snapshot():
        unfinished = Campaign.objects.filter(status__in=[CampaignStatus.PLANNED, CampaignStatus.IN_PROGRESS])
        of_campaigns = moves.recount(unfinished.order_by().values_list("id", flat=True))
        of_versions = versions.recount()
    for key, (stored, counted) in [*of_campaigns.items(), *of_versions.items()]:
        logger.error("counter %s: stored %s, counted %s", key, stored, counted)


def _soon(task: Any) -> None:
    """Run a tick now rather than at its next beat. Best effort: the tick itself remains the promise."""
    try:
        task.apply_async(retry=False)
    except Exception:
        logger.warning("%s waits for its next tick: the task broker did not answer", task.name)


def dispatch_soon() -> None:
    """Something became ready to push."""
    _soon(dispatch)


def launch_soon() -> None:
    """A campaign was launched: its tasks are made, then pushed."""
    _soon(expand)


def after_commit(
    campaign_ids: Iterable[int], *, device_ids: Iterable[int] = (), wake: Callable[[], None] | None = None
) -> None:
    """What a verb that changed campaigns ends with, in its transaction.

    Once that is committed open pages hear of these campaigns with these devices' rows, and the worker that
    goes on with the work is woken (`launch_soon`, `dispatch_soon`).
    """
    campaigns, devices = set(campaign_ids), list(device_ids)
    if wake is not None:
        transaction.on_commit(wake, robust=True)
    if campaigns:
        transaction.on_commit(partial(live.changed, campaigns, device_ids=devices), robust=True)
