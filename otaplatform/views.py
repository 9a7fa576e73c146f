"""Pages that span all apps."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from devices.models import Product
from otaplatform.accounts.pages import page_context
from otaplatform.accounts.scope import Staff, account_scope, require
from otaplatform.sample import remove_sample


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
