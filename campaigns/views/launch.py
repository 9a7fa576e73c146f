"""Validate Firmware and Batch Update: fill in, look at what it would do, launch once."""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext
from django.views.decorators.http import require_GET

from campaigns import chosen, named, selection, services
from campaigns.export import csv_response
from campaigns.forms import SHOWN_NAMES, BatchForm, ValidateForm
from campaigns.models import Campaign
from campaigns.services import Planned, RefusedError
from campaigns.states import Busy, Policy
from campaigns.views.common import page, the_firmware
from devices.models import DevicePresence, DeviceVersion
from firmware.models import Firmware
from otaplatform.accounts.scope import Staff, require
from otaplatform.core.csv_files import csv_text

SUGGESTIONS = 20
EXCLUDED_SHOWN = 100
# While a preview is read, the scheduled time that was chosen before it comes nearer.
READING = timedelta(minutes=2)
_TOKEN = re.compile(r"[0-9a-f]{32}")


def launch_once(firmware: Firmware, token: str, launch: Callable[[], Campaign]) -> tuple[Campaign, bool]:
    """Launch unless this form (known by its token) has launched already: (campaign, whether it is new)."""
    with transaction.atomic():
        Firmware.objects.select_for_update(no_key=True).get(pk=firmware.pk)
        if _TOKEN.fullmatch(token):
            earlier = Campaign.objects.filter(firmware=firmware, preview__token=token).first()
            if earlier is not None:
                return earlier, False
        campaign = launch()
        campaign.preview = {**campaign.preview, "token": token[:32]}
        campaign.save(update_fields=["preview"])
    return campaign, True


def _unassociated(request: Staff) -> HttpResponse:
    messages.error(request, _("Associate the firmware with a product first."))
    return redirect("firmware:list")


