"""The sockets of the live pages: who may listen, and that nothing is missed."""

import json
from itertools import product
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from django.contrib.auth import login
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory

from campaigns import consumers, live, moves
from campaigns.models import Campaign, UpdateTask
from campaigns.routing import websocket_urlpatterns
from campaigns.states import TaskStatus
from otaplatform.accounts.models import User
from otaplatform.accounts.roles import VIEWER
from tests.factories import CampaignFactory, FirmwareFactory, TaskFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def prepare() -> tuple[Campaign, UpdateTask, User]:
    task: UpdateTask = TaskFactory.create(status=TaskStatus.IN_PROGRESS, progress=10)
    moves.recount([task.campaign_id], repair=True)
    user: User = UserFactory.create(account=task.campaign.account)
    user.groups.set(Group.objects.filter(name=VIEWER))
    return task.campaign, task, user


class Page(ApplicationCommunicator):
    """The browser's end of a socket. (`channels.testing` wants a server that the product does not use.)"""

    def __init__(self, path: str, user: Any) -> None:
        self.user, self.session = user, SessionStore()
        scope = {"type": "websocket", "path": path, "user": user, "session": self.session}
        routes: Any = websocket_urlpatterns
        super().__init__(URLRouter(routes), scope)  # type: ignore[no-untyped-call]

    def _log_in(self) -> None:
        if isinstance(self.user, User):
            request = RequestFactory().get("/")
            request.session = self.session
            login(request, self.user, "django.contrib.auth.backends.ModelBackend")
            self.session.save()

    async def connect(self) -> dict[str, Any]:
        """What the server answers to the handshake."""
        await sync_to_async(self._log_in)()
        await self.send_input({"type": "websocket.connect"})  # type: ignore[no-untyped-call]
        return dict(await self.receive_output(5))  # type: ignore[no-untyped-call]

    async def say(self, text: str) -> None:
        await self.send_input({"type": "websocket.receive", "text": text})  # type: ignore[no-untyped-call]

    async def hear(self) -> list[Any]:
        answer = await self.receive_output(5)  # type: ignore[no-untyped-call]
        return list(json.loads(answer["text"])["campaigns"])

    async def hears_nothing(self) -> bool:
        return bool(await self.receive_nothing())  # type: ignore[no-untyped-call]

    async def leave(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})  # type: ignore[no-untyped-call]
        await self.wait(5)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("path", ["/ws/campaigns/{pk}/", "/ws/firmware/{firmware}/"])
async def test_a_page_gets_a_snapshot_and_then_what_changes(path: str) -> None:
    campaign, task, user = await sync_to_async(prepare)()
    page = Page(path.format(pk=campaign.pk, firmware=campaign.firmware_id), user)
    assert (await page.connect())["type"] == "websocket.accept"
    (first,) = await page.hear()
    assert (first["campaign"], first["tabs"]["updating"], first["tasks"]) == (campaign.pk, 1, [])
    await page.say(json.dumps({"tasks": [task.pk]}))
    (known,) = await page.hear()
    assert [(row["id"], row["progress"]) for row in known["tasks"]] == [(task.pk, 10)]
    await UpdateTask.objects.aupdate(progress=55)
    await sync_to_async(live.changed)([campaign.pk], device_ids=[task.device_id])
    (news,) = await page.hear()
    assert [(row["id"], row["progress"]) for row in news["tasks"]] == [(task.pk, 55)]
    await page.leave()


async def test_the_dashboard_hears_of_every_campaign_of_its_account_only() -> None:
    campaign, _task, user = await sync_to_async(prepare)()
    foreign = await sync_to_async(CampaignFactory.create)()
    page = Page("/ws/updates/", user)
    assert (await page.connect())["type"] == "websocket.accept"
    await sync_to_async(live.changed)([foreign.pk, campaign.pk])
    (news,) = await page.hear()
    assert news["campaign"] == campaign.pk
    assert await page.hears_nothing()
    await page.leave()


async def test_a_firmwares_page_hears_of_a_batch_that_is_launched_after_it_was_opened() -> None:
    campaign, _task, user = await sync_to_async(prepare)()
    unused = await sync_to_async(FirmwareFactory.create)(product=campaign.product, version="9.0.0")
    for firmware, known in ((campaign.firmware, 1), (unused, 0)):
        page = Page(f"/ws/firmware/{firmware.pk}/", user)
        assert (await page.connect())["type"] == "websocket.accept"
        if known:
            await page.hear()
        launched = await sync_to_async(CampaignFactory.create)(firmware=firmware)
        await sync_to_async(live.changed)([launched.pk])
        (news,) = await page.hear()
        assert news["campaign"] == launched.pk
        await page.leave()


