"""Whose rows a request may see, and who may open a page.

For pages of our own (Django's `AdminSite.admin_view` and `ScopedAdmin` do the same for admin pages)::

    @require("devices.view_device")
    def device_list(request: Staff) -> HttpResponse:
        devices = Device.objects.of(account_scope(request))

A superuser chooses an account in the header, or all of them; everybody else sees their own account only.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.views.decorators.cache import never_cache

from otaplatform.accounts.models import Account, User

SESSION_KEY = "account"
ALL_ACCOUNTS = "all"


class Staff(HttpRequest):
    """A request of somebody who is logged in and belongs to the staff."""

    user: User


def person_of(request: HttpRequest) -> User:
    """Who is logged in, on a page that only staff open."""
    return cast("User", request.user)


def account_scope(request: HttpRequest) -> Account | None:
    """The account whose rows this request may see; None is a superuser who looks at all accounts.

    PermissionDenied for everybody else who has no account: they see nothing.
    """
    user = request.user
    if not isinstance(user, User) or not user.is_active:
        raise PermissionDenied
    if not user.is_superuser:
        if user.account is None:
            raise PermissionDenied
        return user.account
    chosen = request.session.get(SESSION_KEY) if hasattr(request, "session") else None
    if chosen == ALL_ACCOUNTS:
        return None
    return Account.objects.filter(pk=chosen).first() if chosen else user.account


def choose_account(request: HttpRequest, account: Account | None) -> None:
    """Remember a superuser's choice for this session; None is all accounts."""
    if not request.user.is_superuser:
        raise PermissionDenied
    request.session[SESSION_KEY] = account.pk if account else ALL_ACCOUNTS


P = ParamSpec("P")
View = Callable[Concatenate[Staff, P], HttpResponseBase]
Guarded = Callable[Concatenate[HttpRequest, P], HttpResponse]


def require(*permissions: str) -> Callable[[View[P]], Guarded[P]]:
    """A page for staff who have all these permissions: strangers are sent to log in, others get a 403."""

    def decorator(view: View[P]) -> Guarded[P]:
        @never_cache
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            user = request.user
            if not user.is_active or not user.is_staff:
                return redirect_to_login(request.get_full_path(), resolve_url(settings.LOGIN_URL))
            if not user.has_perms(permissions):
                raise PermissionDenied
            return view(cast("Staff", request), *args, **kwargs)

        return cast("Guarded[P]", guarded)

    return decorator
