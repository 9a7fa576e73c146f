"""Pages of products and devices: who may see and do what, and what a page costs."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from devices import services
from devices.models import Device, DeviceVersion, Product
from otaplatform.accounts.models import AuditEntry, User
from otaplatform.accounts.paging import PAGE_SIZE
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR, VIEWER
from tests.factories import AccountFactory, DeviceFactory, ProductFactory, TaskFactory, UserFactory

pytestmark = pytest.mark.django_db


def in_role(role: str, **values: Any) -> User:
    user: User = UserFactory(**values)
    user.groups.set(Group.objects.filter(name=role))
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def administrator() -> User:
    return in_role(ADMINISTRATOR)


@pytest.fixture
def client(administrator: User) -> Client:
    return logged_in(administrator)


@pytest.fixture
def product(administrator: User) -> Product:
    product: Product = ProductFactory(account=administrator.account)
    return product


def test_lists_and_pages_show_the_own_account_only(client: Client, product: Product) -> None:
    own = DeviceFactory(product=product, name="own-device")
    foreign = DeviceFactory(name="foreign-device")
    names = client.get("/devices/device/").content.decode()
    assert own.name in names
    assert foreign.name not in names
    assert foreign.product.name not in client.get("/devices/product/").content.decode()
    for address in (
        f"/devices/device/{foreign.pk}/change/",
        f"/devices/device/{foreign.pk}/remove/",
        f"/devices/product/{foreign.product_id}/change/",
        f"/devices/product/{foreign.product_id}/edit/",
        f"/devices/product/{foreign.product_id}/delete/",
    ):
        assert client.get(address).status_code == 404, address
        assert client.post(address).status_code == 404, address


def test_a_device_cannot_be_registered_in_a_foreign_product(client: Client, product: Product) -> None:
    foreign = ProductFactory()
    answer = client.post("/devices/device/add/", {"product": foreign.pk, "name": "intruder"})
    assert answer.status_code == 200
    assert not foreign.devices.exists()


@pytest.mark.parametrize(
    ("role", "may_register", "may_create"),
    [(VIEWER, False, False), (OPERATOR, True, False), (ADMINISTRATOR, True, True)],
)
def test_roles_decide_who_registers_and_creates(role: str, may_register: bool, may_create: bool) -> None:
    user = in_role(role)
    product = ProductFactory(account=user.account)
    device = DeviceFactory(product=product)
    client = logged_in(user)
    assert client.get("/devices/device/").status_code == 200
    expected = {True: 200, False: 403}
    assert client.get("/devices/device/add/").status_code == expected[may_register]
    assert client.get("/devices/device/batch/").status_code == expected[may_register]
    assert client.get("/devices/product/add/").status_code == expected[may_create]
    shown = client.post(f"/devices/device/{device.pk}/change/").content.decode()
    assert (device.secret in shown) is may_register
    assert AuditEntry.objects.filter(action="device.secret_shown", actor=user).exists() is may_register


def test_a_staff_user_without_an_account_sees_nothing() -> None:
    client = logged_in(in_role(ADMINISTRATOR, account=None))
    DeviceFactory()
    assert client.get("/devices/device/").status_code == 403
    assert client.get("/").status_code == 200


def test_strangers_are_sent_to_log_in() -> None:
    for address in ("/devices/device/", "/devices/product/", "/devices/device/1/change/"):
        answer = Client().get(address)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login/?next=")


def test_a_page_of_devices_costs_the_same_for_one_and_for_many(client: Client, product: Product) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            client.get("/devices/device/")
        counting = [query["sql"] for query in seen if "COUNT(" in query["sql"]]
        assert all("devices_devicepresence" in sql for sql in counting), counting
        return len(seen)

    services.register_devices(product, count=1)
    client.get("/devices/device/")
    one = queries()
    services.register_devices(product, count=3 * PAGE_SIZE)
    assert queries() == one


def test_paging_forth_and_back_shows_every_device_once(client: Client, product: Product) -> None:
    services.register_devices(product, count=2 * PAGE_SIZE + 3)
    seen: list[int] = []
    address, forth = "/devices/device/", []
    while address:
        page = client.get(address).context["page"]
        seen += [device.pk for device in page.rows]
        forth.append([device.pk for device in page.rows])
        address = f"/devices/device/{page.next}" if page.next else ""
    assert sorted(seen) == sorted(Device.objects.values_list("pk", flat=True))
    back = client.get(f"/devices/device/{page.previous}").context["page"]
    assert [device.pk for device in back.rows] == forth[1]
    first = client.get(f"/devices/device/{back.previous}").context["page"]
    assert [device.pk for device in first.rows] == forth[0]
    assert first.previous == ""


def test_a_nonsensical_position_in_a_list_is_ignored(client: Client, product: Product) -> None:
    DeviceFactory(product=product)
    for query in ("?after=x", "?before=%00", "?after=99999999999999999999999", "?product=x", "?q=%00"):
        assert client.get(f"/devices/device/{query}").status_code == 200, query


def test_search_is_by_the_beginning_of_the_name(client: Client, product: Product) -> None:
    for name in ("gw-1", "gw-2", "lock-1"):
        DeviceFactory(product=product, name=name)
    rows = client.get("/devices/device/?q=gw").context["rows"]
    assert {row.device.name for row in rows} == {"gw-1", "gw-2"}


def test_statuses_and_versions_stand_beside_the_names(client: Client, product: Product) -> None:
    DeviceFactory(product=product, name="online", online=True, version="1.0")
    DeviceFactory(product=product, name="offline")
    DeviceFactory(product=product, name="disabled", is_disabled=True, online=True)
    DeviceFactory(product=product, name="inactive", activated_at=None)
    rows = client.get("/devices/device/").context["rows"]
    assert {row.device.name: row.status.value for row in rows} == {
        name: name for name in ("online", "offline", "disabled", "inactive")
    }
    assert {row.version for row in rows} == {"1.0", ""}
    assert all(row.status == row.device.status() for row in rows)


def test_what_was_typed_stays_beside_the_error(client: Client, product: Product) -> None:
    answer = client.post("/devices/device/add/", {"product": product.pk, "name": "x y"}).content.decode()
    assert 'value="x y"' in answer
    assert "errorlist" in answer
    answer = client.post("/devices/product/add/", {"name": product.name, "description": "words"})
    assert "already has a product" in answer.content.decode()
    assert "words" in answer.content.decode()


def test_a_batch_from_a_file_answers_row_by_row(client: Client, product: Product) -> None:
    file = SimpleUploadedFile("names.csv", b"DeviceName\ngw-1\nno way\n")
    form = {"product": product.pk, "source": "csv", "file": file, "once": "a"}
    answer = client.post("/devices/device/batch/", form)
    assert [result.name for result in answer.context["failed"]] == ["no way"]
    assert Device.objects.get().secret in answer.context["file"]
    assert "no-store" in answer["Cache-Control"]


def test_a_batch_sent_again_registers_nothing_more(client: Client, product: Product) -> None:
    form = {"product": product.pk, "source": "count", "count": 5, "once": "a"}
    assert client.post("/devices/device/batch/", form).status_code == 200
    assert client.post("/devices/device/batch/", form).status_code == 302
    assert product.devices.count() == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "count", "count": "0"},
        {"source": "count", "count": "10001"},
        {"source": "count", "count": ""},
        {"source": "csv"},
        {"source": "nonsense"},
    ],
)
def test_a_wrong_batch_form_registers_nothing(
    client: Client, product: Product, wrong: dict[str, str]
) -> None:
    answer = client.post("/devices/device/batch/", {"product": product.pk, "once": "a", **wrong})
    assert answer.context["form"].errors
    assert not product.devices.exists()


def test_a_superuser_without_a_chosen_account_names_the_account_of_a_new_product() -> None:
    root = UserFactory(account=None, is_superuser=True)
    account = AccountFactory()
    client = logged_in(root)
    assert client.post("/devices/product/add/", {"name": "gateway"}).context["form"].errors["account"]
    client.post("/devices/product/add/", {"name": "gateway", "account": account.pk})
    assert Product.objects.get().account == account


def test_the_sample_product_goes_with_everything_in_it(client: Client, administrator: User) -> None:
    task = TaskFactory(campaign__firmware__product__account=administrator.account)
    sample = task.campaign.product
    Product.objects.filter(pk=sample.pk).update(is_sample=True)
    kept = DeviceFactory(version="1.0")
    assert client.post(f"/devices/product/{kept.product_id}/remove-sample/").status_code == 404
    assert client.post(f"/devices/product/{sample.pk}/remove-sample/").status_code == 302
    assert list(Product.objects.all()) == [kept.product]
    assert list(Device.objects.all()) == [kept]
    assert DeviceVersion.objects.count() == 1


def test_typeahead_offers_the_own_present_devices_by_prefix(client: Client, product: Product) -> None:
    for name in ("gw-1", "gw-2"):
        DeviceFactory(product=product, name=name)
    DeviceFactory(name="gw-foreign")
    services.remove_device(Device.objects.get(name="gw-2"))
    query = {"term": "gw", "app_label": "campaigns", "model_name": "updatetask", "field_name": "device"}
    answer = client.get("/autocomplete/", query)
    assert [row["text"] for row in answer.json()["results"]] == ["gw-1"]
