"""The pages of firmware: who sees what, what they refuse, and what stays when they do."""

import hashlib
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

from firmware import services, signing
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import AuditEntry, User
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR, VIEWER
from tests.factories import AccountFactory, CampaignFactory, FirmwareFactory, ProductFactory, UserFactory
from tests.firmware.samples import BIN, upload

pytestmark = pytest.mark.django_db

LIST = "/firmware/"
NEW = "/firmware/new/"
ASSOCIATE = "/firmware/associate/"
SECURE = "/firmware/secure-update/"


def person(role: str = ADMINISTRATOR, **fields: Any) -> User:
    user: User = UserFactory.create(**fields)
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def user() -> User:
    return person()


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def product(user: User) -> Any:
    return ProductFactory.create(account=user.account, name="smart_gateway")


def typed(product: Any, **changes: Any) -> dict[str, Any]:
    fields = {
        "name": "gateway_fw",
        "version": "2.0.0",
        "product": product.pk,
        "sign_method": "SHA256",
        "upload": upload(),
    }
    return {**fields, **changes}


def old_firmware(account: Any, name: str, version: str = "1.0") -> Firmware:
    return services.import_firmware(account, name=name, version=version, sign_method="MD5", upload=upload())


# ---- who sees what -----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [LIST, NEW, ASSOCIATE, SECURE, "/firmware/1/", "/firmware/1/delete/"])
def test_strangers_are_sent_to_log_in(address: str) -> None:
    answer = Client().get(address)
    assert (answer.status_code, "/login/" in answer["Location"]) == (302, True)


def test_a_viewer_looks_and_changes_nothing(user: User) -> None:
    product = ProductFactory.create(account=user.account)
    firmware = FirmwareFactory.create(product=product)
    client = Client()
    client.force_login(person(VIEWER, account=user.account))
    for address, status in [
        (LIST, 200),
        (f"/firmware/{firmware.pk}/", 200),
        (SECURE, 200),
        (NEW, 403),
        (ASSOCIATE, 403),
        (f"/firmware/{firmware.pk}/delete/", 403),
    ]:
        assert client.get(address).status_code == status, address
    assert client.post(f"/firmware/secure-update/{product.pk}/switch/").status_code == 403


def test_an_operator_uploads_but_does_not_switch_secure_update(user: User, product: Any) -> None:
    client = Client()
    client.force_login(person(OPERATOR, account=user.account))
    assert client.post(NEW, typed(product)).status_code == 302
    assert client.post(f"/firmware/secure-update/{product.pk}/switch/", {"on": "1"}).status_code == 403


def test_another_accounts_rows_do_not_exist(client: Client) -> None:
    their = ProductFactory.create()
    foreign = FirmwareFactory.create(product=their, name="foreign_fw")
    signing.set_secure_update(their, True, None)
    assert "foreign_fw" not in client.get(LIST).content.decode()
    assert their.name not in client.get(SECURE).content.decode()
    assert client.get(f"/firmware/{foreign.pk}/").status_code == 404
    assert client.post(f"/firmware/{foreign.pk}/delete/").status_code == 404
    assert client.post(f"/firmware/secure-update/{their.pk}/switch/").status_code == 404
    assert client.post(f"/firmware/secure-update/{their.pk}/key/").status_code == 404
    answer = client.post(NEW, typed(their))
    assert answer.status_code == 422
    assert "product" in answer.context["form"].errors


# ---- the list ----------------------------------------------------------------------------------------


def test_the_list_shows_each_firmware_and_the_quota(client: Client, product: Any) -> None:
    client.post(NEW, typed(product))
    page = client.get(LIST).content.decode()
    for shown in ("gateway_fw", "2.0.0", "smart_gateway", "SHA256", "Unverified", "1 of 100 firmware files"):
        assert shown in page


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=gate", {"gateway_fw"}),
        ("q=3.1", {"sensor_fw"}),
        ("status=0", {"sensor_fw"}),
        ("status=1", {"gateway_fw"}),
        ("sign_method=SHA256", {"sensor_fw"}),
        ("product={sensor}", {"sensor_fw"}),
        ("q=gate&status=0", set()),
        ("status=nonsense&product=-1", {"gateway_fw", "sensor_fw"}),
        ("q=%00", {"gateway_fw", "sensor_fw"}),
    ],
)
def test_the_list_is_filtered(query: str, names: set[str], client: Client, product: Any) -> None:
    sensor = ProductFactory.create(account=product.account)
    FirmwareFactory.create(product=product, name="gateway_fw", status=FirmwareStatus.VERIFIED)
    FirmwareFactory.create(
        product=sensor,
        name="sensor_fw",
        version="3.1",
        sign_method="SHA256",
        status=FirmwareStatus.UNVERIFIED,
    )
    rows = client.get(f"{LIST}?{query.format(sensor=sensor.pk)}").context["rows"]
    assert {firmware.name for firmware, _, _ in rows} == names


