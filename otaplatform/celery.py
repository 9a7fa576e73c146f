"""The Celery application. Long waits are rows in the database; a task here never carries an eta."""

import logging.config
import os
import time
from typing import Any

from celery import Celery
from celery.signals import beat_init, heartbeat_sent, setup_logging, task_postrun, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "otaplatform.settings")

app = Celery("otaplatform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# Celery's own heartbeat comes every two seconds; a row in the database needs fewer.
_WORKER_BEAT_SECONDS = 5.0
_last_worker_beat = 0.0


@setup_logging.connect
def our_logging(**kwargs: Any) -> None:
    """With a receiver of this signal Celery sets up no logging of its own."""
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)


@worker_init.connect
@beat_init.connect
def check_settings(**kwargs: Any) -> None:
    """Celery looks at the system checks but starts in spite of their errors."""
    from otaplatform.checks import refuse_wrong_settings

    refuse_wrong_settings()


@heartbeat_sent.connect
def worker_lives(**kwargs: Any) -> None:
    """The worker's sign of life."""
    global _last_worker_beat
    from otaplatform.health import beat

    now = time.monotonic()
    if now - _last_worker_beat >= _WORKER_BEAT_SECONDS or not _last_worker_beat:
        _last_worker_beat = now
        beat("worker")


@task_postrun.connect
def tick_done(task: Any = None, state: str = "", **kwargs: Any) -> None:
    """The sign of life of a tick: only of one that succeeded, so a failing tick grows old."""
    from otaplatform.health import beat
    from otaplatform.ticks import TICKS, heartbeat_name

    if state == "SUCCESS" and task.name in TICKS:
        beat(heartbeat_name(task.name))
