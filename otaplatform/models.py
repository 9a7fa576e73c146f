"""The platform's own small tables: signs of life, and messages that could not be applied."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Heartbeat(models.Model):
    """When a part (`gateway`, `worker`) or a beat tick (`tick:campaigns.tasks.…`) last did its work."""

    name = models.CharField(max_length=100, primary_key=True)
    at = models.DateTimeField(default=timezone.now)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")

    def __str__(self) -> str:
        return self.name


class DeadLetter(models.Model):
    """A device message that could not be applied: kept, acknowledged and counted, so it blocks nobody."""

    at = models.DateTimeField(_("time"), default=timezone.now)
    topic = models.CharField(_("topic"), max_length=256)
    payload = models.BinaryField(_("payload"))
    error = models.TextField(_("error"))

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.topic
