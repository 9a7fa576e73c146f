"""The scheduler's tables in the admin: our fixed ticks, which a superuser can switch off and on, no more."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from otaplatform.accounts.admin_scope import AuditedAdmin
from otaplatform.accounts.scope import person_of
from otaplatform.ticks import switch_tick


class TickAdmin(AuditedAdmin):
    """Ticks come from the code: none can be added, removed or retimed here."""

    list_display = ["name", "interval", "enabled", "last_run_at", "total_run_count"]
    fields = ["name", "interval", "enabled", "last_run_at", "total_run_count"]
    readonly_fields = ["name", "interval", "last_run_at", "total_run_count"]
    actions = None

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: Any, change: bool) -> None:
        switch_tick(obj, obj.enabled, person_of(request))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def register(site: admin.AdminSite) -> None:
    """Put our page in the place of the ones that django-celery-beat registers."""
    for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
        if site.is_registered(model):
            site.unregister(model)
    site.register(PeriodicTask, TickAdmin)
