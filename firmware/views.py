"""Pages of firmware: the list, New Firmware, Associate, Secure Update."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from devices.models import Product
from firmware import listing, services, signing
from firmware.errors import FirmwareInUseError, FirmwareRefusedError
from firmware.forms import AssociateForm, FilterForm, NewFirmwareForm
from firmware.models import Firmware
from otaplatform.accounts import audit
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.paging import keyset
from otaplatform.accounts.scope import Staff, account_scope, require

NAV = "firmware"


def _page(
    request: HttpRequest, template: str, title: str, *, status: int = 200, **extra: Any
) -> HttpResponse:
    context = page_context(request, title, nav=NAV, **extra)
    return render(request, f"firmware/{template}.html", context, status=status)


def _by_script(request: HttpRequest) -> bool:
    """Whether our own script asks, which wants data instead of a page."""
    return request.headers.get("X-Requested-With") == "XMLHttpRequest"


def _firmware(request: HttpRequest, pk: int) -> Firmware:
    return get_object_or_404(Firmware.objects.of(account_scope(request)).select_related("product"), pk=pk)


def _product(request: HttpRequest, pk: int) -> Product:
    return get_object_or_404(Product.objects.of(account_scope(request)), pk=pk)


@require("firmware.view_firmware")
def firmware_list(request: Staff) -> HttpResponse:
    """All firmware of the account, with what can be done with each."""
    account = account_scope(request)
    everything = Firmware.objects.of(account)
    filters = FilterForm(request, account)
    page = keyset(request, listing.filtered(everything, filters.cleaned_data))
    return _page(
        request,
        "list",
        _("Firmware Update"),
        filters=filters,
        is_filtered=any(value not in (None, "") for value in filters.cleaned_data.values()),
        page=page,
        rows=[(row, row.files.all()[:1], listing.actions(row, request.user)) for row in page.rows],
        quota=services.quota(account) if account else None,
        shows_account=account is None,
        unassociated=everything.unassociated().count(),
        why_not_new=listing.why_not_new(account, request.user),
        has_products=Product.objects.of(account).exists(),
    )


@require("firmware.view_firmware")
def detail(request: Staff, pk: int) -> HttpResponse:
    """One firmware: what it is, its file and digests."""
    firmware = _firmware(request, pk)
    return _page(
        request,
        "detail",
        firmware.name,
        firmware=firmware,
        files=firmware.files.all(),
        actions=listing.actions(firmware, request.user),
    )


@require("firmware.add_firmware")
def new(request: Staff) -> HttpResponse:
    """New Firmware. A script sends the same form and gets its errors, or where to go, as JSON."""
    account = account_scope(request)
    form = NewFirmwareForm(account, request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        product: Product = form.cleaned_data["product"]
        try:
            firmware = services.upload_firmware(product.account, **form.upload_arguments(request.user))
        except FirmwareRefusedError as refusal:
            form.add_error(None, refusal)
        else:
            messages.success(request, _("The firmware %(firmware)s was uploaded.") % {"firmware": firmware})
            target = reverse("firmware:detail", args=[firmware.pk])
            return JsonResponse({"url": target}, status=201) if _by_script(request) else redirect(target)
    if request.method == "POST" and _by_script(request):
        errors = {field: [str(one) for one in found] for field, found in form.errors.items()}
        return JsonResponse({"errors": errors}, status=422)
    closed = "" if form.is_bound else listing.why_not_new(account, request.user)
    status = 422 if form.is_bound else 200
    return _page(request, "new", _("New Firmware"), form=form, closed=closed, status=status)


@require("firmware.change_firmware")
def associate(request: Staff) -> HttpResponse:
    """Give every file from before products its product, all in one form."""
    waiting = Firmware.objects.of(account_scope(request)).unassociated().select_related("account")
    form = AssociateForm(waiting.order_by("id"), request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            done = services.associate(form.choices(), request.user)
        except FirmwareRefusedError as refusal:
            form.add_error(None, refusal)
        else:
            messages.success(request, _("Firmware files associated: %(count)s.") % {"count": len(done)})
            return redirect("firmware:list")
    status = 422 if form.is_bound else 200
    return _page(request, "associate", _("Associate"), form=form, status=status)


@require("firmware.delete_firmware")
def delete(request: Staff, pk: int) -> HttpResponse:
    """Ask, then delete; a firmware in use is refused with the campaigns that use it."""
    firmware = _firmware(request, pk)
    refusal = ""
    if request.method == "POST":
        try:
            services.delete_firmware(firmware, request.user)
        except FirmwareInUseError as error:
            refusal = str(error)
        else:
            messages.success(request, _("The firmware %(firmware)s was deleted.") % {"firmware": firmware})
            return redirect("firmware:list")
    status = 409 if refusal else 200
    return _page(request, "delete", _("Delete firmware"), firmware=firmware, refusal=refusal, status=status)


@require("firmware.view_firmware")
def secure_update(request: Staff) -> HttpResponse:
    """The products, each with its switch and its public key to copy."""
    products = Product.objects.of(account_scope(request)).select_related("account")
    return _page(
        request,
        "secure_update",
        _("Secure Update"),
        page=keyset(request, products),
        may_switch=request.user.has_perm("devices.change_product"),
    )


@require_POST
@require("devices.change_product")
def switch(request: Staff, pk: int) -> HttpResponse:
    """Turn secure update of a product on or off."""
    product = _product(request, pk)
    on = request.POST.get("on") == "1"
    if signing.set_secure_update(product, on, request.user):
        text = (
            _("Secure update of %(product)s is activated.")
            if on
            else _("Secure update of %(product)s is no longer activated.")
        )
        messages.success(request, text % {"product": product})
    return redirect("firmware:secure-update")


@require_POST
@require("firmware.view_firmware")
def key(request: Staff, pk: int) -> HttpResponse:
    """The public key of a product, as C arrays or (`form=pem`) PEM: text for our script, else a page."""
    product = _product(request, pk)
    public_key = signing.public_key(product)
    if public_key is None:
        return HttpResponse(status=404)
    as_pem = request.POST.get("form") == "pem"
    text = signing.public_key_pem(public_key) if as_pem else signing.public_key_c(public_key)
    kind = "PEM" if as_pem else "C"
    audit.record(product.account_id, request.user, "secure_update.key_copied", product, form=kind)
    if _by_script(request):
        return HttpResponse(text, content_type="text/plain; charset=utf-8")
    return _page(request, "key", _("Public key"), product=product, key=text)
