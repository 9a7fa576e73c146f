"""A small fleet for the campaign tests."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from campaigns import moves
from campaigns.models import Campaign, CampaignCounter, UpdateTask
from devices import versions
from devices.models import Device
from firmware.models import Firmware
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.roles import OPERATOR
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, UserFactory


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def firmware(db: None) -> Firmware:
    return FirmwareFactory.create(version="2.0.0")


@pytest.fixture
def fleet(firmware: Firmware) -> Callable[..., list[Device]]:
    """Make devices of the firmware's product: `fleet(3, version="1.0.0", online=True)`."""

    def make(count: int, **values: Any) -> list[Device]:
        defaults = {"product": firmware.product, "version": "1.0.0", "online": True}
        return DeviceFactory.create_batch(count, **(defaults | values))

    return make


@pytest.fixture
def campaign(firmware: Firmware) -> Campaign:
    """A running batch over everybody, still to be expanded."""
    return CampaignFactory.create(firmware=firmware, expanded_at=None)


def status_of(device: Device) -> str:
    return UpdateTask.objects.filter(device=device).latest("id").status


def counts(campaign: Campaign) -> dict[str, int]:
    """The stored counts above zero; a recount must agree."""
    assert moves.recount([campaign.pk]) == {}
    return {
        status: n for status, n in CampaignCounter.objects.totals([campaign.pk])[campaign.pk].items() if n
    }


def person(account: Account, role: str) -> User:
    user = UserFactory.create(account=account, language="en", time_zone="Asia/Shanghai")
    user.groups.set(Group.objects.filter(name=role))
    return user


@pytest.fixture
def operator(firmware: Firmware) -> User:
    return person(firmware.account, OPERATOR)


@pytest.fixture
def console(operator: User) -> Any:
    client = Client()
    client.force_login(operator)
    return client


def recounted(*campaigns: Campaign) -> None:
    """Factories write rows without counters."""
    versions.recount(repair=True)
    moves.recount([each.pk for each in campaigns], repair=True)


# The test client reads an asynchronous answer in one piece.
whole_answer = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
