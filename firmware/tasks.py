"""Background work of firmware."""

from celery import shared_task

from firmware import services


@shared_task
def sweep_orphans() -> int:
    """Daily: remove stored files that no firmware knows."""
    return services.sweep_orphans()
