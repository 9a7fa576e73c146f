"""The console's page of one's own API tokens."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST
from knox.models import AuthToken

from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import Staff, require
from otaplatform.api import tokens
from otaplatform.api.errors import ApiError
from otaplatform.api.forms import TokenForm


@require()
def token_page(request: Staff) -> HttpResponse:
    """One's tokens; POST makes one, and its text is shown this once."""
    form, made = TokenForm(request.POST or None), ""
    if request.method == "POST" and form.is_valid():
        try:
            made = tokens.issue(request.user, form.cleaned_data["days"])[1]
        except ApiError as error:
            messages.error(request, str(error.message))
    found = AuthToken.objects.filter(user=request.user, expiry__gt=timezone.now())
    rows = found.order_by("-created", "token_key")[: tokens.MOST]
    context = page_context(
        request, _("API tokens"), nav="tokens", form=TokenForm() if made else form, made=made, rows=rows
    )
    return render(request, "api/tokens.html", context)


@require_POST
@require()
def revoke(request: Staff, key: str) -> HttpResponse:
    """Revoke one of one's own tokens at once."""
    if tokens.revoke(request.user, key):
        messages.success(request, _("The token was revoked."))
    return redirect("tokens:list")
