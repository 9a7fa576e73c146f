"""Addresses of the product and device pages within the admin site, and typeahead over both.

The pages themselves are `devices.views`; other apps link to them by the admin's own names
(`admin:devices_device_change`), and offer devices by `autocomplete_fields`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path

from devices import views
from devices.models import Device, DeviceQuerySet, Product
from otaplatform.accounts.admin_scope import ScopedAdmin, in_scope

Page = Callable[..., HttpResponse]


class PagesAdmin(ScopedAdmin):
    """A ModelAdmin whose pages are views of our own; the permissions stay the admin's."""

    def guarded(self, page: Page, verb: str) -> Callable[..., HttpResponseBase]:
        """The page for staff who have the permission `verb` (view, add, change, delete) on this model."""

        def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if not getattr(self, f"has_{verb}_permission")(request):
                raise PermissionDenied
            return page(request, **kwargs)

        return self.admin_site.admin_view(view)

    def page(self, route: str, page: Page, verb: str, name: str) -> URLPattern:
        return path(
            route, self.guarded(page, verb), name=f"{self.opts.app_label}_{self.opts.model_name}_{name}"
        )


@admin.register(Product)
class ProductAdmin(PagesAdmin):
    """Products: a list, one page each."""

    search_fields = ["name", "product_key"]

    def get_urls(self) -> list[URLPattern]:
        return [
            self.page("", views.product_list, "view", "changelist"),
            self.page("add/", views.product_add, "add", "add"),
            self.page("<int:pk>/change/", views.product_page, "view", "change"),
            self.page("<int:pk>/edit/", views.product_edit, "change", "edit"),
            self.page("<int:pk>/delete/", views.product_remove, "delete", "delete"),
        ]


@admin.register(Device)
class DeviceAdmin(PagesAdmin):
    """Devices: a list that costs the same at any size, registration, one page each."""

    account_path = "product__account"
    search_fields = ["name"]
    ordering = ["-id"]
    list_select_related = ["product"]

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Device]":
        devices = super().get_queryset(request)
        assert isinstance(devices, DeviceQuerySet)
        return devices.present()

    def get_search_results(
        self, request: HttpRequest, queryset: "models.QuerySet[Any]", search_term: str
    ) -> "tuple[models.QuerySet[Any], bool]":
        """Typeahead by the beginning of the name: a range of the index instead of a scan of the fleet."""
        assert isinstance(queryset, DeviceQuerySet)
        products = in_scope(request, Product.objects.all(), "account").values_list("pk", flat=True)
        found = queryset.filter(product__in=list(products)).named_from(search_term.replace("\0", ""))
        return found, False

    def get_urls(self) -> list[URLPattern]:
        verbs = {"disable": "change", "enable": "change", "reset-secret": "change", "remove": "delete"}
        return [
            self.page("", views.device_list, "view", "changelist"),
            self.page("add/", views.device_add, "add", "add"),
            self.page("batch/", views.device_batch, "add", "batch"),
            self.page("<int:pk>/change/", views.device_page, "view", "change"),
            *(
                self.page(
                    f"<int:pk>/{verb}/", partial(views.device_act, verb=verb), needed, verb.replace("-", "_")
                )
                for verb, needed in verbs.items()
            ),
        ]
