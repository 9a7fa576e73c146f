"""Forms of firmware. They read what was typed; the rules themselves are held by models and services."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from devices.models import Product
from firmware.content import SUFFIXES
from firmware.models import Firmware, FirmwareStatus, SignMethod
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.scope import Staff

UPLOAD_HELP = _("A .bin, .tar, .gz, .tar.gz or .zip file of at most %(limit)s MB.")


class ProductField(forms.ModelChoiceField[Product]):
    """A choice of products; who looks at all accounts also sees whose they are."""

    def __init__(self, account: Account | None, **options: Any) -> None:
        products = Product.objects.of(account).select_related("account").order_by("name")
        super().__init__(products, label=pgettext_lazy("of a firmware", "Product"), **options)
        self.shows_account = account is None

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} · {obj.account.name}" if self.shows_account else str(obj.name)


class NewFirmwareForm(forms.Form):
    """New Firmware."""

    # Nothing is stripped: what is stored is what was typed, and a stray blank is said to be one.
    name = forms.CharField(
        label=_("Firmware Name"),
        max_length=32,
        strip=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "minlength": 4}),
        help_text=_(
            "4 to 32 letters, digits, Chinese characters or underscores; not beginning with an underscore."
        ),
    )
    version = forms.CharField(
        label=_("Firmware Version"),
        max_length=64,
        strip=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text=_("1 to 64 letters, digits, periods, hyphens or underscores; unique within the product."),
    )
    sign_method = forms.ChoiceField(label=_("Signature Algorithm"), choices=SignMethod.choices)
    upload = forms.FileField(
        label=_("Upload Firmware"),
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ",".join(SUFFIXES)}),
    )
    field_order = ("name", "version", "product", "sign_method", "upload")

    def __init__(self, account: Account | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["product"] = ProductField(account)
        self.order_fields(self.field_order)
        limit = settings.OTA_MAX_FIRMWARE_MB
        upload = self.fields["upload"]
        upload.help_text = UPLOAD_HELP % {"limit": limit}
        upload.widget.attrs["data-max-bytes"] = limit * 1024 * 1024

    def upload_arguments(self, actor: User) -> dict[str, Any]:
        """What `services.upload_firmware` takes."""
        return {**self.cleaned_data, "actor": actor}


class AssociateForm(forms.Form):
    """One product for each firmware from before firmware belonged to products."""

    def __init__(self, firmware: Iterable[Firmware], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.firmware = list(firmware)
        for row in self.firmware:
            field = ProductField(row.account)
            field.label = row.name
            field.widget.attrs["aria-label"] = f"{field.label} {row.version}"
            self.fields[f"product_{row.pk}"] = field

    def rows(self) -> list[tuple[Firmware, forms.BoundField]]:
        return [(row, self[f"product_{row.pk}"]) for row in self.firmware]

    def choices(self) -> dict[Firmware, Product]:
        """What `services.associate` takes."""
        return {row: self.cleaned_data[f"product_{row.pk}"] for row in self.firmware}


class FilterForm(forms.Form):
    """The filters of the firmware list; a value that is none is no filter."""

    q = forms.CharField(
        required=False,
        max_length=64,
        widget=forms.TextInput(
            attrs={"type": "search", "placeholder": _("Name or version"), "aria-label": _("Name or version")}
        ),
    )
    status = forms.TypedChoiceField(
        required=False,
        coerce=int,
        empty_value=None,
        choices=[
            ("", _("All statuses")),
            (FirmwareStatus.UNVERIFIED, FirmwareStatus.UNVERIFIED.label),
            (FirmwareStatus.VERIFIED, FirmwareStatus.VERIFIED.label),
        ],
        widget=forms.Select(attrs={"data-submit": True, "aria-label": _("Status")}),
    )
    sign_method = forms.ChoiceField(
        required=False,
        choices=[("", _("All signature algorithms")), *SignMethod.choices],
        widget=forms.Select(attrs={"data-submit": True, "aria-label": _("Signature Algorithm")}),
    )
    field_order = ("q", "product", "status", "sign_method")

    def __init__(self, request: Staff, account: Account | None) -> None:
        field = ProductField(account, required=False, empty_label=_("All products"))
        field.widget.attrs |= {"data-submit": True, "aria-label": field.label}
        super().__init__(request.GET)
        self.fields["product"] = field
        self.order_fields(self.field_order)
        self.is_valid()
