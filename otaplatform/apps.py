"""App configurations of the wiring: our admin site, and the platform's own small tables and checks."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.db.models.signals import post_migrate, pre_migrate
from django.utils.translation import gettext_lazy as _


class ConsoleAdminConfig(AdminConfig):
    """Django's admin with our site: navigation, dashboard, scoping to the account."""

    default_site = "otaplatform.admin.ConsoleSite"

    def ready(self) -> None:
        super().ready()
        from django.contrib import admin

        from otaplatform import ticks_admin

        ticks_admin.register(admin.site)


class PlatformConfig(AppConfig):
    name = "otaplatform"
    verbose_name = _("Platform")

    def ready(self) -> None:
        from otaplatform import checks  # noqa: F401  (registers the system checks)
        from otaplatform.database import with_statement_limit, without_statement_limit
        from otaplatform.ticks import ensure_ticks

        pre_migrate.connect(without_statement_limit, sender=self, dispatch_uid="otaplatform.no_limit")
        post_migrate.connect(with_statement_limit, sender=self, dispatch_uid="otaplatform.limit")
        post_migrate.connect(ensure_ticks, sender=self, dispatch_uid="otaplatform.ensure_ticks")
