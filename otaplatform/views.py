"""Pages that span all apps."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.csrf import csrf_failure as default_csrf_failure
from django.views.decorators.http import require_GET

from devices import fleet
from devices.models import Product
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import Staff, account_scope, require
from otaplatform.api.codes import CODES
from otaplatform.api.errors import body
from otaplatform.console import online_count, reports_per_minute
from otaplatform.sample import remove_sample


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A POST without the form's token: a page for people, JSON for programs (404 for an unknown address)."""
    if "text/html" in request.headers.get("Accept", ""):
        return default_csrf_failure(request, reason)
    match = request.resolver_match
    known = match is not None and "url" not in match.kwargs
    code = "forbidden" if known else "not_found"
    return JsonResponse(body(code), status=CODES[code][0])


@require_GET
@require("devices.view_device")
def fleet_now(request: Staff) -> JsonResponse:
    """The figures of the header and the dashboard as they stand now, ready to be shown: {place: text}."""
    account = account_scope(request)
    totals, online, reports = fleet.totals(account), online_count(account), reports_per_minute(account)
    words = ngettext("%(shown)s device online", "%(shown)s devices online", online)
    return JsonResponse(
        {
            "online_words": words % {"shown": f"{online:,}"},
            "online": f"{online:,}",
            "registered": f"{totals.registered:,}",
            "activated": f"{totals.activated:,}",
            "reports": "–" if reports is None else f"{reports:,}",
        }
    )


@require("devices.delete_product")
def remove_sample_product(request: Staff, pk: int) -> HttpResponse:
    """Ask, then remove the sample product with all that belongs to it."""
    products = Product.objects.of(account_scope(request)).filter(is_sample=True)
    product = get_object_or_404(products, pk=pk)
    if request.method == "POST":
        remove_sample(product, request.user)
        messages.success(request, _("The sample product was removed."))
        return redirect("admin:devices_product_changelist")
    context = page_context(request, _("Remove sample product"), nav="products", product=product)
    return render(request, "devices/product_remove.html", context)
