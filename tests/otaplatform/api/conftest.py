"""Three people at the API: an operator and a viewer of one account, and an outsider who runs another."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from campaigns import dispatch, expand, reports, sweep
from campaigns.models import Campaign, UpdateTask
from campaigns.states import TaskStatus
from devices.models import Product
from firmware.models import Firmware
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR, VIEWER
from otaplatform.api.models import Webhook
from otaplatform.api.webhooks import services
from tests.factories import AccountFactory, FirmwareFactory, ProductFactory, UserFactory
from tests.otaplatform.api.webhook_tools import Receiver, look

V1 = "/api/v1/"


def client_of(user: User) -> APIClient:
    """A client that sends a token of the user."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {AuthToken.objects.create(user=user)[1]}")
    return client


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    cache.clear()


@pytest.fixture
def account(db: None) -> Account:
    return AccountFactory.create()


@pytest.fixture
def person(account: Account) -> Callable[..., User]:
    """Make a user of a role, of the account unless another is given."""

    def make(role: str, of: Account = account) -> User:
        user: User = UserFactory.create(account=of)
        user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def operator(person: Callable[..., User]) -> APIClient:
    return client_of(person(OPERATOR))


@pytest.fixture
def viewer(person: Callable[..., User]) -> APIClient:
    return client_of(person(VIEWER))


@pytest.fixture
def administrator(person: Callable[..., User]) -> APIClient:
    return client_of(person(ADMINISTRATOR))


@pytest.fixture
def outsider(person: Callable[..., User]) -> APIClient:
    return client_of(person(ADMINISTRATOR, of=AccountFactory.create()))


@pytest.fixture
def product(account: Account) -> Product:
    return ProductFactory.create(account=account)


@pytest.fixture
def firmware(product: Product) -> Firmware:
    return FirmwareFactory.create(product=product, version="2.0.0")


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OTA_WEBHOOK_ALLOW_PRIVATE = True
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def hook(account: Account) -> Callable[..., Webhook]:
    def make(url: str = "https://example.com/hook", **values: Any) -> Webhook:
        owner = values.pop("account", account)
        webhook = services.create_webhook(owner, url=url, actor=None, **values)
        look()
        return webhook

    return make


def of(product: Product, rest: str = "") -> str:
    return f"{V1}products/{product.product_key}/{rest}"


def launch(client: APIClient, firmware: Firmware, **values: Any) -> Any:
    body = {"firmware": firmware.pk, "policy": "static", "region": "all", "accept_unproven": True}
    return client.post(f"{V1}campaigns/", body | values)


def upload(client: APIClient, product: Product, **values: Any) -> Any:
    body = {
        "name": "meter_app",
        "version": "1.1.0",
        "product": product.product_key,
        "sign_method": "SHA256",
        "file": SimpleUploadedFile("meter.bin", b"image"),
    }
    return client.post(f"{V1}firmware/", body | values, format="multipart")


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def work(*, failing: tuple[str, ...] = ()) -> None:
    """What workers and devices do: make the tasks, push them, report; devices in `failing` a failure."""
    now = timezone.now()
    for campaign in Campaign.objects.unexpanded():
        expand.expand(campaign.pk, now)
    dispatch.dispatch(lambda messages: [True] * len(messages), now)
    pushed = UpdateTask.objects.filter(status=TaskStatus.NOTIFIED).select_related("device")
    reports.apply(
        [
            reports.Step(task.device_id, None, -2, "no route", now)
            if task.device.name in failing
            else reports.Inform(task.device_id, task.device.product_id, "default", task.to_version, now)
            for task in pushed
        ],
        now,
    )
    sweep.finish(now)
