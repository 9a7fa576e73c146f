"""What an operator fills in to launch a validation or a batch update. The rules are those of the services."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy, ngettext

from campaigns import chosen
from campaigns.models import Campaign
from campaigns.services import SCHEDULE_FROM, SCHEDULE_UNTIL, Plan
from campaigns.states import Busy, CampaignKind, Policy, Region, RetryInterval, RetryTimes
from devices.models import VersionCounter
from firmware.models import Firmware

NOW, SCHEDULED = "now", "scheduled"
WHEN = [(NOW, gettext_lazy("Update Now")), (SCHEDULED, gettext_lazy("Scheduled Update"))]
NO_RETRY = gettext_lazy("Do Not Retry")
# A list of at most this many names is shown again in the form; a longer one is only counted.
SHOWN_NAMES = 1000
VERSIONS_SHOWN = 300


def version_choices(firmware: Firmware, also: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The versions that the product's devices run, each with its count; and these, even if none runs them."""
    assert firmware.product is not None
    counts = dict(VersionCounter.objects.distribution(firmware.product, firmware.module)[:VERSIONS_SHOWN])
    found = {version: counts.get(version, 0) for version in [*counts, *also]}
    found.pop(firmware.version, None)
    return [(version, f"{version} ({devices:,})") for version, devices in found.items()]


def last_versions(firmware: Firmware) -> list[str]:
    """The versions chosen in the firmware's latest validation or batch."""
    last = Campaign.objects.filter(firmware=firmware).order_by("-id").first()
    return list(last.source_versions) if last else []


