"""Products and devices, the audit log and tokens: the verbs are tested with their apps."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from devices.models import Device, DeviceStatus, Product
from firmware.models import Firmware
from otaplatform.accounts.models import AuditEntry
from tests.factories import DeviceFactory
from tests.otaplatform.api.conftest import V1, code_of, of, upload

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
