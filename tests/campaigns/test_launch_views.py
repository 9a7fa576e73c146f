"""Validate Firmware and Batch Update: what the forms take, what the preview says, what is launched."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from campaigns import expand
from campaigns.models import Campaign, CampaignDevice
from campaigns.states import CampaignKind, CampaignStatus, TaskStatus
from devices.models import Device
from firmware.models import Firmware, FirmwareStatus
from tests.campaigns.conftest import recounted, status_of, whole_answer
from tests.factories import (
    CampaignFactory,
    DeviceFactory,
    FirmwareFactory,
    TaskFactory,
)

Fleet = Callable[..., list[Device]]


def batch_form(**choices: Any) -> dict[str, Any]:
    return {
        "step": "preview",
        "policy": "static",
        "region": "all",
        "when": "now",
        "timeout_minutes": "60",
        "retry_interval_minutes": "",
    } | choices


def launch(console: Any, firmware: Firmware, **choices: Any) -> Any:
    """Preview, then launch with what the preview carries along."""
    url = reverse("campaigns:batch", args=[firmware.pk])
    preview = console.post(url, batch_form(**choices))
    assert preview.templates[0].name == "campaigns/preview.html", preview.context["form"].errors
    data: dict[str, Any] = {"step": "launch", "token": preview.context["token"], "accept_unproven": "on"}
    for name, value in preview.context["hidden"]:
        if name != "step":
            data.setdefault(name, []).append(value)
    return console.post(url, data)


# ---- validate ----


def test_a_validation_is_launched_and_lands_on_update_details_with_the_note(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    (device,) = fleet(1)
    Firmware.objects.update(status=FirmwareStatus.UNVERIFIED)
    url = reverse("campaigns:validate", args=[firmware.pk])
    page = console.post(url, {"device_names": device.name, "timeout_minutes": "60"}, follow=True)
    campaign = Campaign.objects.get()
    assert page.redirect_chain == [(reverse("campaigns:detail", args=[campaign.pk]), 302)]
    assert b"Verified means that a validation was performed" in page.content
    firmware.refresh_from_db()
    assert (campaign.kind, firmware.status) == (CampaignKind.VERIFY, FirmwareStatus.VERIFIED)


def test_a_validation_keeps_what_was_typed_and_says_what_is_wrong_beside_it(
    console: Any, firmware: Firmware
) -> None:
    url = reverse("campaigns:validate", args=[firmware.pk])
    page = console.post(url, {"device_names": "nobody-knows", "timeout_minutes": "0"})
    assert page.context["form"].errors.keys() == {"timeout_minutes"}
    page = console.post(url, {"device_names": "nobody-knows", "timeout_minutes": ""})
    assert "nobody-knows: the product has no such device." in page.context["form"].errors["device_names"]
    assert page.context["form"]["device_names"].value() == "nobody-knows"
    assert not Campaign.objects.exists()


def test_the_versions_offered_carry_counts_and_those_of_the_last_launch_are_chosen(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    fleet(2, version="1.0.0")
    fleet(1, version="1.1.0")
    recounted(CampaignFactory.create(firmware=firmware, source_versions=["1.1.0"]))
    for name in ("validate", "batch"):
        form = console.get(reverse(f"campaigns:{name}", args=[firmware.pk])).context["form"]
        assert form.fields["source_versions"].choices == [("1.0.0", "1.0.0 (2)"), ("1.1.0", "1.1.0 (1)")]
        assert form["source_versions"].value() == ["1.1.0"]


def test_typeahead_finds_devices_of_the_product_by_how_their_name_begins(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    fleet(1, name="gw-1", version="1.0.0", online=True)
    fleet(1, name="gw-2", version="1.1.0", online=False)
    fleet(1, name="other-1")
    DeviceFactory.create(name="gw-9")
    url = reverse("campaigns:suggest", args=[firmware.pk])
    assert console.get(url, {"q": "gw"}).json()["devices"] == [
        {"name": "gw-1", "version": "1.0.0", "online": True},
        {"name": "gw-2", "version": "1.1.0", "online": False},
    ]
    found = console.get(url, {"q": "gw", "version": ["1.1.0"]}).json()["devices"]
    assert [device["name"] for device in found] == ["gw-2"]


# ---- batch ----


def test_a_batch_is_previewed_and_then_launched(console: Any, fleet: Fleet, firmware: Firmware) -> None:
    fleet(3)
    answer = launch(
        console,
        firmware,
        source_versions=[],
        retry_interval_minutes="30",
        max_retries="2",
        max_per_minute="100",
    )
    campaign = Campaign.objects.get()
    assert answer.url == reverse("campaigns:detail", args=[campaign.pk])
    assert (campaign.retry_interval_minutes, campaign.max_retries, campaign.max_per_minute) == (30, 2, 100)
    assert (campaign.preview["matching"], campaign.status) == (3, CampaignStatus.IN_PROGRESS)


def test_a_double_click_launches_once(console: Any, fleet: Fleet, firmware: Firmware) -> None:
    (device,) = fleet(1)
    url = reverse("campaigns:batch", args=[firmware.pk])
    token = console.post(url, batch_form()).context["token"]
    data = batch_form(step="launch", token=token, accept_unproven="on")
    assert console.post(url, data).url == console.post(url, data).url
    assert Campaign.objects.count() == 1
    url = reverse("campaigns:validate", args=[firmware.pk])
    token = console.get(url).context["token"]
    data = {"token": token, "device_names": device.name}
    assert console.post(url, data).url == console.post(url, data).url
    assert Campaign.objects.count() == 2


def test_an_unproven_firmware_and_a_downgrade_are_launched_only_when_confirmed(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    fleet(1, version="3.0.0")
    FirmwareFactory.create(product=firmware.product, version="3.0.0")
    url = reverse("campaigns:batch", args=[firmware.pk])
    preview = console.post(url, batch_form())
    assert (preview.context["preview"].on_newer, preview.context["planned"].needs_acceptance) == (1, True)
    assert console.post(url, batch_form(step="launch")).status_code == 409
    assert console.post(url, batch_form(step="launch", accept_unproven="on")).status_code == 409
    assert not Campaign.objects.exists()
    data = batch_form(step="launch", accept_unproven="on", confirm_downgrade="on")
    assert console.post(url, data).status_code == 302


def test_busy_devices_are_named_by_batch_and_may_be_replaced(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    (device,) = fleet(1)
    other = CampaignFactory.create(firmware=FirmwareFactory.create(product=firmware.product, version="9"))
    waiting = TaskFactory.create(campaign=other, device=device)
    recounted(other)
    url = reverse("campaigns:batch", args=[firmware.pk])
    preview = console.post(url, batch_form())
    assert preview.context["busy_by_campaign"] == [(other, 1)]
    assert preview.context["form"]["busy"].value() == "leave"
    console.post(url, batch_form(step="launch", accept_unproven="on", busy="replace"))
    expand.expand(Campaign.objects.get(firmware=firmware).pk)
    waiting.refresh_from_db()
    assert (waiting.status, status_of(device)) == (TaskStatus.CANCELED, TaskStatus.QUEUED)


def test_a_directional_batch_takes_a_file_and_says_of_each_name_what_became_of_it(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    fleet(1, name="gw-taken")
    fleet(1, name="gw-done", version="2.0.0")
    upload = SimpleUploadedFile("list.csv", b"place,DeviceName\nhall,gw-taken\nroof,gw-done\nroof,nope\n")
    answer = launch(console, firmware, region="directional", device_names="", device_file=upload)
    assert answer.status_code == 302
    assert [row.device.name for row in CampaignDevice.objects.select_related("device")] == ["gw-taken"]


@whole_answer
def test_a_long_list_is_kept_between_preview_and_launch_and_its_result_can_be_downloaded(
    console: Any, fleet: Fleet, firmware: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campaigns.views.launch.SHOWN_NAMES", 2)
    fleet(1, name="gw-taken")
    url = reverse("campaigns:batch", args=[firmware.pk])
    form = batch_form(region="directional", device_names="gw-taken, =nope, 无")
    preview = console.post(url, form)
    key = preview.context["device_list"]
    result = console.get(reverse("campaigns:batch-result", args=[firmware.pk]), {"list": key})
    assert b"".join(result).decode("utf-8-sig").splitlines() == [
        "DeviceName,result",
        "gw-taken,taken in",
        "'=nope,no such device in the product",
        "无,no such device in the product",
    ]
    edited = console.post(url, {**form, "step": "edit", "device_names": "", "device_list": key})
    assert edited.context["kept"] == 3
    data = {**form, "step": "launch", "device_names": "", "device_list": key, "accept_unproven": "on"}
    assert console.post(url, data).status_code == 302
    gone = console.get(reverse("campaigns:batch-result", args=[firmware.pk]), {"list": key})
    assert gone.status_code == 404


def test_a_file_survives_a_mistake_elsewhere_in_the_form(console: Any, firmware: Firmware) -> None:
    url = reverse("campaigns:batch", args=[firmware.pk])
    upload = SimpleUploadedFile("list.csv", b"gw-1\ngw-2\n")
    page = console.post(url, batch_form(region="directional", max_per_minute="3", device_file=upload))
    assert page.context["form"].errors.keys() == {"max_per_minute"}
    assert page.context["kept"] == 2
    assert page.context["form"]["device_list"].value()


def test_a_scheduled_batch_reads_its_time_in_the_users_zone(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    fleet(1)
    wanted = (timezone.now() + timedelta(hours=3)).replace(second=0, microsecond=0)
    local = wanted.astimezone(ZoneInfo("Asia/Shanghai"))
    launch(console, firmware, when="scheduled", schedule_at=f"{local:%Y-%m-%dT%H:%M}")
    assert Campaign.objects.get().schedule_at == wanted


def test_an_unverified_firmware_is_sent_to_its_validation(console: Any, firmware: Firmware) -> None:
    Firmware.objects.update(status=FirmwareStatus.UNVERIFIED)
    answer = console.get(reverse("campaigns:batch", args=[firmware.pk]))
    assert answer.url == reverse("campaigns:validate", args=[firmware.pk])


def test_the_earliest_time_that_the_page_offers_can_be_chosen_and_read_about_before_the_launch(
    console: Any, fleet: Fleet, firmware: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(1)
    page = console.get(reverse("campaigns:batch", args=[firmware.pk]))
    earliest = page.context["form"].fields["schedule_at"].widget.attrs["min"]
    real = timezone.now

    def clock() -> Any:
        return real() + timedelta(seconds=passed)

    monkeypatch.setattr(timezone, "now", clock)
    url = reverse("campaigns:batch", args=[firmware.pk])
    passed = 0
    preview = console.post(url, batch_form(when="scheduled", schedule_at=earliest))
    assert preview.templates[0].name == "campaigns/preview.html", preview.context["form"].errors
    passed = 60
    data = {name: value for name, value in preview.context["hidden"] if name != "step"}
    console.post(url, data | {"step": "launch", "token": preview.context["token"], "accept_unproven": "on"})
    assert Campaign.objects.get().status == CampaignStatus.PLANNED
