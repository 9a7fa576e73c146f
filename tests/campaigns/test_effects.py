"""Every verb that changes an update, through REST and through the console, with a page open beside it."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from celery.signals import before_task_publish
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from campaigns import expand, moves, services
from campaigns.models import Campaign, UpdateTask
from campaigns.services import Plan
from campaigns.states import Policy, TaskStatus
from devices import services as device_services
from devices.models import Device
from firmware import services as firmware_services
from firmware.models import Firmware
from otaplatform.accounts.models import User
from otaplatform.accounts.roles import ADMINISTRATOR
from tests.campaigns.conftest import person
from tests.campaigns.test_consumers import Page
from tests.factories import DeviceFactory, FirmwareFactory

pytestmark = pytest.mark.django_db(transaction=True)

EXPAND, DISPATCH = "campaigns.tasks.expand", "campaigns.tasks.dispatch"
V1 = "/api/v1"


class Stage:
    """A firmware with a batch over two devices, a person, and the two ways that this person has in."""

    def __init__(self, **plan: Any) -> None:
        self.firmware: Firmware = FirmwareFactory.create()
        self.devices: list[Device] = DeviceFactory.create_batch(
            2, product=self.firmware.product, version="1.0.0", online=True
        )
        self.user: User = person(self.firmware.account, ADMINISTRATOR)
        self.campaign = services.launch_batch(self.firmware, Plan(accept_unproven=True, **plan))
        expand.expand(self.campaign.pk)
        self.first: UpdateTask = self.campaign.tasks.earliest("id")
        self.console = Client()
        self.console.force_login(self.user)
        self.rest = APIClient()
        self.rest.force_authenticate(self.user)

    def act(self, action: str, **values: Any) -> Any:
        """One of the actions of Update Details."""
        url = reverse("campaigns:act", args=[self.campaign.pk])
        return self.console.post(url, {"action": action, "confirmed": "1", **values})

    def device(self) -> str:
        assert self.firmware.product is not None
        return f"products/{self.firmware.product.product_key}/devices/{self.devices[0].name}"

    def post(self, address: str, body: dict[str, Any] | None = None) -> Any:
        return self.rest.post(f"{V1}/{address}/", body or {}, format="json")


def paused(**plan: Any) -> Stage:
    stage = Stage(**plan)
    services.pause(stage.campaign)
    return stage


def failed(**plan: Any) -> Stage:
    stage = Stage(**plan)
    UpdateTask.objects.update(status=TaskStatus.FAILED, reason="DOWNLOAD", ready_at=None)
    moves.recount([stage.campaign.pk], repair=True)
    return stage


def launch_on_console(stage: Stage) -> Any:
    url = reverse("campaigns:batch", args=[stage.firmware.pk])
    form = {"policy": "static", "region": "all", "when": "now", "timeout_minutes": "60"}
    return stage.console.post(url, form | {"step": "launch", "accept_unproven": "on"})


Verb = tuple[Callable[[], Stage], Callable[[Stage], Any], Callable[[Stage], Any], list[str]]
BATCH = "campaigns/{0.campaign.pk}"
# What it starts from, the console's way, the program's way, and the worker that is woken.
VERBS: dict[str, Verb] = {
    "pause": (Stage, lambda s: s.act("pause"), lambda s: s.post(f"{BATCH.format(s)}/pause"), []),
    "resume": (
        paused,
        lambda s: s.act("resume"),
        lambda s: s.post(f"{BATCH.format(s)}/resume"),
        [DISPATCH],
    ),
    "stop_matching": (
        lambda: Stage(policy=Policy.DYNAMIC),
        lambda s: s.act("stop_matching"),
        lambda s: s.post(f"{BATCH.format(s)}/stop-matching"),
        [],
    ),
    "cancel_campaign": (
        Stage,
        lambda s: s.act("cancel_batch"),
        lambda s: s.post(f"{BATCH.format(s)}/cancel"),
        [DISPATCH],
    ),
    "cancel_campaign (what waits)": (
        Stage,
        lambda s: s.act("cancel_tab", tab="pending"),
        lambda s: s.post(f"{BATCH.format(s)}/cancel", {"states": ["queued", "scheduled"]}),
        [DISPATCH],
    ),
    "cancel_tasks": (
        Stage,
        lambda s: s.act("cancel", task=s.first.pk),
        lambda s: s.post(f"tasks/{s.first.pk}/cancel"),
        [],
    ),
    "update_again": (
        failed,
        lambda s: s.act("again_tab"),
        lambda s: s.post(f"{BATCH.format(s)}/retry"),
        [DISPATCH],
    ),
    "update_again (one)": (
        failed,
        lambda s: s.act("again", task=s.first.pk),
        lambda s: s.post(f"tasks/{s.first.pk}/retry"),
        [DISPATCH],
    ),
    "launch_batch": (
        Stage,
        launch_on_console,
        lambda s: s.post("campaigns", {"firmware": s.firmware.pk, "accept_unproven": True}),
        [EXPAND],
    ),
    "launch_validation": (
        Stage,
        lambda s: s.console.post(
            reverse("campaigns:validate", args=[s.firmware.pk]), {"device_names": s.devices[0].name}
        ),
        lambda s: s.post(f"firmware/{s.firmware.pk}/validate", {"device_names": [s.devices[0].name]}),
        [EXPAND],
    ),
    "remove_device": (
        Stage,
        lambda s: s.console.post(reverse("admin:devices_device_remove", args=[s.devices[0].pk])),
        lambda s: s.rest.delete(f"{V1}/{s.device()}/"),
        [],
    ),
}
# They change nothing that a live page shows; of these some cut a connection, whose end is then a report.
QUIET = {
    "devices.services": {
        "create_product",
        "change_product",
        "show_product_secret",
        "remove_product",
        "register_device",
        "register_devices",
        "set_disabled",
        "reset_secret",
        "show_credentials",
    },
    "firmware.services": {"upload_firmware", "import_firmware", "associate", "delete_firmware"},
}


def verbs_of(module: Any) -> set[str]:
    """The functions that somebody does: they take an actor."""
    return {
        name
        for name, verb in inspect.getmembers(module, inspect.isfunction)
        if verb.__module__ == module.__name__
        and not name.startswith("_")
        and "actor" in inspect.signature(verb).parameters
    }


def test_no_verb_is_left_out_of_this_walk() -> None:
    walked = {name.split()[0] for name in VERBS}
    for module in (services, device_services, firmware_services):
        assert verbs_of(module) - QUIET.get(module.__name__, set()) <= walked, module.__name__


@pytest.fixture
def woken() -> Iterator[list[str]]:
    """The names of the ticks that workers are asked to run now, in a list that grows."""
    names: list[str] = []

    def published(sender: str, **_details: Any) -> None:
        names.append(sender)

    before_task_publish.connect(published)
    yield names
    before_task_publish.disconnect(published)


@pytest.mark.parametrize("name", VERBS)
async def test_a_verb_tells_open_pages_the_same_and_wakes_the_same_worker_whoever_calls_it(
    name: str, woken: list[str]
) -> None:
    prepare, by_console, by_program, wakes = VERBS[name]
    heard = []
    for way in (by_console, by_program):
        stage = await sync_to_async(prepare)()
        page = Page(f"/ws/firmware/{stage.firmware.pk}/", stage.user)
        await page.connect()
        await page.hear()
        woken.clear()
        answer = await sync_to_async(way)(stage)
        assert answer.status_code in (200, 201, 204, 302), answer.content
        (news,) = await page.hear()
        assert await page.hears_nothing(), "one message for one act"
        assert woken == wakes
        heard.append(told(news, stage))
        await page.leave()
    assert heard[0] == heard[1]


def told(news: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """A message without what differs between two stages."""
    rows = [{"status": row["status"], "reason": row["reason"]} for row in news["tasks"]]
    is_known = news["campaign"] == stage.campaign.pk
    return {"is_known": is_known, "tasks": rows} | {
        name: news[name] for name in ("status", "is_paused", "counts", "tabs")
    }


def test_what_is_refused_tells_nobody(woken: list[str]) -> None:
    stage = Stage()
    Campaign.objects.update(status="completed")
    woken.clear()
    assert stage.post(f"{BATCH.format(stage)}/resume").status_code == 409
    assert woken == []
