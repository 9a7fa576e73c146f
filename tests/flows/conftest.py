"""The stage of every story: the embedded broker, the gateway, and the web server of the downloads."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from devices.models import Product
from otaplatform.accounts.roles import OPERATOR
from tests.factories import ProductFactory, UserFactory
from tests.running import Platform, running_dispatcher, running_platform, running_web


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """One server for the stories of a file: it takes a moment to stop."""
    with running_web() as address:
        yield address


@pytest.fixture
def platform(transactional_db: None, web: str) -> Iterator[Platform]:
    """Broker, gateway and web server; the story itself runs the ticks."""
    with running_platform() as platform:
        yield platform


@pytest.fixture
def workers(platform: Platform) -> Iterator[None]:
    """The ticks run by themselves."""
    with running_dispatcher():
        yield


@pytest.fixture
def product(transactional_db: None) -> Product:
    return ProductFactory.create()


@pytest.fixture
def now(transactional_db: None) -> datetime:
    return timezone.now()


@pytest.fixture
def console(product: Product) -> Any:
    """An operator of the product's account at the console."""
    user = UserFactory.create(account=product.account, language="en", time_zone="Asia/Shanghai")
    user.groups.set(Group.objects.filter(name=OPERATOR))
    client = Client()
    client.force_login(user)
    return client
