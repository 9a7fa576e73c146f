"""The console's admin site."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _


class ConsoleSite(admin.AdminSite):
    site_header = _("OTA Platform")
    site_title = _("OTA Platform")
    index_title = _("Dashboard")
