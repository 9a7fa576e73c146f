"""Firmware: upload, look, download, validate, associate."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient
from rest_framework.test import APIClient

from devices.models import Product
from firmware.models import Firmware, FirmwareStatus
from tests.factories import DeviceFactory, FirmwareFactory, ProductFactory
from tests.otaplatform.api.conftest import V1, client_of, code_of, launch, upload


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
