"""Pages of products and devices. `devices.admin` gives them their addresses and guards them."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from devices import fleet, listing, services
from devices.forms import BatchForm, DeviceForm, ProductForm
from devices.models import Device, Product, VersionCounter
from otaplatform.accounts.models import User
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.paging import keyset
from otaplatform.accounts.scope import account_scope
from otaplatform.core.csv_files import csv_text

# Products that a list offers to choose from; more are found by their own list.
PRODUCTS_OFFERED = 200
VERSIONS_SHOWN = 20
# A page of the registration result; all of it is in the file.
RESULTS_SHOWN = 200


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _product(request: HttpRequest, pk: int) -> Product:
    return get_object_or_404(Product.objects.of(account_scope(request)), pk=pk)


def _device(request: HttpRequest, pk: int) -> Device:
    devices = Device.objects.of(account_scope(request)).present()
    return get_object_or_404(devices.select_related("product", "presence"), pk=pk)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


# ---- products ----------------------------------------------------------------------------------------


def product_list(request: HttpRequest) -> HttpResponse:
    """Products, newest first; found by a part of their name or by ProductKey."""
    products = Product.objects.of(account_scope(request)).select_related("account")
    search = request.GET.get("q", "").replace("\0", "").strip()
    if search:
        products = products.filter(name__contains=search) | products.filter(product_key=search)
    page = keyset(request, products)
    counts = fleet.registered(page.rows)
    rows = [(product, counts[product.pk]) for product in page.rows]
    context = page_context(request, _("Products"), page=page, rows=rows, search=search)
    return render(request, "devices/product_list.html", context)


def product_add(request: HttpRequest) -> HttpResponse:
    """Create a product."""
    account = account_scope(request)
    form = ProductForm(request.POST or None, account=account)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        product = services.create_product(
            form.instance.account, data["name"], data["description"], actor=_actor(request)
        )
        messages.success(request, _("The product was created. Register its devices next."))
        return redirect("admin:devices_product_change", product.pk)
    context = page_context(request, _("Create product"), form=form)
    return render(request, "devices/product_form.html", context)


def product_page(request: HttpRequest, pk: int) -> HttpResponse:
    """A product: its key, its devices, what they run; POST shows the ProductSecret."""
    product = _product(request, pk)
    secret = ""
    if request.method == "POST" and request.user.has_perm("devices.change_product"):
        secret = services.show_product_secret(product, _actor(request))
    versions = VersionCounter.objects.distribution(product)
    context = page_context(
        request,
        product.name,
        product=product,
        secret=secret,
        registered=fleet.registered([product])[product.pk],
        versions=versions[:VERSIONS_SHOWN],
        more_versions=max(0, len(versions) - VERSIONS_SHOWN),
        mqtt=_broker(),
    )
    return render(request, "devices/product.html", context)


def product_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Another name or description."""
    product = _product(request, pk)
    form = ProductForm(request.POST or None, instance=product, account=product.account)
    if request.method == "POST" and form.is_valid():
        services.change_product(
            product,
            name=form.cleaned_data["name"],
            description=form.cleaned_data["description"],
            actor=_actor(request),
        )
        messages.success(request, _("The product was saved."))
        return redirect("admin:devices_product_change", product.pk)
    context = page_context(request, _("Edit product"), form=form, product=product)
    return render(request, "devices/product_form.html", context)


