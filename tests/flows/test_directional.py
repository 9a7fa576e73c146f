"""A directional batch at the console: a pasted list and a file, and a word about each name left out."""

import csv
import io
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from campaigns.models import Campaign, UpdateTask
from devices.models import Product
from devices.simulator import running_fleet
from firmware.models import Firmware
from tests.factories import DeviceFactory
from tests.flows.stage import downloaded, outcome, quick, registered, verified, wait_online, wait_over
from tests.running import Platform

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("workers")]


def previewed(console: Any, firmware: Firmware, **choices: Any) -> Any:
    form = {"step": "preview", "policy": "static", "region": "directional", "when": "now"} | choices
    return console.post(f"/firmware/{firmware.pk}/batch/", form)


def launched(console: Any, firmware: Firmware, preview: Any) -> Campaign:
    """Press the button of a preview."""
    fields: dict[str, Any] = {"step": "launch", "token": preview.context["token"], "accept_unproven": "on"}
    for name, value in preview.context["hidden"]:
        fields.setdefault(name, []).append(value)
    answer = console.post(f"/firmware/{firmware.pk}/batch/", fields)
    assert answer.status_code == 302
    campaign: Campaign = Campaign.objects.latest("id")
    return campaign


def test_the_chosen_devices_on_the_chosen_versions_are_updated_and_each_other_name_has_its_reason(
    platform: Platform, product: Product, console: Any
) -> None:
    firmware = verified(product)
    chosen, untouched, elsewhere = registered(product, 3), registered(product, 1), registered(product, 1)
    with (
        running_fleet([*chosen, *untouched], platform.port, quick("1.0.0")),
        running_fleet(elsewhere, platform.port, quick("1.1.0")),
    ):
        wait_online(product, 5)
        never = DeviceFactory.create(product=product, activated_at=None)
        names = [keys.device_name for keys in chosen]
        preview = previewed(
            console,
            firmware,
            source_versions=["1.0.0"],
            device_names=f"{names[0]}, {names[1]}\n{never.name}",
            device_file=SimpleUploadedFile(
                "list.csv",
                f"no,DeviceName\n1,{names[2]}\n2,{elsewhere[0].device_name}\n3,nobody\n".encode(),
            ),
        )
        assert preview.context["preview"].matching == 3
        assert set(preview.context["excluded"]) == {
            f"{never.name}: the device has never connected.",
            f"{elsewhere[0].device_name}: the device runs none of the chosen versions.",
            "nobody: the product has no such device.",
        }
        batch = launched(console, firmware, preview)
        wait_over(batch)
    assert outcome(batch) == {"SUCCEEDED": 3}
    assert set(UpdateTask.objects.values_list("device__name", flat=True)) == set(names)


def test_a_long_file_has_its_result_row_by_row_to_take_away(
    platform: Platform, product: Product, console: Any
) -> None:
    firmware = verified(product)
    (keys,) = registered(product, 1)
    with running_fleet([keys], platform.port, quick()):
        wait_online(product, 1)
        rows = ["DeviceName", keys.device_name, *(f"unknown{n}" for n in range(1200))]
        upload = SimpleUploadedFile("list.csv", "\n".join(rows).encode())
        preview = previewed(console, firmware, device_file=upload)
        (link,) = re.findall(r'href="([^"]*result\.csv[^"]*)"', preview.content.decode())
        result = downloaded(console, link)
        words = dict(csv.reader(io.StringIO(result)))
        assert len(words) == len(rows)
        assert words[keys.device_name] == "taken in"
        assert words["unknown7"] == "no such device in the product"
        wait_over(launched(console, firmware, preview))
    assert UpdateTask.objects.get().status == "SUCCEEDED"
