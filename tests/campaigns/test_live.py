"""The messages of the live pages: small, and never in the way of a report."""

import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from campaigns import live, moves
from campaigns.states import TABS, TaskStatus
from tests.factories import TaskFactory


def test_every_status_counts_in_exactly_one_tab() -> None:
    counts = dict.fromkeys(TaskStatus.values, 1)
    assert sum(live.tab_counts(counts).values()) == len(TaskStatus)
    assert list(live.tab_counts(counts)) == list(TABS)


def test_a_message_carries_the_counts_and_the_rows_of_the_devices_that_reported(db: None) -> None:
    task, other = TaskFactory.create_batch(2, status=TaskStatus.IN_PROGRESS, progress=40)
    moves.recount([task.campaign_id], repair=True)
    layer: Any = get_channel_layer()
    async_to_sync(layer.group_add)(live.campaign_group(task.campaign_id), "page")
    live.changed([task.campaign_id, other.campaign_id], device_ids=[task.device_id])
    message = async_to_sync(layer.receive)("page")["message"]
    assert (message["campaign"], message["tabs"]["updating"]) == (task.campaign_id, 1)
    assert [(row["id"], row["progress"]) for row in message["tasks"]] == [(task.pk, 40)]
    async_to_sync(layer.flush)()


def test_a_channel_layer_that_is_down_stops_nothing(
    db: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down() -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(live, "get_channel_layer", down)
    with caplog.at_level(logging.WARNING):
        live.changed([TaskFactory.create().campaign_id])
    assert "live message not sent" in caplog.text


def test_a_snapshot_tells_only_tasks_of_its_campaigns(db: None) -> None:
    task, foreign = TaskFactory.create_batch(2)
    (message,) = live.snapshots([task.campaign], [task.pk, foreign.pk])
    assert [row["id"] for row in message["tasks"]] == [task.pk]
    assert live.snapshots([]) == []
