"""The door, a person's own settings, and the choices in the header."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from otaplatform.accounts import services
from otaplatform.accounts.forms import LogInForm, MySettingsForm
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import ALL_ACCOUNTS, Staff, choose_account, require


class LogInView(LoginView):
    """User name and password; 429 with Retry-After while log-ins are not looked at."""

    authentication_form = LogInForm
    template_name = "admin/login.html"

    def form_valid(self, form: Any) -> HttpResponse:
        services.log_in(self.request, form.get_user())
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.wait:
            response.status_code = 429
            response.headers["Retry-After"] = str(max(1, round(form.wait.total_seconds())))
        return response


@require_POST
def switch_language(request: HttpRequest) -> HttpResponseBase:
    """Django's language switch, remembered with the user too."""
    language = request.POST.get("language", "")
    if request.user.is_authenticated and language in dict(settings.LANGUAGES):
        User.objects.filter(pk=request.user.pk).update(language=language)
    return set_language(request)


@require_POST
@require()
def switch_account(request: Staff) -> HttpResponse:
    """A superuser looks at one account, or at all of them."""
    if not request.user.is_superuser:
        # Before the look-up: which accounts there are is nobody else's business.
        raise PermissionDenied
    choice = request.POST.get("account", "")
    account = None if choice == ALL_ACCOUNTS else get_object_or_404(Account, pk=_number(choice))
    choose_account(request, account)
    target = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = "/"
    return HttpResponseRedirect(target)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


@require()
def my_settings(request: Staff) -> HttpResponse:
    """Name, language and time zone."""
    form = MySettingsForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        user = form.save()
        translation.activate(user.language)
        messages.success(request, _("Your settings were saved."))
        response = redirect("my_settings")
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, user.language, samesite="Lax")
        return response
    return render(request, "accounts/my_settings.html", page_context(request, _("My settings"), form=form))
