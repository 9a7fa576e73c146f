"""The pages of campaigns: who may open them, what they show, and that they cost the same at any size."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from campaigns import services
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.services import Plan
from campaigns.states import CampaignKind, CampaignStatus, EventKind, Policy, Reason, TaskStatus
from devices.models import Device
from firmware.models import Firmware
from otaplatform.accounts.roles import OPERATOR, VIEWER
from tests.campaigns.conftest import counts, person, recounted, whole_answer
from tests.factories import (
    AccountFactory,
    CampaignFactory,
    TaskFactory,
)

Fleet = Callable[..., list[Device]]


# ---- update details ----


@pytest.fixture
def running(firmware: Firmware, fleet: Fleet) -> Campaign:
    """A batch with something in every tab."""
    campaign = CampaignFactory.create(firmware=firmware)
    for status, values in (
        (TaskStatus.QUEUED, {}),
        (TaskStatus.IN_PROGRESS, {"progress": 35, "pushed_at": timezone.now(), "active_at": timezone.now()}),
        (TaskStatus.SUCCEEDED, {}),
        (TaskStatus.FAILED, {"reason": Reason.DOWNLOAD, "detail": "no route"}),
        (TaskStatus.FAILED, {"reason": Reason.CONFLICT}),
        (TaskStatus.CANCELED, {}),
    ):
        TaskFactory.create(campaign=campaign, status=status, **values)
    recounted(campaign)
    return campaign


def names_of(page: Any) -> list[str]:
    return [row.task.device.name for row in page.context["rows"]]


def test_each_tab_shows_its_devices_and_its_count(console: Any, running: Campaign) -> None:
    for url in (
        reverse("campaigns:detail", args=[running.pk]),
        reverse("campaigns:firmware-details", args=[running.firmware_id]),
    ):
        for tab, expected in (
            ("pending", 1),
            ("updating", 1),
            ("succeeded", 1),
            ("failed", 2),
            ("canceled", 1),
        ):
            page = console.get(url, {"tab": tab})
            assert (len(page.context["rows"]), page.context["counts"][tab]) == (expected, expected)
    page = console.get(url, {"tab": "failed"})
    assert "The device could not download the firmware file. “no route”" in page.content.decode()


def test_failures_are_filtered_by_reason_and_devices_by_how_their_name_begins(
    console: Any, running: Campaign
) -> None:
    url = reverse("campaigns:detail", args=[running.pk])
    failed = UpdateTask.objects.get(reason=Reason.DOWNLOAD)
    assert names_of(console.get(url, {"tab": "failed", "reason": "DOWNLOAD"})) == [failed.device.name]
    assert names_of(console.get(url, {"tab": "failed", "q": failed.device.name})) == [failed.device.name]
    assert names_of(console.get(url, {"tab": "failed", "q": "nothing"})) == []


def test_the_tasks_of_a_removed_device_are_found_by_its_name(console: Any, running: Campaign) -> None:
    failed = UpdateTask.objects.get(reason=Reason.DOWNLOAD)
    Device.objects.filter(pk=failed.device_id).update(product=running.product, removed_at=timezone.now())
    page = console.get(
        reverse("campaigns:detail", args=[running.pk]), {"tab": "failed", "q": failed.device.name}
    )
    assert names_of(page) == [failed.device.name]


def test_a_filter_by_campaign_narrows_the_firmwares_page(
    console: Any, running: Campaign, firmware: Firmware
) -> None:
    other = CampaignFactory.create(firmware=firmware, kind=CampaignKind.VERIFY)
    task = TaskFactory.create(campaign=other)
    recounted(other)
    url = reverse("campaigns:firmware-details", args=[firmware.pk])
    assert len(console.get(url, {"tab": "pending"}).context["rows"]) == 2
    assert names_of(console.get(url, {"tab": "pending", "campaign": other.pk})) == [task.device.name]


def test_the_pages_of_a_tab_walk_there_and_back_over_every_row_once(
    console: Any, firmware: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in (TaskStatus.QUEUED, TaskStatus.SCHEDULED):
        for campaign in CampaignFactory.create_batch(2, firmware=firmware):
            TaskFactory.create_batch(30, campaign=campaign, status=status)
    campaigns = list(Campaign.objects.all())
    recounted(*campaigns)
    url = reverse("campaigns:firmware-details", args=[firmware.pk])
    seen, query, pages = [], "?tab=pending", []
    while query:
        page = console.get(url + query)
        pages.append(names_of(page))
        seen += pages[-1]
        query = page.context["links"]["next"]
    assert sorted(seen) == sorted(UpdateTask.objects.values_list("device__name", flat=True))
    assert [len(names) for names in pages] == [50, 50, 20]
    back = page.context["links"]["previous"]
    middle = console.get(url + back)
    assert names_of(middle) == pages[1]
    first = console.get(url + middle.context["links"]["previous"])
    assert (names_of(first), first.context["links"]["previous"]) == (pages[0], "")


def test_update_details_costs_the_same_for_one_row_and_for_many(
    console: Any,
    running: Campaign,
    firmware: Firmware,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    for campaign in [running, *CampaignFactory.create_batch(20, firmware=firmware)]:
        TaskFactory.create_batch(4, campaign=campaign)
    recounted(*Campaign.objects.all())
    for url in (
        reverse("campaigns:detail", args=[running.pk]),
        reverse("campaigns:firmware-details", args=[firmware.pk]),
        reverse("campaigns:list"),
    ):
        console.get(url)
        with django_assert_max_num_queries(18):
            assert console.get(url, {"tab": "pending"}).status_code == 200


@whole_answer
def test_the_export_streams_every_tab_with_formulas_defused(console: Any, running: Campaign) -> None:
    UpdateTask.objects.filter(reason=Reason.DOWNLOAD).update(detail="=cmd()")
    url = reverse("campaigns:detail", args=[running.pk])
    lines = b"".join(console.get(url, {"export": "all"})).decode("utf-8-sig").splitlines()
    assert len(lines) == 1 + 6
    assert any("'=cmd()" in line for line in lines)
    one = b"".join(console.get(url, {"export": "tab", "tab": "pending"})).decode().splitlines()
    assert len(one) == 2


# ---- acting ----


def act(console: Any, campaign: Campaign, action: str, **values: Any) -> Any:
    return console.post(reverse("campaigns:act", args=[campaign.pk]), {"action": action, **values})


def test_failed_updates_are_started_again_one_or_all_of_a_reason(console: Any, running: Campaign) -> None:
    download = UpdateTask.objects.get(reason=Reason.DOWNLOAD)
    act(console, running, "again_tab", tab="failed", reason="CONFLICT")
    assert counts(running)["FAILED"] == 1
    act(console, running, "again", task=[download.pk])
    assert "FAILED" not in counts(running)
    assert counts(running)["QUEUED"] == 3


def test_what_waits_is_canceled_at_once(console: Any, running: Campaign) -> None:
    act(console, running, "cancel_tab", tab="pending")
    assert ("QUEUED" in counts(running), counts(running)["CANCELED"]) == (False, 2)
    assert counts(running)["IN_PROGRESS"] == 1


def test_what_is_updating_is_canceled_after_a_warning(console: Any, running: Campaign) -> None:
    updating = UpdateTask.objects.get(status=TaskStatus.IN_PROGRESS)
    warning = act(console, running, "cancel", task=[updating.pk], tab="updating")
    assert warning.templates[0].name == "campaigns/confirm_cancel.html"
    assert counts(running)["IN_PROGRESS"] == 1
    act(console, running, "cancel", task=[updating.pk], tab="updating", confirmed="1")
    assert "IN_PROGRESS" not in counts(running)


def test_a_batch_is_paused_resumed_and_canceled(console: Any, running: Campaign) -> None:
    for action, paused in (("pause", True), ("resume", False)):
        act(console, running, action)
        running.refresh_from_db()
        assert running.is_paused is paused
    act(console, running, "cancel_batch")
    running.refresh_from_db()
    assert running.status == CampaignStatus.IN_PROGRESS
    act(console, running, "cancel_batch", confirmed="1")
    running.refresh_from_db()
    assert running.status == CampaignStatus.CANCELED
    answer = act(console, running, "pause")
    assert b"over already" in console.get(answer.url).content


def test_a_dynamic_batch_stops_matching(console: Any, firmware: Firmware, fleet: Fleet) -> None:
    campaign = services.launch_batch(firmware, Plan(policy=Policy.DYNAMIC, accept_unproven=True))
    act(console, campaign, "stop_matching")
    campaign.refresh_from_db()
    assert campaign.matching_stopped_at


def test_an_action_over_a_firmware_reaches_all_its_campaigns_and_no_other(
    console: Any, running: Campaign, firmware: Firmware
) -> None:
    other = TaskFactory.create(campaign=CampaignFactory.create(firmware=firmware))
    foreign = TaskFactory.create()
    recounted(other.campaign, foreign.campaign)
    url = reverse("campaigns:firmware-act", args=[firmware.pk])
    waiting = UpdateTask.objects.get(campaign=running, status=TaskStatus.QUEUED)
    console.post(url, {"action": "cancel", "task": [waiting.pk, other.pk, foreign.pk, "x"], "tab": "pending"})
    assert set(UpdateTask.objects.filter(status=TaskStatus.QUEUED)) == {foreign}


# ---- history, versions, list, dashboard, device ----


def test_a_tasks_history_tells_each_attempt_and_every_event(console: Any, running: Campaign) -> None:
    task = UpdateTask.objects.get(reason=Reason.DOWNLOAD)
    Campaign.objects.update(retry_interval_minutes=30, max_retries=2)
    at = timezone.now()
    for kind, values in (
        (EventKind.PUSHED, {"attempt": 1}),
        (EventKind.RETRY, {"attempt": 1, "reason": "DOWNLOAD", "detail": "no route", "after": "QUEUED"}),
        (EventKind.PUSHED, {"attempt": 2}),
        (EventKind.MOVED, {"attempt": 2, "after": "FAILED", "reason": "DOWNLOAD"}),
    ):
        TaskEvent.objects.create(task=task, at=at, kind=kind, **values)
    text = console.get(reverse("campaigns:task", args=[task.pk])).content.decode()
    assert "attempt 2 of 3" in text
    assert "The attempt failed and will be repeated" in text


def test_versions_shows_the_five_most_common_and_the_rest(
    console: Any, fleet: Fleet, firmware: Firmware
) -> None:
    for number in range(7):
        fleet(8 - number, version=f"1.{number}")
    fleet(1, version=firmware.version)
    recounted()
    page = console.get(reverse("campaigns:versions"), {"product": firmware.product_id})
    slices = page.context["slices"]
    assert [each["version"] for each in slices] == ["1.0", "1.1", "1.2", "1.3", "1.4", ""]
    assert sum(each["devices"] for each in slices) == 36
    assert slices[0]["percent"] == "22.2"
    listed = console.get(reverse("campaigns:versions"), {"product": firmware.product_id, "version": "1.6"})
    assert [each["running"].version for each in listed.context["devices"]] == ["1.6", "1.6"]


def test_the_version_page_costs_the_same_for_one_device_and_for_many(
    console: Any,
    fleet: Fleet,
    firmware: Firmware,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    fleet(30)
    recounted()
    url = reverse("campaigns:versions")
    console.get(url)
    with django_assert_max_num_queries(16):
        console.get(url, {"product": firmware.product_id, "version": "1.0.0"})


def test_the_dashboard_shows_running_updates_and_the_failures_of_the_week(
    console: Any, running: Campaign, now: datetime
) -> None:
    text = console.get(reverse("admin:index")).content.decode()
    assert reverse("campaigns:detail", args=[running.pk]) in text
    assert "33.3%" in text
    assert "The device could not download the firmware file." in text


def test_a_devices_page_tells_its_updates(console: Any, running: Campaign) -> None:
    task = UpdateTask.objects.get(status=TaskStatus.IN_PROGRESS)
    url = reverse("admin:devices_device_change", args=[task.device_id])
    text = console.get(url).content.decode()
    assert reverse("campaigns:task", args=[task.pk]) in text
    assert "Downloading, reported" in text


# ---- access ----


def pages_of(campaign: Campaign) -> list[str]:
    task = UpdateTask.objects.filter(campaign=campaign).first()
    assert task
    return [
        reverse("campaigns:firmware-details", args=[campaign.firmware_id]),
        reverse("campaigns:detail", args=[campaign.pk]),
        reverse("campaigns:task", args=[task.pk]),
    ]


def verbs_of(campaign: Campaign) -> list[str]:
    return [
        *(reverse(f"campaigns:{name}", args=[campaign.firmware_id]) for name in ("validate", "batch")),
        reverse("campaigns:firmware-act", args=[campaign.firmware_id]),
        reverse("campaigns:act", args=[campaign.pk]),
    ]


def test_pages_of_another_account_do_not_exist(running: Campaign) -> None:
    stranger = Client()
    stranger.force_login(person(AccountFactory.create(), OPERATOR))
    for url in pages_of(running):
        assert stranger.get(url).status_code == 404
    for url in verbs_of(running):
        assert stranger.post(url, {"action": "pause"}).status_code == 404
    suggest = reverse("campaigns:suggest", args=[running.firmware_id])
    assert stranger.get(suggest).status_code == 404
    versions_url = reverse("campaigns:versions")
    assert stranger.get(versions_url, {"product": running.product_id}).status_code == 404
    assert not stranger.get(reverse("campaigns:list")).context["rows"]


def test_a_viewer_looks_and_changes_nothing(running: Campaign) -> None:
    viewer = Client()
    viewer.force_login(person(running.account, VIEWER))
    for url in [*pages_of(running), reverse("campaigns:list"), reverse("campaigns:versions")]:
        page = viewer.get(url)
        assert page.status_code == 200
        assert b'name="action"' not in page.content
    for url in verbs_of(running):
        assert viewer.post(url, {"action": "pause"}).status_code == 403
    running.refresh_from_db()
    assert not running.is_paused
