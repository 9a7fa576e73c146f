"""The CSV that a spreadsheet may open."""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.test import AsyncClient
from django.urls import reverse

from campaigns import export, moves
from campaigns.models import Campaign
from otaplatform.accounts.roles import VIEWER
from tests.factories import TaskFactory, UserFactory


@pytest.mark.django_db(transaction=True)
async def test_the_file_is_sent_piece_by_piece_in_the_readers_language_and_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "CHUNK", 2)

    def prepare() -> tuple[AsyncClient, Campaign]:
        campaign: Campaign = TaskFactory.create().campaign
        TaskFactory.create_batch(4, campaign=campaign)
        moves.recount([campaign.pk], repair=True)
        user = UserFactory.create(account=campaign.account, language="zh-hans", time_zone="Asia/Shanghai")
        user.groups.set(Group.objects.filter(name=VIEWER))
        client = AsyncClient()
        client.force_login(user)
        return client, campaign

    client, campaign = await sync_to_async(prepare)()
    answer = await client.get(reverse("campaigns:detail", args=[campaign.pk]), {"export": "all"})
    pieces = [piece.decode() async for piece in answer.streaming_content]  # type: ignore[attr-defined]
    assert pieces[0] == "\ufeff"
    assert [piece.count("\r\n") for piece in pieces[1:] if piece] == [1, 2, 2, 1]
    assert "设备" in pieces[1] or "状态" in pieces[1]
