"""Firmware in Django's admin: to look at. Nothing there changes a file after its upload."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from firmware.models import Firmware, FirmwareFile
from otaplatform.accounts.admin_scope import ReadOnlyAdmin


class FileInline(admin.TabularInline[FirmwareFile, Firmware]):
    model = FirmwareFile
    fields = ("name", "size", "md5", "sha256")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("firmware.view_firmware")


@admin.register(Firmware)
class FirmwareAdmin(ReadOnlyAdmin):
    list_display = ("name", "version", "product", "sign_method", "status", "created_at")
    list_filter = ("status", "sign_method")
    search_fields = ("name", "version")
    list_select_related = ("product",)
    inlines = (FileInline,)
