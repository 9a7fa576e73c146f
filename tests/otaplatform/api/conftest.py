"""Three people at the API: an operator and a viewer of one account, and an outsider who runs another."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.cache import cache
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
from tests.factories import AccountFactory, FirmwareFactory, ProductFactory, UserFactory

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
