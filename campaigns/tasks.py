"""The beat ticks: due rows in, verbs called. Each is safe to overlap itself; no task carries an eta."""

from celery import shared_task
from devices.mqtt import publisher

from campaigns import dispatch as dispatching
from campaigns import expand as expanding
from campaigns import live, sweep
from campaigns.models import Campaign
from campaigns.states import CampaignStatus

# Each tick and its interval in seconds. The rows of the scheduler are restored from this at every migrate.
TICKS = {
    "campaigns.tasks.start_due": 5,
    "campaigns.tasks.expand": 5,
    "campaigns.tasks.dispatch": 2,
    "campaigns.tasks.sweep_tasks": 10,
    "campaigns.tasks.finish": 5,
}


@shared_task
def start_due() -> None:
    """Scheduled campaigns whose time has come, and those whose start was cut off."""
    for pk in Campaign.objects.due().values_list("id", flat=True):
        expanding.start_scheduled(pk)
        live.changed([pk])
    cut_off = (
        Campaign.objects.running().filter(schedule_at__isnull=False, tasks__status="SCHEDULED").distinct()
    )
    for pk in cut_off.values_list("id", flat=True):
        expanding.start_scheduled(pk)
        live.changed([pk])


@shared_task
def expand() -> None:
    """Launched campaigns whose devices do not all have their task yet."""
    for pk in list(Campaign.objects.unexpanded().values_list("id", flat=True)):
        expanding.expand(pk)
        live.changed([pk])
    dispatch.delay()


@shared_task
def dispatch() -> None:
    """Push what is ready."""
    live.changed(dispatching.dispatch(publisher().publish))


@shared_task
def sweep_tasks() -> None:
    live.changed(sweep.sweep() | sweep.resume_cancels())


@shared_task
def finish() -> None:
    live.changed(sweep.finish())


def launch_soon() -> None:
    """Ask the workers to expand and push now rather than at the next tick; the tick remains the promise."""
    if Campaign.objects.unexpanded().exclude(status=CampaignStatus.COMPLETED).exists():
        expand.delay()