def test_actions_that_cannot_be_done_say_why(client: Client, product: Any) -> None:
    firmware = FirmwareFactory.create(product=product, status=FirmwareStatus.UNVERIFIED)
    campaign = CampaignFactory.create(firmware=firmware)
    ((_, _, actions),) = client.get(LIST).context["rows"]
    reasons = {str(action.label): str(action.reason) for action in actions}
    assert reasons == {
        "Validate Firmware": "",
        "Batch Update": "Validate this firmware first.",
        "Update Details": "",
        "Delete": f"{firmware.name} cannot be deleted: the update batch #{campaign.pk} uses it.",
    }


def test_a_page_of_the_list_costs_the_same_for_one_row_and_fifty(
    client: Client, product: Any, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(50):
        FirmwareFactory.create(product=product, version=str(number))
    with django_assert_max_num_queries(18):
        client.get(LIST)


def test_an_empty_list_says_what_to_do_next(client: Client) -> None:
    assert "Register a product" in client.get(LIST).content.decode()


# ---- New Firmware ------------------------------------------------------------------------------------


def test_a_plain_form_uploads_and_shows_the_digests(client: Client, product: Any, user: User) -> None:
    answer = client.post(NEW, typed(product), follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain
    assert hashlib.sha256(BIN).hexdigest() in page
    assert hashlib.md5(BIN, usedforsecurity=False).hexdigest() in page
    assert Firmware.objects.get().created_by == user


def test_a_script_gets_its_errors_by_field_as_data(client: Client, product: Any) -> None:
    headers = {"X-Requested-With": "XMLHttpRequest"}
    fields = typed(product, name="_bad", upload=upload(BIN, "image.zip"))
    answer = client.post(NEW, fields, headers=headers)
    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"name", "upload"}
    answer = client.post(NEW, typed(product), headers=headers)
    assert answer.status_code == 201
    assert answer.json()["url"] == reverse("firmware:detail", args=[Firmware.objects.get().pk])


def test_errors_stand_beside_their_field_and_what_was_typed_stays(client: Client, product: Any) -> None:
    answer = client.post(NEW, typed(product, version="bad version", name="kept_name"))
    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'value="kept_name"' in page
    assert 'value="bad version"' in page
    assert list(answer.context["form"].errors) == ["version"]
    assert not Firmware.objects.exists()


@pytest.mark.parametrize("field", ["name", "version"])
def test_a_trailing_newline_is_refused(field: str, client: Client, product: Any) -> None:
    answer = client.post(NEW, typed(product, **{field: "newline\n"}))
    assert list(answer.context["form"].errors) == [field]


def test_new_firmware_says_why_it_is_closed(client: Client, product: Any, settings: Settings) -> None:
    old_firmware(product.account, "old_firmware")
    assert "belong to no product yet" in client.get(NEW).content.decode()
    assert client.post(NEW, typed(product)).status_code == 422
    settings.OTA_MAX_FIRMWARE_FILES = 1
    client.post(ASSOCIATE, {f"product_{Firmware.objects.get().pk}": product.pk})
    assert "already has 1 firmware files" in client.get(NEW).content.decode()


# ---- Associate ---------------------------------------------------------------------------------------


def test_one_form_associates_all_old_files(client: Client, product: Any) -> None:
    first, second = (old_firmware(product.account, name, name[:3]) for name in ("one_old", "two_old"))
    page = client.get(LIST).content.decode()
    assert "2 firmware files were uploaded before firmware belonged to products" in page
    half = client.post(ASSOCIATE, {f"product_{first.pk}": product.pk})
    assert half.status_code == 422
    assert Firmware.objects.unassociated().count() == 2
    answer = client.post(ASSOCIATE, {f"product_{row.pk}": product.pk for row in (first, second)}, follow=True)
    assert "Firmware files associated: 2." in answer.content.decode()
    assert not Firmware.objects.unassociated().exists()


def test_a_clash_stands_beside_its_file_and_nothing_is_associated(client: Client, product: Any) -> None:
    FirmwareFactory.create(product=product, version="1.0")
    old = old_firmware(product.account, "old_firmware")
    answer = client.post(ASSOCIATE, {f"product_{old.pk}": product.pk})
    assert list(answer.context["form"].errors) == [f"product_{old.pk}"]
    assert Firmware.objects.unassociated().count() == 1


def test_a_file_cannot_be_associated_with_anothers_product(client: Client, product: Any) -> None:
    old = old_firmware(product.account, "old_firmware")
    assert client.post(ASSOCIATE, {f"product_{old.pk}": ProductFactory.create().pk}).status_code == 422


# ---- delete ------------------------------------------------------------------------------------------


def test_a_firmware_is_deleted_after_it_was_asked(client: Client, product: Any) -> None:
    firmware = FirmwareFactory.create(product=product)
    assert client.get(f"/firmware/{firmware.pk}/delete/").status_code == 200
    assert client.post(f"/firmware/{firmware.pk}/delete/").status_code == 302
    assert not Firmware.objects.exists()


def test_deleting_a_firmware_in_use_is_refused_with_the_batches(client: Client, product: Any) -> None:
    firmware = FirmwareFactory.create(product=product)
    campaign = CampaignFactory.create(firmware=firmware)
    answer = client.post(f"/firmware/{firmware.pk}/delete/")
    assert answer.status_code == 409
    assert f"the update batch #{campaign.pk} uses it" in answer.content.decode()


# ---- Secure Update -----------------------------------------------------------------------------------


def test_secure_update_is_switched_and_its_key_copied(client: Client, product: Any, user: User) -> None:
    address = f"/firmware/secure-update/{product.pk}"
    assert client.post(f"{address}/key/").status_code == 404
    client.post(f"{address}/switch/", {"on": "1"})
    product.refresh_from_db()
    assert product.secure_update
    answer = client.post(f"{address}/key/", {"form": "c"}, headers={"X-Requested-With": "XMLHttpRequest"})
    assert answer["Content-Type"].startswith("text/plain")
    assert b"ota_pubn_buf[256]" in answer.content
    assert b"BEGIN PUBLIC KEY" in client.post(f"{address}/key/", {"form": "pem"}).content
    copied = AuditEntry.objects.filter(action="secure_update.key_copied").order_by("id")
    assert [(entry.actor, entry.detail["form"]) for entry in copied] == [(user, "C"), (user, "PEM")]
    client.post(f"{address}/switch/", {"on": "0"})
    product.refresh_from_db()
    assert not product.secure_update
    assert product.signing_key_encrypted


def test_a_get_neither_switches_nor_copies(client: Client, product: Any) -> None:
    assert client.get(f"/firmware/secure-update/{product.pk}/switch/").status_code == 405
    assert client.get(f"/firmware/secure-update/{product.pk}/key/").status_code == 405


# ---- superusers and the admin ------------------------------------------------------------------------


def test_a_superuser_of_all_accounts_uploads_into_the_products_account() -> None:
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True, account=None))
    product = ProductFactory.create(account=AccountFactory.create(name="Second"))
    assert client.post(NEW, typed(product)).status_code == 302
    assert Firmware.objects.get().account == product.account
    assert "Second" in client.get(LIST).content.decode()


def test_the_admin_shows_firmware_and_lets_nobody_change_it(product: Any) -> None:
    firmware = FirmwareFactory.create(product=product)
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True, account=product.account))
    address = reverse("admin:firmware_firmware_change", args=[firmware.pk])
    page = client.get(address)
    assert page.status_code == 200
    assert firmware.files.get().sha256 in page.content.decode()
    assert client.post(address, {"name": "changed_fw"}).status_code == 403
    assert client.post(reverse("admin:firmware_firmware_add")).status_code == 403
    assert client.post(reverse("admin:firmware_firmware_delete", args=[firmware.pk])).status_code == 403
