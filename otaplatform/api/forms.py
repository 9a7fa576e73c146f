"""The forms of webhooks and tokens in the console."""

from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from otaplatform.accounts import tokens
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


_LIFETIMES = [(7, _("7 days")), (30, _("30 days")), (90, _("90 days")), (365, _("1 year"))]


def lifetimes() -> list[tuple[int, Any]]:
    """The choices that OTA_TOKEN_MAX_DAYS allows; that number itself if none of ours."""
    most: int = settings.OTA_TOKEN_MAX_DAYS
    allowed: list[tuple[int, Any]] = [choice for choice in _LIFETIMES if choice[0] <= most]
    return allowed or [(most, ngettext("%(days)d day", "%(days)d days", most) % {"days": most})]


class TokenForm(forms.Form):
    days: Any = forms.TypedChoiceField(
        label=_("Expires after"), coerce=int, initial=tokens.default_days, choices=lifetimes
    )