async def test_a_row_of_another_campaign_is_not_told() -> None:
    campaign, _task, user = await sync_to_async(prepare)()
    foreign = await sync_to_async(TaskFactory.create)()
    page = Page(f"/ws/campaigns/{campaign.pk}/", user)
    await page.connect()
    await page.hear()
    await page.say(json.dumps({"tasks": [foreign.pk]}))
    (known,) = await page.hear()
    assert known["tasks"] == []
    await page.leave()


def strangers(campaign: Campaign) -> list[Any]:
    from django.contrib.auth.models import AnonymousUser

    without_role = UserFactory.create(account=campaign.account)
    elsewhere = UserFactory.create()
    elsewhere.groups.set(Group.objects.filter(name=VIEWER))
    must_change = UserFactory.create(account=campaign.account, must_change_password=True)
    must_change.groups.set(Group.objects.filter(name=VIEWER))
    return [AnonymousUser(), without_role, elsewhere, must_change]


async def test_nobody_else_gets_in() -> None:
    campaign, _task, _user = await sync_to_async(prepare)()
    pages = (f"/ws/campaigns/{campaign.pk}/", f"/ws/firmware/{campaign.firmware_id}/")
    for stranger, path in product(await sync_to_async(strangers)(campaign), pages):
        answer = await Page(path, stranger).connect()
        assert (answer["type"], answer["code"]) == ("websocket.close", 4403)


@pytest.mark.parametrize(
    "text", ["not json", "[]", json.dumps({"tasks": ["1"]}), json.dumps({"tasks": [2**70]})]
)
async def test_nonsense_ends_the_connection(text: str) -> None:
    campaign, _task, user = await sync_to_async(prepare)()
    page = Page(f"/ws/campaigns/{campaign.pk}/", user)
    await page.connect()
    await page.hear()
    await page.say(text)
    answer = await page.receive_output(5)  # type: ignore[no-untyped-call]
    assert answer["type"] == "websocket.close"


async def test_a_page_that_is_closed_leaves_its_group(settings: Any) -> None:
    # This layer shows its groups; on Redis they are the layer's own business.
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    campaign, _task, user = await sync_to_async(prepare)()
    page = Page(f"/ws/campaigns/{campaign.pk}/", user)
    await page.connect()
    layer: Any = get_channel_layer()
    assert layer.groups[live.campaign_group(campaign.pk)]
    await page.leave()
    assert live.campaign_group(campaign.pk) not in layer.groups


def deactivated(user: User, page: Page) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def stripped_of_the_role(user: User, page: Page) -> None:
    user.groups.clear()


def moved_to_another_account(user: User, page: Page) -> None:
    User.objects.filter(pk=user.pk).update(account=UserFactory.create().account)


def given_another_password(user: User, page: Page) -> None:
    user.set_password("Kanton-1997-x")
    user.save()


def logged_out(user: User, page: Page) -> None:
    page.session.flush()


@pytest.mark.parametrize("path", ["/ws/campaigns/{pk}/", "/ws/updates/"])
@pytest.mark.parametrize(
    "happens",
    [deactivated, stripped_of_the_role, moved_to_another_account, given_another_password, logged_out],
)
async def test_an_open_page_is_closed_once_its_user_lost_the_right(
    monkeypatch: pytest.MonkeyPatch, path: str, happens: Any
) -> None:
    monkeypatch.setattr(consumers, "ASK_AGAIN_SECONDS", 0.05)
    campaign, _task, user = await sync_to_async(prepare)()
    page = Page(path.format(pk=campaign.pk), user)
    assert (await page.connect())["type"] == "websocket.accept"
    if path != "/ws/updates/":
        await page.hear()
    assert await page.hears_nothing()
    await sync_to_async(happens)(user, page)
    answer = await page.receive_output(5)  # type: ignore[no-untyped-call]
    # Whoever moved to another account may open the dashboard again, with the other account's news.
    moved = path == "/ws/updates/" and happens is moved_to_another_account
    assert (answer["type"], answer["code"]) == ("websocket.close", 4503 if moved else 4403)


def test_a_page_is_asked_about_each_minute() -> None:
    assert consumers.ASK_AGAIN_SECONDS <= 60
