"""Campaigns: the doing."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CampaignsConfig(AppConfig):
    name = "campaigns"
    verbose_name = _("Firmware Update")

    def ready(self) -> None:
        from campaigns.services import remove_devices
        from devices.services import AFTER_REMOVAL

        AFTER_REMOVAL.append(remove_devices)