def product_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask, then delete a product that nothing belongs to."""
    product = _product(request, pk)
    if request.method == "POST":
        try:
            services.remove_product(product, _actor(request))
        except ValidationError as error:
            messages.error(request, error.messages[0])
            return redirect("admin:devices_product_change", pk)
        messages.success(request, _("The product was removed."))
        return redirect("admin:devices_product_changelist")
    context = page_context(request, _("Remove product"), product=product)
    return render(request, "devices/product_remove.html", context)


# ---- devices -----------------------------------------------------------------------------------------


def device_list(request: HttpRequest) -> HttpResponse:
    """Devices, newest first; of one product, and by the beginning of their name."""
    account = account_scope(request)
    products = list(Product.objects.of(account)[:PRODUCTS_OFFERED])
    chosen = _number(request.GET.get("product", ""))
    product = Product.objects.of(account).filter(pk=chosen).first() if chosen else None
    if product and product not in products:
        products.insert(0, product)
    devices = Device.objects.present().select_related("product")
    if product:
        devices = devices.filter(product=product)
    elif account is not None:
        # Named one by one, or an account with few devices among a million waits for a walk over all of them.
        devices = devices.filter(product__in=list(Product.objects.of(account).values_list("pk", flat=True)))
    prefix = request.GET.get("q", "").replace("\0", "").strip()
    page = keyset(request, devices.named_from(prefix))
    rows = listing.describe(page.rows)
    context = page_context(
        request,
        _("Devices"),
        page=page,
        rows=rows,
        products=products,
        product=product,
        search=prefix,
    )
    return render(request, "devices/device_list.html", context)


def _initial_product(request: HttpRequest) -> dict[str, Any]:
    return {"product": _number(request.GET.get("product", "")) or None}


def device_add(request: HttpRequest) -> HttpResponse:
    """Register one device."""
    products = Product.objects.of(account_scope(request))
    form = DeviceForm(request.POST or None, products=products, initial=_initial_product(request))
    if request.method == "POST" and form.is_valid():
        try:
            device = services.register_device(
                form.cleaned_data["product"], form.cleaned_data["name"], actor=_actor(request)
            )
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, _("The device was registered. Its credentials are on this page."))
            return redirect("admin:devices_device_change", device.pk)
    context = page_context(request, _("Register device"), form=form, has_products=products.exists())
    return render(request, "devices/device_form.html", context)


def device_batch(request: HttpRequest) -> HttpResponse:
    """Register many devices, by number or from a CSV file; answers row by row, and as a file."""
    products = Product.objects.of(account_scope(request))
    form = BatchForm(
        request.POST or None, request.FILES or None, products=products, initial=_initial_product(request)
    )
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        done = request.session.get("batches", [])
        if data["once"] in done:
            messages.warning(request, _("These devices were registered already."))
            return redirect(f"{reverse('admin:devices_device_changelist')}?product={data['product'].pk}")
        results = services.register_devices(
            data["product"], data.get("names"), data.get("count"), actor=_actor(request)
        )
        request.session["batches"] = [*done[-9:], data["once"]]
        return _batch_result(request, data["product"], results)
    context = page_context(
        request, _("Register devices in a batch"), form=form, has_products=products.exists()
    )
    return render(request, "devices/device_batch.html", context)


def _batch_result(
    request: HttpRequest, product: Product, results: list[services.Registration]
) -> HttpResponse:
    made = sum(1 for result in results if result.device)
    header = ["DeviceName", "DeviceSecret", "ProductKey", _("Result")]
    registered = _("Registered")
    lines = [[r.name, r.secret, product.product_key, r.error or registered] for r in results]
    context = page_context(
        request,
        ngettext("%(n)d device registered", "%(n)d devices registered", made) % {"n": made},
        product=product,
        failed=[result for result in results if not result.device],
        made=made,
        shown=[result for result in results if result.device][:RESULTS_SHOWN],
        file=csv_text([header, *lines]),
    )
    return render(request, "devices/device_batch_result.html", context)


def device_page(request: HttpRequest, pk: int) -> HttpResponse:
    """A device: its state, what it runs and ran, its updates; POST shows its credentials."""
    device = _device(request, pk)
    credentials = None
    if request.method == "POST" and request.user.has_perm("devices.change_device"):
        credentials = services.show_credentials(device, _actor(request))
    (row,) = listing.describe([device])
    context = page_context(
        request,
        device.name,
        device=device,
        row=row,
        credentials=credentials,
        mqtt=_broker(),
        versions=device.versions.order_by("module"),
        history=device.version_changes.order_by("-id")[:VERSIONS_SHOWN],
    )
    return render(request, "devices/device.html", context)


def _broker() -> dict[str, Any]:
    """Where devices connect."""
    outside = urlsplit(settings.MQTT_URL or settings.OTA_PUBLIC_URL)
    port = (outside.port or 1883) if settings.MQTT_URL else settings.OTA_MQTT_PORT
    return {"host": outside.hostname, "port": port, "tls_port": settings.OTA_MQTT_TLS_PORT}


# What is asked first; the question stands in the template.
_CONFIRMATIONS = {
    "disable": gettext_lazy("Disable device"),
    "enable": gettext_lazy("Enable device"),
    "remove": gettext_lazy("Remove device"),
    "reset-secret": gettext_lazy("Reset DeviceSecret"),
}


def device_act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Disable, enable, remove, or give a new secret: GET asks, POST does it."""
    device = _device(request, pk)
    actor = _actor(request)
    if request.method != "POST":
        context = page_context(request, str(_CONFIRMATIONS[verb]), device=device, verb=verb)
        return render(request, "devices/device_confirm.html", context)
    if verb == "remove":
        services.remove_device(device, actor)
        messages.success(request, _("The device was removed."))
        return redirect("admin:devices_device_changelist")
    if verb == "reset-secret":
        services.reset_secret(device, actor)
        messages.success(request, _("The device has a new DeviceSecret; the old one is worthless now."))
    elif services.set_disabled(device, verb == "disable", actor):
        done = _("The device was disabled.") if verb == "disable" else _("The device was enabled.")
        messages.success(request, done)
    return redirect("admin:devices_device_change", pk)
