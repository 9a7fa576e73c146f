"""Forms about people: logging in, their own settings, and their password."""

from datetime import timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AdminPasswordChangeForm, PasswordChangeForm
from django.core.validators import MaxLengthValidator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from otaplatform.accounts import login_limits, services
from otaplatform.accounts.models import User
from otaplatform.core.throttling import client_address

# Nobody has a longer one; hashing more is work for strangers.
LONGEST_PASSWORD = 1024


def wait_sentence(wait: timedelta) -> str:
    """What somebody reads whose log-ins are not looked at for a while."""
    minutes = max(1, -(-int(wait.total_seconds()) // 60))
    return ngettext(
        "Too many failed log-ins. Try again in %(minutes)d minute.",
        "Too many failed log-ins. Try again in %(minutes)d minutes.",
        minutes,
    ) % {"minutes": minutes}


class LogInForm(AdminAuthenticationForm):
    """User name and password. `wait` is set if the attempt was not looked at."""

    wait: timedelta | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        password = self.fields["password"]
        assert isinstance(password, forms.CharField)
        password.max_length = LONGEST_PASSWORD
        password.validators.append(MaxLengthValidator(LONGEST_PASSWORD))

    def clean(self) -> Any:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not name or not password:
            return self.cleaned_data
        assert self.request is not None, "the view gives it"
        user = User.objects.filter(username=name).first()
        attempt = login_limits.Attempt(name, user, client_address(self.request))
        if refusal := login_limits.claim(attempt):
            services.record_blocked_login(user, attempt.address, refusal)
            self.wait = refusal.wait
            raise forms.ValidationError(wait_sentence(refusal.wait), code="throttled")
        try:
            cleaned = super().clean()
        except forms.ValidationError:
            services.record_failed_login(user, attempt.address)
            raise
        login_limits.forgive(attempt)
        return cleaned


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
        super().save(commit=False)
        services.store_password(self.user, actor=self.user)
        return self.user

    def clean_new_password1(self) -> Any:
        password = self.cleaned_data.get("new_password1")
        if password and self.user.check_password(password):
            raise forms.ValidationError(_("The new password is the old one."))
        return password


class SetPasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]
    """A password that somebody else sets: `user.changed_by`, which the admin page leaves there."""

    def save(self, commit: bool = True) -> Any:
        super().save(commit=False)
        services.store_password(self.user, actor=self.user.changed_by)
        return self.user
