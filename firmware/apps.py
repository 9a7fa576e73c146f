"""Firmware: what can be installed."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class FirmwareConfig(AppConfig):
    name = "firmware"
    verbose_name = _("Firmware")

    def ready(self) -> None:
        from firmware import checks  # noqa: F401  (registers the system checks)
