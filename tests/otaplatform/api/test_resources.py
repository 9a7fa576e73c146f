"""What the resources do, one after the other: the verbs are tested with their apps."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns.models import Campaign, UpdateTask
from devices.models import Device, DeviceStatus, Product
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import AuditEntry
from tests.factories import DeviceFactory, FirmwareFactory, ProductFactory
from tests.otaplatform.api.conftest import V1, code_of, work


def of(product: Product, rest: str = "") -> str:
    return f"{V1}products/{product.product_key}/{rest}"


def upload(client: APIClient, product: Product, **values: Any) -> Any:
    body = {
        "name": "meter_app",
        "version": "1.1.0",
        "product": product.product_key,
        "sign_method": "SHA256",
        "file": SimpleUploadedFile("meter.bin", b"image"),
    }
    return client.post(f"{V1}firmware/", body | values, format="multipart")


def launch(client: APIClient, firmware: Firmware, **values: Any) -> Any:
    body = {"firmware": firmware.pk, "policy": "static", "region": "all", "accept_unproven": True}
    return client.post(f"{V1}campaigns/", body | values)


# ---- products ----------------------------------------------------------------------------------------


def test_a_product_is_created_edited_found_and_deleted(administrator: APIClient) -> None:
    made = administrator.post(f"{V1}products/", {"name": "water_meter"})
    assert made.status_code == 201
    assert set(made.json()) >= {"product_key", "product_secret", "name"}
    url = f"{V1}products/{made.json()['product_key']}/"
    edited = administrator.patch(url, {"name": "heat_meter"})
    assert edited.json()["name"] == "heat_meter"
    assert "product_secret" not in administrator.get(url).json()
    found = administrator.get(f"{V1}products/", {"name": "heat"}).json()["results"]
    assert [row["name"] for row in found] == ["heat_meter"]
    assert administrator.delete(url).status_code == 204
    assert administrator.get(url).status_code == 404


def test_two_products_of_one_name_are_a_conflict(administrator: APIClient, product: Product) -> None:
    response = administrator.post(f"{V1}products/", {"name": product.name})
    assert code_of(response) == (409, "already_exists")


def test_a_product_in_use_is_not_deleted(administrator: APIClient, firmware: Firmware) -> None:
    assert firmware.product is not None
    assert code_of(administrator.delete(of(firmware.product))) == (409, "in_use")


def test_the_product_secret_is_shown_to_administrators_and_that_is_recorded(
    administrator: APIClient, operator: APIClient, product: Product
) -> None:
    assert administrator.get(of(product, "credentials/")).json()["product_secret"] == product.secret
    assert AuditEntry.objects.get().action == "product.secret_shown"
    assert operator.get(of(product, "credentials/")).status_code == 403


def test_the_versions_of_a_product_are_counted_with_percentages(viewer: APIClient, product: Product) -> None:
    DeviceFactory.create_batch(3, product=product, version="1.0.0")
    DeviceFactory.create(product=product, version="1.1.0")
    body = viewer.get(of(product, "versions/")).json()
    assert body["total"] == 4
    assert body["results"] == [
        {"version": "1.0.0", "devices": 3, "percent": 75.0},
        {"version": "1.1.0", "devices": 1, "percent": 25.0},
    ]


def test_secure_update_is_switched_on_and_gives_its_key(administrator: APIClient, product: Product) -> None:
    assert administrator.get(of(product, "secure-update/")).json()["public_key_pem"] == ""
    body = administrator.post(of(product, "secure-update/"), {"enabled": True}).json()
    assert body["enabled"]
    assert "BEGIN PUBLIC KEY" in body["public_key_pem"]
    assert "ota_pubn_buf" in body["public_key_c"]


# ---- devices -----------------------------------------------------------------------------------------


def test_a_device_is_registered_found_and_removed(operator: APIClient, product: Product) -> None:
    made = operator.post(of(product, "devices/"), {"device_name": "meter-0001"})
    assert made.status_code == 201
    assert made.json()["device_secret"]
    url = of(product, "devices/meter-0001/")
    body = operator.get(url).json()
    assert (body["status"], body["channel"], body["versions"]) == ("inactive", "mqtt", {})
    assert body["why_code"] == "never_connected"
    assert operator.get(f"{url}credentials/").json()["device_secret"] == made.json()["device_secret"]
    assert operator.delete(url).status_code == 204
    assert operator.get(url).status_code == 404


def test_a_device_without_a_name_gets_one(operator: APIClient, product: Product) -> None:
    assert len(operator.post(of(product, "devices/"), {}).json()["device_name"]) >= 4


def test_two_devices_of_one_name_are_a_conflict(operator: APIClient, product: Product) -> None:
    device = DeviceFactory.create(product=product)
    response = operator.post(of(product, "devices/"), {"device_name": device.name})
    assert code_of(response) == (409, "already_exists")


def test_a_wrong_device_name_is_named(operator: APIClient, product: Product) -> None:
    response = operator.post(of(product, "devices/"), {"device_name": "mäter"})
    assert response.json()["fields"]["device_name"]


def test_devices_are_filtered_by_status_version_and_name(viewer: APIClient, product: Product) -> None:
    DeviceFactory.create(product=product, name="aaaa-online", online=True, version="1.0.0")
    DeviceFactory.create(product=product, name="aaaa-offline", version="2.0.0")
    DeviceFactory.create(product=product, name="bbbb-disabled", is_disabled=True)
    DeviceFactory.create(product=product, name="bbbb-inactive", activated_at=None)
    DeviceFactory.create(version="1.0.0", name="aaaa-elsewhere")

    def names(**query: str) -> list[str]:
        rows = viewer.get(of(product, "devices/"), query).json()["results"]
        return sorted(row["device_name"].removeprefix("aaaa-").removeprefix("bbbb-") for row in rows)

    assert {status: names(status=status) for status in DeviceStatus.values} == {
        status: [status] for status in DeviceStatus.values
    }
    assert names(version="1.0.0") == ["online"]
    assert names(name="bbbb") == ["disabled", "inactive"]
    assert names(name="aaaa", status="offline") == ["offline"]
    assert viewer.get(of(product, "devices/"), {"status": "gone"}).status_code == 400


def test_a_list_of_devices_takes_the_same_queries_for_any_number(
    viewer: APIClient, product: Product, django_assert_num_queries: Any
) -> None:
    counts = []
    for _ in range(2):
        DeviceFactory.create_batch(3, product=product, online=True, version="1.0.0")
        with django_assert_num_queries(10, exact=False) as captured:
            viewer.get(of(product, "devices/"))
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_a_device_is_disabled_and_enabled(operator: APIClient, product: Product) -> None:
    device = DeviceFactory.create(product=product)
    url = of(product, f"devices/{device.name}/")
    for _ in range(2):
        assert operator.post(f"{url}disable/").json()["status"] == "disabled"
    assert operator.post(f"{url}enable/").json()["status"] == "offline"


def test_a_secret_is_reset(operator: APIClient, product: Product) -> None:
    device = DeviceFactory.create(product=product)
    body = operator.post(of(product, f"devices/{device.name}/reset-secret/")).json()
    assert body["device_secret"] == Device.objects.get().secret != device.secret


def test_many_devices_are_registered_by_number(operator: APIClient, product: Product) -> None:
    job = operator.post(of(product, "registrations/"), {"count": 3}).json()
    assert (job["status"], job["requested"], job["registered"]) == ("done", 3, 3)
    url = of(product, f"registrations/{job['id']}/")
    assert operator.get(url).json() == job
    rows = operator.get(f"{url}rows/", {"page_size": 2}).json()
    assert len(rows["results"]) == 2
    assert len(operator.get(rows["next"]).json()["results"]) == 1


def test_many_devices_are_registered_from_a_file_with_a_result_for_each_row(
    operator: APIClient, product: Product
) -> None:
    taken = DeviceFactory.create(product=product)
    content = f"DeviceName\nmeter-0001\n{taken.name}\nx\n".encode()
    body = {"file": SimpleUploadedFile("devices.csv", content)}
    job = operator.post(of(product, "registrations/"), body, format="multipart").json()
    rows = operator.get(of(product, f"registrations/{job['id']}/rows/")).json()["results"]
    assert [(row["row"], bool(row["device_secret"]), bool(row["error"])) for row in rows] == [
        (1, True, False),
        (2, False, True),
        (3, False, True),
    ]
    assert AuditEntry.objects.filter(action="device.secret_shown").exists()


@pytest.mark.parametrize("count", [0, 10_001, "3", True])
def test_a_wrong_number_of_devices_is_refused(operator: APIClient, product: Product, count: object) -> None:
    assert code_of(operator.post(of(product, "registrations/"), {"count": count})) == (400, "invalid")


# ---- firmware ----------------------------------------------------------------------------------------


def test_a_firmware_is_uploaded_found_and_deleted(operator: APIClient, product: Product) -> None:
    made = upload(operator, product)
    assert made.status_code == 201
    body = made.json()
    assert (body["size"], body["status"]) == (5, "unverified")
    assert (len(body["md5"]), len(body["sha256"])) == (32, 64)
    url = f"{V1}firmware/{body['id']}/"
    assert operator.get(url).json() == body
    assert operator.delete(url).status_code == 204


def test_firmware_is_filtered_by_product_status_and_name(viewer: APIClient, product: Product) -> None:
    FirmwareFactory.create(product=product, name="abc_1")
    FirmwareFactory.create(product=product, name="xyz_1", version="3", status=FirmwareStatus.UNVERIFIED)
    other = ProductFactory.create(account=product.account)
    FirmwareFactory.create(product=other, name="other_1")

    def names(**query: str) -> list[str]:
        return [row["name"] for row in viewer.get(f"{V1}firmware/", query).json()["results"]]

    assert names() == ["other_1", "xyz_1", "abc_1"]
    assert names(product=product.product_key) == ["xyz_1", "abc_1"]
    assert names(status="unverified") == ["xyz_1"]
    assert names(name="ab") == ["abc_1"]


def test_what_is_wrong_with_an_upload_is_said_by_field(operator: APIClient, product: Product) -> None:
    response = upload(operator, product, file=SimpleUploadedFile("meter.exe", b"x"))
    assert response.status_code == 400
    assert response.json()["fields"]["file"][0]["code"] == "ending"
    response = upload(operator, product, name="_x", sign_method="CRC")
    assert set(response.json()["fields"]) == {"name", "sign_method"}
    response = upload(operator, ProductFactory.create())
    assert response.json()["fields"]["product"][0]["code"] == "does_not_exist"


def test_two_firmware_of_one_version_are_a_conflict(operator: APIClient, product: Product) -> None:
    upload(operator, product)
    response = upload(operator, product, name="another")
    assert code_of(response) == (409, "already_exists")


def test_a_file_is_downloaded_by_a_link_that_ends(
    operator: APIClient, firmware: Firmware, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = operator.get(f"{V1}firmware/{firmware.pk}/download/").json()
    assert body["url"].startswith(settings.OTA_PUBLIC_URL)
    path = body["url"].removeprefix(settings.OTA_PUBLIC_URL)
    assert operator.get(path + "x").status_code == 403
    monkeypatch.setattr("otaplatform.api.views.firmware.LINK_LIFETIME", timedelta(seconds=-1))
    assert operator.get(path).status_code == 403


@pytest.mark.django_db(transaction=True)
async def test_the_link_gives_the_file(person: Any) -> None:
    from asgiref.sync import sync_to_async

    from tests.otaplatform.api.conftest import client_of

    def link() -> str:
        user = person("Operator")
        firmware = FirmwareFactory.create(product=ProductFactory.create(account=user.account))
        url: str = client_of(user).get(f"{V1}firmware/{firmware.pk}/download/").json()["url"]
        return url

    url = await sync_to_async(link)()
    response: Any = await AsyncClient().get(f"/api/v1/{url.partition('/api/v1/')[2]}")
    content = b"".join([block async for block in response.streaming_content])
    assert content == b"firmware image 2.0.0"


def test_a_validation_marks_the_firmware_verified(operator: APIClient, product: Product) -> None:
    device = DeviceFactory.create(product=product, version="1.0.0", online=True)
    url = f"{V1}firmware/{upload(operator, product).json()['id']}/"
    response = operator.post(f"{url}validate/", {"device_names": [device.name], "timeout_minutes": None})
    assert response.status_code == 201
    assert (response.json()["kind"], response.json()["timeout_minutes"]) == ("verify", None)
    assert operator.get(url).json()["status"] == "verified"
    assert code_of(operator.delete(url)) == (409, "in_use")


def test_a_validation_names_devices_that_do_not_fit(operator: APIClient, firmware: Firmware) -> None:
    url = f"{V1}firmware/{firmware.pk}/validate/"
    response = operator.post(url, {"device_names": ["ghost"]})
    assert response.json()["fields"]["device_names"][0]["code"] == "unknown"
    assert operator.post(url, {"device_names": []}).json()["fields"]["device_names"][0]["code"] == "empty"


def test_a_firmware_without_a_product_is_associated(operator: APIClient, product: Product) -> None:
    firmware = FirmwareFactory.create(product=product)
    Firmware.objects.update(product=None)
    launched = launch(operator, firmware)
    assert code_of(launched) == (409, "not_associated")
    url = f"{V1}firmware/{firmware.pk}/associate/"
    assert operator.post(url, {"product": product.product_key}).json()["product"] == product.product_key
    assert operator.post(url, {"product": product.product_key}).status_code in (400, 409)


# ---- campaigns and tasks -----------------------------------------------------------------------------


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


# ---- the rest ----------------------------------------------------------------------------------------


def test_what_was_done_by_program_is_in_the_audit_log_under_its_user(
    operator: APIClient, product: Product
) -> None:
    upload(operator, product)
    (entry,) = operator.get(f"{V1}audit/", {"action": "firmware.uploaded"}).json()["results"]
    assert entry["object_name"] == "meter_app 1.1.0"
    assert entry["actor"].startswith("user")
    assert operator.get(f"{V1}audit/", {"actor": "nobody"}).json()["results"] == []


def test_people_make_and_revoke_their_own_tokens_only(operator: APIClient, viewer: APIClient) -> None:
    made = operator.post(f"{V1}tokens/", {"days": 1}).json()
    other = APIClient()
    other.credentials(HTTP_AUTHORIZATION=f"Token {made['token']}")
    assert other.get(f"{V1}products/").status_code == 200
    assert viewer.delete(f"{V1}tokens/{made['key']}/").status_code == 404
    assert made["key"] in [row["key"] for row in operator.get(f"{V1}tokens/").json()["results"]]
    assert made["token"] not in json.dumps(operator.get(f"{V1}tokens/").json())
    assert operator.delete(f"{V1}tokens/{made['key']}/").status_code == 204
    assert other.get(f"{V1}products/").status_code == 401
