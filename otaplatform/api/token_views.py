"""The console's page of API tokens: one's own, and for whoever manages people those of the account."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST
from knox.models import AuthToken

from otaplatform.accounts import tokens
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import Staff, account_scope, require
from otaplatform.api.forms import TokenForm


def _seen(request: Staff) -> "QuerySet[AuthToken]":
    """Somebody without an account still has the own tokens."""
    try:
        return tokens.visible_to(request.user, account_scope(request))
    except PermissionDenied:
        found: QuerySet[AuthToken] = AuthToken.objects.filter(user=request.user)
        return found


@require()
def token_page(request: Staff) -> HttpResponse:
    """One's tokens; POST makes one, and its text is shown this once."""
    form, made = TokenForm(request.POST or None), ""
    if request.method == "POST" and form.is_valid():
        try:
            made = tokens.issue(request.user, form.cleaned_data["days"])[1]
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
    found = _seen(request).filter(expiry__gt=timezone.now()).order_by("-created", "token_key")
    context = page_context(
        request,
        _("API tokens"),
        nav="tokens",
        form=TokenForm() if made else form,
        made=made,
        rows=found.filter(user=request.user)[: tokens.MOST],
        others=found.exclude(user=request.user)[: tokens.MOST_LISTED],
    )
    return render(request, "api/tokens.html", context)


@require_POST
@require()
def revoke(request: Staff, key: str) -> HttpResponse:
    """Revoke a token at once."""
    for token in _seen(request).filter(token_key=key):
        tokens.revoke(token, request.user)
        messages.success(request, _("The token was revoked."))
    return redirect("tokens:list")
