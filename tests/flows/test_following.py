"""What the console says of a batch on its way: device by device, as a file, and on the dashboard."""

import csv
import io
import re
from datetime import datetime
from typing import Any

import pytest
from django.utils import translation

from campaigns import services as updates
from campaigns.models import UpdateTask
from campaigns.overview import overview
from campaigns.services import Plan
from campaigns.why import Surroundings, why
from devices.models import DevicePresence, Product
from devices.simulator import Fault, running_fleet
from tests.flows.stage import (
    connected,
    downloaded,
    quick,
    registered,
    task_of,
    tick,
    verified,
    wait_online,
    wait_outcome,
    wait_over,
)
from tests.running import Platform, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_every_unfinished_device_has_its_sentence_in_both_languages_and_its_row_in_the_file(
    platform: Platform, product: Product, now: datetime, console: Any
) -> None:
    downloading, quiet, away = (connected(platform, product, "1.0.0") for _ in range(3))
    away.close()
    wait_until(lambda: DevicePresence.objects.online().count() == 2, "one is away")
    batch = updates.launch_batch(verified(product), Plan(accept_unproven=True), now=now)
    tick(now)
    downloading.wait_for_message("/ota/device/upgrade/")
    downloading.progress(35, "=cmd|' /C calc'!A0")
    wait_outcome(batch, {"IN_PROGRESS": 1, "NOTIFIED": 1, "QUEUED": 1})
    tasks = list(UpdateTask.objects.select_related("campaign", "device"))
    around = Surroundings.of(tasks, now)
    said = {}
    for language in ("en", "zh-hans"):
        with translation.override(language):
            said[language] = {task.device.name: str(why(task, around, now)) for task in tasks}
    assert said["en"][downloading.name].startswith("Downloading, reported")
    assert "no answer yet; times out in 60 minutes" in said["en"][quiet.name]
    assert said["en"][away.name].startswith("Waiting for the device to come online since")
    assert said["zh-hans"][downloading.name].startswith("正在下载")
    assert said["zh-hans"].keys() == said["en"].keys()
    assert all(re.search("[一-鿿]", sentence) for sentence in said["zh-hans"].values())
    page = console.get(f"/batches/{batch.pk}/?tab=updating").content.decode()
    assert said["en"][downloading.name].split(",")[0] in page
    file = downloaded(console, f"/batches/{batch.pk}/?export=all")
    rows = {row["DeviceName"]: row for row in csv.DictReader(io.StringIO(file))}
    assert {name: row["Progress"] for name, row in rows.items()} == {
        downloading.name: "35",
        quiet.name: "0",
        away.name: "0",
    }
    downloading.close()
    quiet.close()


@pytest.mark.usefixtures("workers")
def test_the_dashboard_tells_the_week_and_the_reasons(
    platform: Platform, product: Product, console: Any
) -> None:
    good, bad = registered(product, 3), registered(product, 1)
    with (
        running_fleet(good, platform.port, quick()),
        running_fleet(bad, platform.port, quick(fault=Fault.DOWNLOAD)),
    ):
        wait_online(product, 4)
        batch = updates.launch_batch(verified(product), Plan(accept_unproven=True))
        wait_over(batch)
    figures = overview(product.account)
    assert (figures.week["succeeded"], figures.week["failed"]) == (3, 1)
    assert figures.ended == {**dict.fromkeys(figures.week, 0), "succeeded": 3, "failed": 1}
    assert figures.failures == [("DOWNLOAD", 1, 100)]
    page = console.get("/").content.decode()
    assert "75.0%" in page
    assert "The device could not download the firmware file." in page
    assert task_of(bad[0], batch).status == "FAILED"