class LaunchForm(forms.Form):
    """What validations and batch updates share: versions, and devices by name."""

    source_versions = forms.MultipleChoiceField(
        label=gettext_lazy("Pending Update Version"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    device_names = forms.CharField(
        label=gettext_lazy("DeviceName"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy("One name per line, or separated by commas."),
    )
    timeout_minutes = forms.IntegerField(
        label=gettext_lazy("Time-out per device (minutes)"),
        required=False,
        initial=60,
        validators=[MinValueValidator(1), MaxValueValidator(1440)],
        help_text=gettext_lazy("1 to 1440 minutes without a word from the device. Empty: never."),
    )

    def __init__(self, firmware: Firmware, *args: Any, **kwargs: Any) -> None:
        self.firmware = firmware
        last = last_versions(firmware)
        kwargs["initial"] = {"source_versions": last} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        field: Any = self.fields["source_versions"]
        if firmware.source_version:
            # A delta package starts from the one version it was made for.
            del self.fields["source_versions"]
        else:
            field.choices = version_choices(firmware, last)

    def clean_device_names(self) -> list[str]:
        return chosen.from_text(self.cleaned_data["device_names"])


class ValidateForm(LaunchForm):
    def __init__(self, firmware: Firmware, *args: Any, **kwargs: Any) -> None:
        super().__init__(firmware, *args, **kwargs)
        if field := self.fields.get("source_versions"):
            field.help_text = gettext_lazy("Narrows the devices to choose from. None chosen: any version.")

    def clean_device_names(self) -> list[str]:
        names = super().clean_device_names()
        if not names:
            raise ValidationError(gettext("Choose at least one device."), code="required")
        return names


class BatchForm(LaunchForm):
    policy = forms.ChoiceField(
        label=gettext_lazy("Update Policy"),
        choices=Policy.choices,
        initial=Policy.STATIC,
        widget=forms.RadioSelect,
    )
    region = forms.ChoiceField(
        label=gettext_lazy("Update Region"),
        choices=Region.choices,
        initial=Region.ALL,
        widget=forms.RadioSelect,
    )
    device_file = forms.FileField(
        label=gettext_lazy("CSV file"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,text/csv,text/plain"}),
        help_text=gettext_lazy(
            "One name a line, or a table with a column headed DeviceName; at most 1,000,000 names. "
            "The preview says of each name whether it is taken in."
        ),
    )
    # The key of a list that an earlier preview has read already.
    device_list = forms.CharField(required=False, widget=forms.HiddenInput)
    when = forms.ChoiceField(
        label=gettext_lazy("Update Time"),
        choices=WHEN,
        initial=NOW,
        widget=forms.RadioSelect,
    )
    schedule_at = forms.DateTimeField(
        label=gettext_lazy("Scheduled time"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    retry_interval_minutes = forms.TypedChoiceField(
        label=gettext_lazy("Retry After Failed Update"),
        required=False,
        coerce=int,
        empty_value=None,
        choices=[("", NO_RETRY), *RetryInterval.choices],
    )
    max_retries = forms.TypedChoiceField(
        label=gettext_lazy("Max. Retry Times"),
        required=False,
        coerce=int,
        empty_value=None,
        choices=RetryTimes.choices,
        initial=RetryTimes.ONE,
    )
    max_per_minute = forms.IntegerField(
        label=gettext_lazy("Devices per minute"),
        required=False,
        validators=[MinValueValidator(10), MaxValueValidator(1_000_000)],
        help_text=gettext_lazy("10 to 1,000,000. Empty: no limit."),
    )
    # Asked by the preview:
    busy = forms.ChoiceField(
        label=gettext_lazy("Devices that are busy with another update"),
        required=False,
        choices=Busy.choices,
        initial=Busy.LEAVE,
        widget=forms.RadioSelect,
    )
    accept_unproven = forms.BooleanField(
        label=gettext_lazy("Go on although no device has been updated successfully with this firmware yet"),
        required=False,
    )
    confirm_downgrade = forms.BooleanField(
        label=gettext_lazy("Downgrade these devices"),
        required=False,
    )

    def __init__(self, firmware: Firmware, *args: Any, **kwargs: Any) -> None:
        super().__init__(firmware, *args, **kwargs)
        if field := self.fields.get("source_versions"):
            field.help_text = gettext_lazy("None chosen: all versions.")
        self.fields["device_names"].label = gettext_lazy("Device Range")
        self.fields["policy"].help_text = gettext_lazy(
            "Static: activated devices that match when the batch is launched, also if it is scheduled. "
            "Dynamic: also devices that match later, newly activated ones too."
        )
        zone = timezone.get_current_timezone_name()
        schedule: Any = self.fields["schedule_at"]
        schedule.help_text = gettext(
            "5 minutes to 7 days ahead, in the time zone %(zone)s. Static updates only."
        ) % {"zone": zone}
        now = timezone.localtime()
        schedule.widget.attrs |= {
            "min": f"{now + SCHEDULE_FROM:%Y-%m-%dT%H:%M}",
            "max": f"{now + SCHEDULE_UNTIL:%Y-%m-%dT%H:%M}",
        }

    def clean_device_file(self) -> list[str] | None:
        upload = self.cleaned_data["device_file"]
        if upload is None:
            return None
        if upload.size > chosen.MAX_BYTES:
            raise ValidationError(gettext("The file is larger than 64 MB."), code="too_large")
        names = chosen.from_csv(upload.file)
        if not names:
            raise ValidationError(gettext("The file names no device."), code="empty")
        return names

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("when") == SCHEDULED:
            if data.get("policy") == Policy.DYNAMIC:
                self.add_error("when", gettext("Only a static update can be scheduled."))
            elif not data.get("schedule_at") and "schedule_at" not in self.errors:
                self.add_error("schedule_at", gettext("Choose the time of the update."))
        else:
            data["schedule_at"] = None
            self.errors.pop("schedule_at", None)
        if data.get("retry_interval_minutes") is None:
            data["max_retries"] = None
        elif not data.get("max_retries"):
            data["max_retries"] = RetryTimes.ONE.value
        if data.get("region") == Region.DIRECTIONAL:
            self._clean_devices(data)
        else:
            for name in ("device_names", "device_file"):
                self.errors.pop(name, None)
            data["device_names"] = []
        return data

    def _clean_devices(self, data: dict[str, Any]) -> None:
        names = list(data.get("device_names") or [])
        stored = chosen.kept(data.get("device_list", "")) if data.get("device_list") else None
        names += [*(stored or []), *(data.get("device_file") or [])]
        data["device_names"] = list(dict.fromkeys(names))
        if not names and not {"device_names", "device_file"} & set(self.errors):
            self.add_error("device_names", gettext("Choose at least one device."))

    def plan(self) -> Plan:
        """The cleaned choices, as the services take them."""
        data = self.cleaned_data
        return Plan(
            policy=data["policy"],
            region=data["region"],
            device_names=data["device_names"],
            source_versions=data.get("source_versions", []),
            schedule_at=data["schedule_at"],
            retry_interval_minutes=data["retry_interval_minutes"],
            max_retries=data["max_retries"],
            timeout_minutes=data["timeout_minutes"],
            max_per_minute=data["max_per_minute"],
            busy=data["busy"] or Busy.LEAVE,
            accept_unproven=data["accept_unproven"],
            confirm_downgrade=data["confirm_downgrade"],
        )


def kind_label(campaign: Campaign) -> str:
    """A campaign in words: "Validation", "Static Update", "Dynamic Update"."""
    if campaign.kind == CampaignKind.VERIFY:
        return str(CampaignKind.VERIFY.label)
    return str(Policy(campaign.policy).label)


def retry_label(campaign: Campaign) -> str:
    """The retry setting in words."""
    if campaign.retry_interval_minutes is None:
        return str(NO_RETRY)
    times = campaign.max_retries or 0
    words = ngettext("%(interval)s, at most %(times)s time", "%(interval)s, at most %(times)s times", times)
    return words % {"interval": RetryInterval(campaign.retry_interval_minutes).label, "times": times}
