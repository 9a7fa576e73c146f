"""The live side of the pages: a socket that joins the groups of what its page shows.

It joins first, then sends a snapshot, then what changes: nothing is missed in between. Codes and numbers
only; the page has the words. The origin of the handshake is checked in `otaplatform.asgi`.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError
from django.http import HttpRequest
from redis.exceptions import RedisError

from campaigns import live
from campaigns.models import Campaign
from campaigns.views.details import CAMPAIGNS_SHOWN
from firmware.models import Firmware
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.scope import ALL_ACCOUNTS, SESSION_KEY

logger = logging.getLogger(__name__)

# Close codes; the page tries again after the second.
REFUSED, LATER = 4403, 4503
ACCOUNTS_JOINED = 200
ASK_AGAIN_SECONDS = 60.0
SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


@dataclass(frozen=True, slots=True)
class Audience:
    """The groups of a page, and the campaigns whose snapshot it starts from."""

    groups: Sequence[str]
    campaigns: list[Campaign]


class CampaignsConsumer(AsyncJsonWebsocketConsumer):
    """One class for three addresses: a campaign, a firmware's campaigns, everything of the account.

    The client may send {"tasks": [ids]} of the rows it shows and gets them as they are now.
    """

    audience: Audience | None = None
    watch: "asyncio.Task[None] | None" = None

    async def connect(self) -> None:
        self.audience = await database_sync_to_async(self._find_audience)()
        if self.audience is None:
            await self.close(REFUSED)
            return
        try:
            for group in self.audience.groups:
                await self.channel_layer.group_add(group, self.channel_name)
        except (OSError, RedisError):
            logger.warning("The channel layer does not answer; live pages wait.")
            await self.close(LATER)
            return
        # The base class leaves these when the socket closes.
        self.groups = list(self.audience.groups)
        await self.accept()
        self.watch = asyncio.create_task(self._keep_asking())
        await self._send_snapshot([])

    async def disconnect(self, code: int) -> None:
        if self.watch:
            self.watch.cancel()

    async def _keep_asking(self) -> None:
        """A right may end while the page is open: log-out, deactivation, another role or account."""
        while True:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            try:
                now = await database_sync_to_async(self._find_audience)()
            except DatabaseError:
                await self.close(LATER)
                return
            if now is None:
                await self.close(REFUSED)
                return
            if self.audience and set(now.groups) != set(self.audience.groups):
                await self.close(LATER)
                return

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        try:
            await super().receive(text_data=text_data, bytes_data=bytes_data, **kwargs)
        except ValueError:
            await self.close(REFUSED)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        ids = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(ids, list) or not all(type(pk) is int and 0 < pk < 2**63 for pk in ids):
            raise ValueError("not a list of tasks")
        await self._send_snapshot(ids[: live.MAX_ROWS])

    async def news(self, event: dict[str, Any]) -> None:
        """A message of `campaigns.live`."""
        await self.send_json({"campaigns": [event["message"]]})

    async def _send_snapshot(self, task_ids: list[int]) -> None:
        if self.audience and self.audience.campaigns:
            messages = await database_sync_to_async(live.snapshots)(self.audience.campaigns, task_ids)
            await self.send_json({"campaigns": messages})

    def _find_audience(self) -> Audience | None:
        """Whom the session belongs to is read anew each time."""
        session = SessionStore(getattr(self.scope["session"], "session_key", None))
        user: Any = get_user(cast("HttpRequest", SimpleNamespace(session=session)))
        if not isinstance(user, User) or not user.is_active or not user.is_staff or user.must_change_password:
            return None
        if not user.has_perm("campaigns.view_campaign"):
            return None
        if not user.is_superuser and user.account_id is None:
            return None
        account = None if user.is_superuser else user.account
        match self.scope["url_route"]["kwargs"]:
            case {"pk": pk}:
                campaign = Campaign.objects.of(account).filter(pk=pk).first()
                return None if campaign is None else Audience([live.campaign_group(pk)], [campaign])
            case {"firmware": pk}:
                if not Firmware.objects.of(account).filter(pk=pk).exists():
                    return None
                campaigns = Campaign.objects.of(account).filter(firmware=pk).order_by("-id")
                return Audience([live.firmware_group(pk)], list(campaigns[:CAMPAIGNS_SHOWN]))
            case _:
                return Audience([live.account_group(pk) for pk in _accounts(user, session)], [])


def _accounts(user: User, session: Any) -> list[int]:
    """The accounts that the user's pages show; a superuser's choice is in the session."""
    if not user.is_superuser:
        return [user.account_id] if user.account_id else []
    chosen = session.get(SESSION_KEY)
    if chosen == ALL_ACCOUNTS or not (chosen or user.account_id):
        return list(Account.objects.values_list("pk", flat=True)[:ACCOUNTS_JOINED])
    return [int(chosen or user.account_id or 0)]
