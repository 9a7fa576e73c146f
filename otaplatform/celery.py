"""The Celery application. Long waits are rows in the database; a task here never carries an eta."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "otaplatform.settings")

app = Celery("otaplatform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
