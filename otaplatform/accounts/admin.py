"""People of an account, the accounts themselves, and the audit log."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from otaplatform.accounts import login_limits, services, words
from otaplatform.accounts.admin_scope import AuditedAdmin, ReadOnlyAdmin, ScopedAdmin
from otaplatform.accounts.forms import SetPasswordForm
from otaplatform.accounts.models import Account, AuditEntry, CounterKind, LoginCounter, User
from otaplatform.accounts.roles import ROLES
from otaplatform.accounts.scope import account_scope, person_of


@admin.register(Account)
class AccountAdmin(AuditedAdmin, admin.ModelAdmin[Account]):
    """Superusers only: no role has a permission for accounts."""

    list_display = ["name", "created_at"]
    search_fields = ["name"]

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        services.save_account(obj, form.changed_data, actor=person_of(request))

    def delete_model(self, request: HttpRequest, obj: Account) -> None:
        services.delete_account(obj, actor=person_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[Account]") -> None:
        for account in queryset:
            services.delete_account(account, actor=person_of(request))


admin.site.unregister(Group)


@admin.register(Group)
class RoleAdmin(AuditedAdmin, StockGroupAdmin):
    """Roles beside the three of ours; superusers only."""

    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        obj.save()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        action = "role.changed" if change else "role.created"
        names = form.instance.permissions.values_list("codename", flat=True)
        services.record_role(form.instance, person_of(request), action, names)

    def delete_model(self, request: HttpRequest, obj: Group) -> None:
        services.record_role(obj, person_of(request), "role.deleted")
        obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[Group]") -> None:
        for group in queryset:
            self.delete_model(request, group)


@admin.register(User)
class UserAdmin(AuditedAdmin, StockUserAdmin[User], ScopedAdmin):
    """An Administrator manages the people of the account by role; only a superuser sees more.

    Somebody who is not a superuser neither sees superusers nor can make one, and hands out only the
    three roles. A new user, and one whose password somebody else has set, changes it at the next login.
    """

    list_display = ["username", "full_name", "role_names", "is_active", "last_login"]
    list_filter = ["is_active", "groups"]
    search_fields = ["username", "first_name", "last_name", "email"]
    ordering = ["username"]
    filter_horizontal = []
    add_form_template = "admin/change_form.html"
    change_password_form = SetPasswordForm
    readonly_fields = ["last_login", "date_joined"]
    _person = (_("Person"), {"fields": ["first_name", "last_name", "email", "language", "time_zone"]})
    _dates = (_("Dates"), {"fields": ["last_login", "date_joined"]})

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[User]":
        people = super().get_queryset(request).prefetch_related("groups")
        return people if request.user.is_superuser else people.filter(is_superuser=False)

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = list(self.list_display)
        return [*shown, "account"] if request.user.is_superuser else shown

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        above = request.user.is_superuser
        role = ["groups", *(["account", "is_staff", "is_superuser"] if above else [])]
        if obj is None:
            login = {"fields": ["username", "password1", "password2"]}
            return [(None, login), (_("Role"), {"fields": role}), self._person]
        return [
            (None, {"fields": ["username", "password", "must_change_password"]}),
            (_("Role"), {"fields": ["is_active", *role]}),
            self._person,
            self._dates,
        ]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups" and not request.user.is_superuser:
            kwargs["queryset"] = Group.objects.filter(name__in=ROLES)
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups" and field is not None:
            field.label = _("Role")
            field.label_from_instance = lambda group: words.role(group.name)
        return field

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        account = account_scope(request)
        return {"is_staff": True, "account": account and account.pk}

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if change:
            services.change_user(obj, form.changed_data, actor=person_of(request))
            return
        if not request.user.is_superuser:
            obj.account, obj.is_staff = account_scope(request), True
        services.create_user(obj, actor=person_of(request))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        if "groups" in form.cleaned_data:
            services.set_roles(form.instance, form.cleaned_data["groups"], actor=person_of(request))

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.delete_user(obj, actor=person_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[User]") -> None:
        for user in queryset.exclude(pk=person_of(request).pk):
            services.delete_user(user, actor=person_of(request))

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> User | None:
        user: User | None = super().get_object(request, *args, **kwargs)
        if user is not None:
            user.changed_by = person_of(request)
        return user

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        """One's own password is changed where the old one is asked for."""
        if id == str(request.user.pk):
            return redirect("admin:password_change")
        response: HttpResponse = super().user_change_password(request, id, form_url)
        return response

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj != request.user and super().has_delete_permission(request, obj)

    @admin.display(description=_("Name"))
    def full_name(self, user: User) -> str:
        return user.get_full_name()

    @admin.display(description=_("Role"))
    def role_names(self, user: User) -> str:
        names = [_("Superuser")] if user.is_superuser else []
        return ", ".join(
            str(name) for name in [*names, *(words.role(group.name) for group in user.groups.all())]
        )


class ActionFilter(admin.SimpleListFilter):
    """One kind of action."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(words.ACTIONS.items())

    def queryset(self, request: HttpRequest, queryset: "models.QuerySet[Any]") -> "models.QuerySet[Any]":
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what, newest first; nobody changes it."""

    list_display = ["at", "actor_name", "action_words", "object_name", "details"]
    list_display_links = None
    list_filter = [ActionFilter]
    search_fields = ["actor_name", "object_name"]
    search_help_text = _("User name or object")
    ordering = ["-id"]
    actions = None
    list_per_page = 50

    @admin.display(description=_("action"))
    def action_words(self, entry: AuditEntry) -> str:
        return str(words.ACTIONS.get(entry.action, entry.action))

    @admin.display(description=_("details"))
    def details(self, entry: AuditEntry) -> str:
        return ", ".join(f"{key}: {value}" for key, value in entry.detail.items())


@admin.register(LoginCounter)
class LoginCounterAdmin(ReadOnlyAdmin):
    """Failed log-ins that are counted together, and the action that forgets them.

    An Administrator sees those of the people of the account; those of whole addresses, and of names that
    nobody has, only a superuser.
    """

    account_path = "user__account"
    list_display = ["user_name", "address", "kind", "count", "is_blocked", "started_at"]
    list_display_links = None
    list_select_related = ["user"]
    list_filter = ["kind"]
    search_fields = ["user__username", "address"]
    search_help_text = _("User name or address")
    actions = ["unblock"]

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[LoginCounter]":
        since = timezone.now() - login_limits.window()
        return super().get_queryset(request).filter(started_at__gt=since, count__gt=0)

    def has_unblock_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_logincounter")

    @admin.action(description=_("Allow log-ins again"), permissions=["unblock"])
    def unblock(self, request: HttpRequest, queryset: "models.QuerySet[LoginCounter]") -> None:
        for counter in queryset.select_related("user"):
            services.unblock_login(counter, person_of(request))
        messages.success(request, _("Their failed log-ins were forgotten."))

    @admin.display(description=_("user"))
    def user_name(self, counter: LoginCounter) -> str:
        return counter.user.username if counter.user else "–"

    @admin.display(description=_("blocked"), boolean=True)
    def is_blocked(self, counter: LoginCounter) -> bool:
        return counter.count > login_limits.limit_of(CounterKind(counter.kind))
