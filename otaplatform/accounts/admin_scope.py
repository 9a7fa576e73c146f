"""Django's admin kept inside the account: rows, choices, typeahead."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest, QueryDict
from django.shortcuts import redirect
from django.urls import reverse

from otaplatform.accounts.models import Account
from otaplatform.accounts.paging import BoundedPaginator
from otaplatform.accounts.scope import account_scope


def in_scope(request: HttpRequest, rows: "models.QuerySet[Any]", account_path: str) -> "models.QuerySet[Any]":
    """The rows of the request's account; none for a user without one. `account_path` is a field lookup."""
    try:
        account = account_scope(request)
    except PermissionDenied:
        return rows.none()
    return rows if account is None else rows.filter(**{account_path: account.pk})


class ScopedAdmin(admin.ModelAdmin[Any]):
    """Base of every ModelAdmin whose rows belong to an account.

    Its lists show, and its foreign keys offer, rows of the request's account only; lists count no further
    than the paginator's limit. `account_path` leads from the model to its account ("product__account").
    """

    account_path: ClassVar[str] = "account"
    show_full_result_count = False
    paginator = BoundedPaginator

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        return in_scope(request, super().get_queryset(request), self.account_path)

    def formfield_for_foreignkey(
        self, db_field: "models.ForeignKey[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> Any:
        target = db_field.remote_field.model
        other = self.admin_site._registry.get(target)
        if isinstance(other, ScopedAdmin):
            kwargs["queryset"] = other.get_queryset(request)
        elif target is Account:
            kwargs["queryset"] = in_scope(request, Account.objects.all(), "pk")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class ReadOnlyAdmin(ScopedAdmin):
    """Rows to look at: nobody adds, changes or deletes them here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class AuditedAdmin(admin.ModelAdmin[Any]):
    """Base of admin pages whose verbs write the audit log: Django's own log of the admin stays empty, and
    "History" leads to the audit log."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        return

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        return

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:  # type: ignore[override]
        return

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """What the audit log has of the object."""
        found = self.get_object(request, unquote(object_id))
        if found is None or not self.has_view_permission(request, found):
            raise Http404
        where = QueryDict(mutable=True)
        where["object_type__exact"], where["object_id__exact"] = self.opts.label_lower, str(found.pk)
        return redirect(f"{reverse('admin:accounts_auditentry_changelist')}?{where.urlencode()}")