@require("campaigns.add_campaign")
def validate(request: Staff, pk: int) -> HttpResponse:
    """Validate Firmware: push it to a few devices."""
    firmware = the_firmware(request, pk)
    if firmware.product is None:
        return _unassociated(request)
    form = ValidateForm(firmware, request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data

        def launch() -> Campaign:
            return services.launch_validation(
                firmware,
                data["device_names"],
                source_versions=data.get("source_versions", []),
                timeout_minutes=data["timeout_minutes"],
                actor=request.user,
            )

        try:
            campaign, _new = launch_once(firmware, request.POST.get("token", ""), launch)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            count = len(data["device_names"])
            messages.success(
                request,
                ngettext(
                    "The validation was launched on %(n)s device.",
                    "The validation was launched on %(n)s devices.",
                    count,
                )
                % {"n": count},
            )
            return redirect("campaigns:detail", campaign.pk)
    return page(
        request,
        "validate.html",
        _("Validate Firmware"),
        nav="firmware",
        firmware=firmware,
        form=form,
        token=secrets.token_hex(16),
    )


@require_GET
@require("campaigns.add_campaign", "devices.view_device")
def suggest(request: Staff, pk: int) -> HttpResponse:
    """The typeahead: devices of the firmware's product whose name begins with `q`, on the `version`s."""
    firmware = the_firmware(request, pk)
    if firmware.product is None:
        return JsonResponse({"devices": []})
    prefix = request.GET.get("q", "").strip()
    # No stored version holds a NUL, and PostgreSQL does not compare with one.
    versions = [version.replace("\0", "\ufffd") for version in request.GET.getlist("version")]
    rows = selection.on_versions(firmware.product, firmware.module, versions)
    found = list(
        rows.named_from(prefix.replace("\0", "")).order_by("name").values_list("id", "name")[:SUGGESTIONS]
    )
    ids = [device for device, _name in found]
    online = set(DevicePresence.objects.online().filter(pk__in=ids).values_list("pk", flat=True))
    running = dict(
        DeviceVersion.objects.filter(device__in=ids, module=firmware.module).values_list(
            "device_id", "version"
        )
    )
    return JsonResponse(
        {
            "devices": [
                {"name": name, "version": running.get(device, ""), "online": device in online}
                for device, name in found
            ]
        }
    )


@require("campaigns.add_campaign")
def batch(request: Staff, pk: int) -> HttpResponse:
    """Batch Update: the form, then the preview, then the launch."""
    firmware = the_firmware(request, pk)
    if firmware.product is None:
        return _unassociated(request)
    if not firmware.is_batchable:
        messages.error(request, _("Validate the firmware before a batch update."))
        return redirect("campaigns:validate", firmware.pk)
    step = request.POST.get("step", "")
    if request.method != "POST" or step == "edit":
        return _batch_form(request, firmware, BatchForm(firmware, initial=_typed(request)))
    form = BatchForm(firmware, request.POST, request.FILES)
    if not form.is_valid():
        return _batch_form(request, firmware, form)
    now = timezone.now()
    try:
        planned = services.check_plan(
            firmware, form.plan(), now, chosen_at=now - READING if step == "launch" else now
        )
    except ValidationError as error:
        form.add_error(None, error)
        return _batch_form(request, firmware, form)
    if step != "launch":
        return _preview(request, firmware, form, planned)
    try:
        campaign, _new = launch_once(
            firmware,
            request.POST.get("token", ""),
            lambda: services.launch_batch(firmware, form.plan(), planned=planned, actor=request.user),
        )
    except RefusedError as error:
        return _preview(request, firmware, form, planned, error)
    except ValidationError as error:
        form.add_error(None, error)
        return _batch_form(request, firmware, form)
    chosen.forget(form.cleaned_data["device_list"])
    if campaign.schedule_at:
        messages.success(request, _("The batch is scheduled."))
    else:
        messages.success(request, _("The batch was launched."))
    return redirect("campaigns:detail", campaign.pk)


def _typed(request: Staff) -> dict[str, Any]:
    """What a preview was made of, to go on editing; nothing at the first visit."""
    if request.method != "POST":
        return {}
    typed: dict[str, Any] = {
        name: request.POST[name] for name in request.POST if name in BatchForm.base_fields
    }
    return typed | {"source_versions": request.POST.getlist("source_versions")}


def _batch_form(request: Staff, firmware: Firmware, form: BatchForm) -> HttpResponse:
    key = request.POST.get("device_list", "")
    if form.is_bound and (upload := form.cleaned_data.get("device_file")):
        # A file cannot be put back into its field: what it said is kept beside it.
        key = chosen.keep(upload)
        form.data = request.POST.copy()
        form.data["device_list"] = key
    return page(
        request,
        "batch.html",
        _("Batch Update"),
        nav="firmware",
        firmware=firmware,
        form=form,
        kept=len(chosen.kept(key) or []) if key else 0,
        is_proven=services.is_proven(firmware),
    )


def _preview(
    request: Staff,
    firmware: Firmware,
    form: BatchForm,
    planned: Planned,
    error: ValidationError | None = None,
) -> HttpResponse:
    data, names = form.cleaned_data, form.cleaned_data["device_names"]
    key = data["device_list"]
    if len(names) > SHOWN_NAMES:
        key = key if data["device_list"] and not data["device_file"] else chosen.keep(names)
    hidden = [
        (name, value)
        for name, values in request.POST.lists()
        if name in form.fields and name not in {"device_names", "device_list", *_ASKED}
        for value in values
    ]
    if names:
        hidden.append(
            ("device_list", key) if len(names) > SHOWN_NAMES else ("device_names", "\n".join(names))
        )
    shown = request.POST.copy()
    shown.setdefault("busy", Busy.LEAVE.value)
    form.data = shown
    preview = planned.preview
    busy = Campaign.objects.in_bulk(list(preview.busy_by_campaign))
    reasons = Counter(planned.excluded.values())
    return page(
        request,
        "preview.html",
        _("Batch Update"),
        nav="firmware",
        firmware=firmware,
        form=form,
        planned=planned,
        preview=preview,
        error=error,
        hidden=hidden,
        token=request.POST.get("token", "") if error else secrets.token_hex(16),
        is_dynamic=data["policy"] == Policy.DYNAMIC,
        demands_success=settings.OTA_DEMAND_SUCCESS,
        busy_by_campaign=[(busy[pk], count) for pk, count in preview.busy_by_campaign.items() if pk in busy],
        excluded_counts=[(_(EXCLUDED_IN_SHORT[code]), count) for code, count in reasons.most_common()],
        excluded=[
            services.exclusion_message(name, code).messages[0]
            for name, code in islice(planned.excluded.items(), EXCLUDED_SHOWN)
        ],
        excluded_more=max(0, len(planned.excluded) - EXCLUDED_SHOWN),
        device_list=key if len(names) > SHOWN_NAMES else "",
        plan=form.plan(),
        status=409 if error else 200,
    )


# Answered on the preview itself.
_ASKED = ("busy", "accept_unproven", "confirm_downgrade")

EXCLUDED_IN_SHORT = {
    "unknown": gettext_noop("no such device in the product"),
    "disabled": gettext_noop("disabled"),
    "not_activated": gettext_noop("never connected"),
    "on_target": gettext_noop("on this version already"),
    "other_version": gettext_noop("on none of the chosen versions"),
}


@require_GET
@require("campaigns.add_campaign")
def result(request: Staff, pk: int) -> HttpResponseBase:
    """The row-by-row result of a kept list as CSV: each name, and whether it is taken in."""
    firmware = the_firmware(request, pk)
    names = chosen.kept(request.GET.get("list", ""))
    if firmware.product is None or names is None:
        return HttpResponse(_("This list is no longer kept. Make the preview again."), status=404)
    excluded = named.look(firmware, names, request.GET.getlist("version")).excluded
    taken = _("taken in")
    words = {code: _(text) for code, text in EXCLUDED_IN_SHORT.items()}

    def texts() -> Iterator[str]:
        yield csv_text([["DeviceName", "result"]])
        for start in range(0, len(names), 1000):
            some = names[start : start + 1000]
            yield csv_text([name, words[excluded[name]] if name in excluded else taken] for name in some)

    return csv_response(f"devices-{timezone.localdate()}.csv", texts())
