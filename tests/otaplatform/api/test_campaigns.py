"""Campaigns and their tasks, from the launch to the end."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns.models import Campaign, UpdateTask
from campaigns.services import MAX_CHOSEN
from devices.models import Device, Product
from firmware.models import Firmware
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory
from tests.otaplatform.api.conftest import V1, code_of, launch, of, work


@pytest.fixture
def devices(product: Product) -> list[Device]:
    return [
        DeviceFactory.create(product=product, name=f"meter-{n}", version="1.0.0", online=True)
        for n in range(3)
    ]


def test_a_batch_runs_from_its_launch_to_its_end(
    operator: APIClient, firmware: Firmware, devices: list[Device]
) -> None:
    made = launch(operator, firmware, source_versions=["1.0.0"])
    assert made.status_code == 201
    url = f"{V1}campaigns/{made.json()['id']}/"
    assert made.json()["counts"] == dict.fromkeys(
        ["scheduled", "queued", "notified", "in_progress", "succeeded", "failed", "canceled"], 0
    )
    work(failing=("meter-1",))
    body = operator.get(url).json()
    assert body["status"] == "completed"
    assert {status: n for status, n in body["counts"].items() if n} == {"succeeded": 2, "failed": 1}
    (failed,) = operator.get(f"{url}tasks/", {"status": "failed", "reason": "DOWNLOAD"}).json()["results"]
    assert (failed["device_name"], failed["detail"]) == ("meter-1", "no route")
    assert failed["why"] is None
    events = operator.get(f"{V1}tasks/{failed['id']}/events/").json()["results"]
    assert [event["after"] for event in events if event["after"]][-1] == "failed"
    assert operator.post(f"{url}retry/", {"reason": "TIMEOUT"}).json() == {"restarted": 0}
    assert operator.post(f"{url}retry/", {"reason": "DOWNLOAD"}).json() == {"restarted": 1}
    assert operator.get(f"{V1}tasks/{failed['id']}/").json()["status"] == "queued"


def test_tasks_are_listed_page_by_page_over_all_statuses(
    operator: APIClient, firmware: Firmware, devices: list[Device]
) -> None:
    url = f"{V1}campaigns/{launch(operator, firmware).json()['id']}/tasks/"
    work(failing=("meter-0", "meter-2"))
    found, address = [], f"{url}?page_size=1"
    while address:
        page = operator.get(address).json()
        found += [(row["status"], row["device_name"]) for row in page["results"]]
        address = page["next"]
    assert found == [("failed", "meter-0"), ("failed", "meter-2"), ("succeeded", "meter-1")]
    by_name = operator.get(url, {"device_name": "meter-1"}).json()["results"]
    assert [row["device_name"] for row in by_name] == ["meter-1"]
    assert operator.get(url, {"device_name": "meter"}).json()["results"] == []


def test_a_waiting_task_says_why(operator: APIClient, product: Product, firmware: Firmware) -> None:
    DeviceFactory.create(product=product, version="1.0.0")
    campaign = launch(operator, firmware).json()["id"]
    work()
    (task,) = operator.get(f"{V1}campaigns/{campaign}/tasks/").json()["results"]
    assert (task["status"], task["why_code"]) == ("queued", "offline")
    assert task["why"].startswith("Waiting for the device to come online")
    (same,) = operator.get(of(product, f"devices/{task['device_name']}/tasks/")).json()["results"]
    assert same["id"] == task["id"]


def test_a_preview_counts_and_changes_nothing(
    operator: APIClient, firmware: Firmware, devices: list[Device]
) -> None:
    body = {
        "firmware": firmware.pk,
        "region": "directional",
        "device_names": ["meter-0", "ghost"],
        "policy": "static",
    }
    found = operator.post(f"{V1}campaigns/preview/", body).json()
    assert (found["matching"], found["online"], found["needs_accept_unproven"]) == (1, 1, True)
    assert [(row["device_name"], row["code"]) for row in found["excluded"]] == [("ghost", "unknown")]
    assert not Campaign.objects.exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"policy": "sometimes"}, "policy"),
        ({"region": "directional"}, "device_names"),
        ({"region": "directional", "device_names": "meter-0"}, "device_names"),
        ({"schedule_at": "2030-01-01T00:00:00"}, "schedule_at"),
        ({"schedule_at": "0001-01-01T00:00:00+14:00"}, "schedule_at"),
        ({"schedule_at": "2001-01-01T00:00:00Z"}, "schedule_at"),
        ({"schedule_at": "2030-01-01T00:00:00Z", "policy": "dynamic"}, "schedule_at"),
        ({"retry_interval_minutes": 7, "max_retries": 1}, "retry_interval_minutes"),
        ({"retry_interval_minutes": "10", "max_retries": 1}, "retry_interval_minutes"),
        ({"retry_interval_minutes": 10}, "max_retries"),
        ({"max_retries": 3, "retry_interval_minutes": 0}, "max_retries"),
        ({"max_retries": True, "retry_interval_minutes": 0}, "max_retries"),
        ({"timeout_minutes": 0}, "timeout_minutes"),
        ({"timeout_minutes": 1441}, "timeout_minutes"),
        ({"max_per_minute": 9}, "max_per_minute"),
        ({"busy": "kick"}, "busy"),
        ({"policy": []}, "policy"),
        ({"region": {}}, "region"),
        ({"max_retries": [1], "retry_interval_minutes": 0}, "max_retries"),
        ({"accept_unproven": "yes"}, "accept_unproven"),
    ],
)
def test_each_option_of_a_batch_is_checked(
    operator: APIClient, firmware: Firmware, values: dict[str, Any], field: str
) -> None:
    response = launch(operator, firmware, **values)
    assert code_of(response) == (400, "invalid")
    assert list(response.json()["fields"]) == [field]
    assert not Campaign.objects.exists()


def test_every_option_of_a_batch_is_kept(
    operator: APIClient, firmware: Firmware, devices: list[Device]
) -> None:
    at = (timezone.now() + timedelta(hours=1)).replace(microsecond=0)
    options = {
        "policy": "static",
        "region": "directional",
        "source_versions": ["1.0.0"],
        "retry_interval_minutes": 1440,
        "max_retries": 5,
        "timeout_minutes": None,
        "max_per_minute": 1000,
        "busy": "replace",
    }
    schedule = {"schedule_at": at.isoformat().replace("+00:00", "Z")}
    made = launch(operator, firmware, device_names=["meter-0"], **options, **schedule).json()
    assert {name: made[name] for name in options} == options
    assert made["schedule_at"] == schedule["schedule_at"]
    assert made["status"] == "planned"


@pytest.mark.parametrize(
    ("code", "values"),
    [("unproven", {"accept_unproven": False}), ("downgrade", {"confirm_downgrade": False})],
)
def test_what_has_to_be_confirmed_is_a_conflict(
    operator: APIClient, firmware: Firmware, code: str, values: dict[str, Any]
) -> None:
    newer = FirmwareFactory.create(product=firmware.product, version="3.0.0")
    DeviceFactory.create(product=firmware.product, version=newer.version)
    assert code_of(launch(operator, firmware, **values)) == (409, code)


def test_a_batch_is_paused_resumed_and_canceled(
    operator: APIClient, firmware: Firmware, devices: list[Device]
) -> None:
    url = f"{V1}campaigns/{launch(operator, firmware).json()['id']}/"
    assert operator.post(f"{url}pause/").json()["is_paused"]
    assert not operator.post(f"{url}resume/").json()["is_paused"]
    assert code_of(operator.post(f"{url}stop-matching/")) == (409, "not_dynamic")
    assert code_of(operator.post(f"{url}cancel/", {"states": ["succeeded"]})) == (400, "invalid")
    assert operator.post(f"{url}cancel/", {"states": ["queued"]}).json()["status"] == "in_progress"
    assert operator.post(f"{url}cancel/").json()["status"] == "canceled"
    assert code_of(operator.post(f"{url}cancel/")) == (409, "is_over")
    assert code_of(operator.post(f"{url}pause/")) == (409, "is_over")


def test_a_dynamic_batch_stops_matching(operator: APIClient, firmware: Firmware) -> None:
    made = launch(operator, firmware, policy="dynamic").json()
    assert code_of(launch(operator, firmware, policy="dynamic")) == (409, "dynamic_exists")
    stopped = operator.post(f"{V1}campaigns/{made['id']}/stop-matching/").json()
    assert stopped["matching_stopped_at"]


def test_one_task_is_canceled_and_started_again(
    operator: APIClient, product: Product, firmware: Firmware
) -> None:
    DeviceFactory.create(product=product, version="1.0.0")
    launch(operator, firmware)
    work()
    url = f"{V1}tasks/{UpdateTask.objects.get().pk}/"
    assert operator.post(f"{url}cancel/").json()["status"] == "canceled"
    assert code_of(operator.post(f"{url}cancel/")) == (409, "is_over")
    assert operator.post(f"{url}retry/").json()["status"] == "queued"
    assert code_of(operator.post(f"{url}retry/")) == (409, "conflict")


def test_campaigns_are_filtered(operator: APIClient, firmware: Firmware) -> None:
    made = launch(operator, firmware).json()["id"]
    assert firmware.product is not None

    def ids(**query: Any) -> list[int]:
        return [row["id"] for row in operator.get(f"{V1}campaigns/", query).json()["results"]]

    assert ids(firmware=firmware.pk, product=firmware.product.product_key, kind="upgrade") == [made]
    assert ids(status="canceled") == []


def test_a_million_names_are_read_and_refused_in_seconds(operator: APIClient, firmware: Firmware) -> None:
    """Checked one by one by a field each they would take a minute."""
    names = [f"meter-{number:026}" for number in range(MAX_CHOSEN + 1)]
    started = time.monotonic()
    response = launch(operator, firmware, region="directional", device_names=names)
    assert response.json()["fields"]["device_names"][0]["code"] == "too_many"
    assert time.monotonic() - started < 10


def test_tasks_of_a_reason_that_is_no_text_are_not_started_again(
    operator: APIClient, firmware: Firmware
) -> None:
    campaign = CampaignFactory.create(firmware=firmware)
    for action, body in (("retry", {"reason": ["TIMEOUT"]}), ("cancel", {"states": [["queued"]]})):
        assert code_of(operator.post(f"{V1}campaigns/{campaign.pk}/{action}/", body)) == (400, "invalid")
