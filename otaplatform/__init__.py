"""The wiring of the platform: settings, URLs, processes, and the edges (console frame, API, MQTT gateway)."""

from .celery import app as celery_app

__all__ = ["celery_app"]
