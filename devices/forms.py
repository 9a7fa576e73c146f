"""What people fill in about products and devices."""

import secrets
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from devices.models import Device, Product, validate_device_name
from devices.services import MAX_BATCH, names_of_file
from otaplatform.accounts.models import Account


class ProductForm(forms.ModelForm[Product]):
    """A product's name and description; the account too, for a superuser who looks at all of them."""

    account = forms.ModelChoiceField(Account.objects.none(), label=_("Account"))

    class Meta:
        model = Product
        fields = ["account", "name", "description"]
        help_texts = {
            "name": _("4 to 30 letters, digits, Chinese characters or underscores."),
        }

    def __init__(self, *args: Any, account: Account | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chooser: Any = self.fields["account"]
        if self.instance.pk or account is not None:
            del self.fields["account"]
            if not self.instance.pk:
                self.instance.account = account  # type: ignore[assignment]
        else:
            chooser.queryset = Account.objects.all()

    def _get_validation_exclusions(self) -> set[str]:
        # The name is unique within the account, which is set even where nobody chooses it.
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return exclusions - {"account"}


class DeviceForm(forms.Form):
    """One device."""

    product = forms.ModelChoiceField(Product.objects.none(), label=_("Product"))
    name = forms.CharField(
        label="DeviceName",
        max_length=32,
        required=False,
        validators=[validate_device_name],
        help_text=_("4 to 32 letters, digits or - _ . : @. Empty: a name is made up."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, products: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chooser: Any = self.fields["product"]
        chooser.queryset = products

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        product, name = data.get("product"), data.get("name")
        if product and name and Device.objects.present().filter(product=product, name=name).exists():
            self.add_error("name", _("The product already has a device of this name."))
        return data


class BatchForm(forms.Form):
    """Many devices: so many, or those that a CSV file names."""

    COUNT, CSV = "count", "csv"

    product = forms.ModelChoiceField(Product.objects.none(), label=_("Product"))
    source = forms.ChoiceField(
        label=_("Names"),
        choices=[(COUNT, _("Made up")), (CSV, _("From a CSV file"))],
        initial=COUNT,
        widget=forms.RadioSelect,
    )
    count = forms.IntegerField(
        label=_("Number of devices"), required=False, min_value=1, max_value=MAX_BATCH, initial=10
    )
    file = forms.FileField(
        label=_("CSV file"),
        required=False,
        help_text=_(
            "One DeviceName a line, or a table with a column headed DeviceName. UTF-8, UTF-16 or GB18030."
        ),
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,text/csv"}),
    )
    # Names this one submission: sent again (a reload), it does not register everything once more.
    once = forms.CharField(widget=forms.HiddenInput, initial=lambda: secrets.token_urlsafe(12), max_length=32)

    def __init__(self, *args: Any, products: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chooser: Any = self.fields["product"]
        chooser.queryset = products

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if data.get("source") == self.COUNT and not data.get("count") and "count" not in self.errors:
            self.add_error("count", _("Enter how many devices to register."))
        elif data.get("source") == self.CSV and "file" not in self.errors:
            self._read(data)
        return data

    def _read(self, data: dict[str, Any]) -> None:
        upload = data.get("file")
        if not upload:
            self.add_error("file", _("Choose a file."))
            return
        try:
            data["names"] = names = names_of_file(upload.file)
        except ValidationError as error:
            self.add_error("file", error)
            return
        if not names:
            self.add_error("file", _("The file names no device."))
        elif len(names) > MAX_BATCH:
            message = _("The file names more than %(max)d devices. Register them in several files.")
            self.add_error("file", ValidationError(message, params={"max": MAX_BATCH}))
