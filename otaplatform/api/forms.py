"""The forms of webhooks and tokens in the console."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from otaplatform.api.models import WebhookEvent


class WebhookForm(forms.Form):
    url = forms.URLField(
        label=_("Address"),
        max_length=500,
        assume_scheme="https",
        help_text=_("Receives a POST with JSON for each event."),
        widget=forms.URLInput(attrs={"autocomplete": "off", "placeholder": "https://"}),
    )
    events = forms.MultipleChoiceField(
        label=_("Events"), choices=WebhookEvent.choices, widget=forms.CheckboxSelectMultiple
    )
    is_enabled = forms.BooleanField(label=_("Enabled"), required=False)


class TokenForm(forms.Form):
    days: Any = forms.TypedChoiceField(
        label=_("Expires after"),
        coerce=int,
        initial=90,
        choices=[(7, _("7 days")), (30, _("30 days")), (90, _("90 days")), (365, _("1 year"))],
    )
