"""Forms about people: their own settings, and their password."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AdminPasswordChangeForm, PasswordChangeForm
from django.utils.translation import gettext_lazy as _

from otaplatform.accounts.models import User


class MySettingsForm(forms.ModelForm[User]):
    language = forms.ChoiceField(label=_("Language"), choices=settings.LANGUAGES)
    time_zone = forms.CharField(
        label=_("Time zone"),
        max_length=64,
        widget=forms.TextInput(attrs={"list": "time-zones", "autocomplete": "off"}),
        help_text=_("All times of the console are shown, and read, in this zone. For example Asia/Shanghai."),
    )

    class Meta:
        model = User
        fields = ["first_name", "last_name", "email", "language", "time_zone"]

    @property
    def zones(self) -> list[str]:
        """What the zone field suggests."""
        return sorted(name for name in available_timezones() if "/" in name or name == "UTC")


class OwnPasswordForm(PasswordChangeForm):
    """Changing one's own password also ends the obligation to change it."""

    required_css_class = "required"

    def save(self, commit: bool = True) -> Any:
        self.user.must_change_password = False
        return super().save(commit)

    def clean_new_password1(self) -> Any:
        password = self.cleaned_data.get("new_password1")
        if password and self.user.check_password(password):
            raise forms.ValidationError(_("The new password is the old one."))
        return password


class SetPasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]
    """A password that somebody else sets is changed at the next login."""

    def save(self, commit: bool = True) -> Any:
        self.user.must_change_password = True
        return super().save(commit)
