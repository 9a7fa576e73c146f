"""The sentence of every unfinished task, gate by gate, in both languages."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone, translation
from pytest_django import Settings

from campaigns.models import Campaign, UpdateTask
from campaigns.states import OPEN, CampaignStatus, Policy, Reason, TaskStatus
from campaigns.why import SENTENCES, Surroundings, Why, duration, pending_label, why, why_device
from devices.models import Channel, Device, DevicePresence, DeviceVersion
from tests.factories import CampaignFactory, DeviceFactory, TaskFactory

NOW = datetime(2026, 11, 23, 14, 2, 30, tzinfo=timezone.get_default_timezone())
MINUTE = timedelta(minutes=1)


def reason_of(task: UpdateTask, now: datetime = NOW) -> Why:
    task = UpdateTask.objects.select_related("campaign", "device").get(pk=task.pk)
    found = why(task, Surroundings.of([task], now), now)
    assert found is not None
    return found


def label_of(task: UpdateTask) -> str:
    task = UpdateTask.objects.select_related("campaign", "device").get(pk=task.pk)
    return pending_label(task, Surroundings.of([task], NOW), NOW)


@pytest.fixture
def task(db: None) -> Callable[..., UpdateTask]:
    """A task of an online device; `presence`, `campaign` and `runs` (its version) change those rows."""

    def make(*, presence: Any = None, campaign: Any = None, runs: Any = None, **values: Any) -> UpdateTask:
        values = {"due_at": NOW - MINUTE, "created_at": NOW - MINUTE, "changed_at": NOW - MINUTE} | values
        made = TaskFactory.create(campaign=CampaignFactory.create(**(campaign or {})), **values)
        DevicePresence.objects.filter(pk=made.device_id).update(**(presence or {}))
        if runs:
            DeviceVersion.objects.filter(device=made.device_id).update(**runs)
        return made

    return make


Task = Callable[..., UpdateTask]

# What makes each gate say no, one row each: (code, the task, its sentence).
GATES: list[tuple[str, dict[str, Any], str]] = [
    ("confirmation", {"status": TaskStatus.CONFIRM}, "Waiting for confirmation."),
    (
        "scheduled",
        {
            "status": TaskStatus.SCHEDULED,
            "campaign": {"schedule_at": NOW + timedelta(days=1), "status": CampaignStatus.PLANNED},
        },
        "Scheduled for 2026-11-24 14:02.",
    ),
    (
        "starting",
        {"status": TaskStatus.SCHEDULED, "campaign": {"schedule_at": NOW - MINUTE}},
        "The scheduled time has come; the update is about to start.",
    ),
    ("paused", {"campaign": {"is_paused": True}}, "The batch is paused."),
    ("canceling", {"campaign": {"canceling": ["QUEUED"]}}, "Being canceled."),
    (
        "offline",
        {"presence": {"is_up": False, "changed_at": NOW.replace(minute=0)}, "due_at": NOW.replace(hour=13)},
        "Waiting for the device to come online since 14:00.",
    ),
    (
        "pull",
        {"presence": {"channel": Channel.HTTPS, "connected_at": NOW - 2 * MINUTE, "changed_at": NOW}},
        "The device asks for its updates itself (HTTPS): it gets this one with its next version report.",
    ),
    (
        "pull_only",
        {"presence": {"channel": Channel.HTTPS, "connected_at": NOW, "changed_at": NOW}},
        "The device asks for its updates itself (HTTPS) and was offline when this one became due: "
        "it gets it only when it asks for an update.",
    ),
    (
        "reserved",
        {"presence": {"reserved_until": NOW + timedelta(minutes=20)}, "ready_at": NOW},
        "An earlier update of the device was canceled or timed out: waiting for its next report, "
        "or until 14:22.",
    ),
    (
        "returned",
        {"ready_at": NOW + timedelta(seconds=9), "returns": 2},
        "The device came back without the new version (2 of 3): pushed again in 9 seconds unless it "
        "reports it.",
    ),
    (
        "rolled_back",
        {"returns": 4, "ready_at": NOW},
        "The device came back on its old version again and again.",
    ),
    ("soon", {"ready_at": NOW + timedelta(seconds=30)}, "To be pushed in 30 seconds."),
    (
        "back",
        {
            "status": TaskStatus.IN_PROGRESS,
            "pushed_at": NOW - MINUTE,
            "ready_at": NOW + timedelta(seconds=30),
        },
        "The device is back in the middle of the update: pushed again in 30 seconds unless it goes on or "
        "reports the new version.",
    ),
    (
        "settling",
        {
            "ready_at": NOW,
            "campaign": {"source_versions": ["1.0.0"]},
            "runs": {"changed_at": NOW - timedelta(seconds=2)},
        },
        "The device has just reported version 1.0.0: waiting 8 seconds for the version to settle.",
    ),
    (
        "rate",
        {
            "ready_at": NOW,
            "campaign": {"max_per_minute": 100, "rate_minute": NOW.replace(second=0), "rate_used": 100},
        },
        "Held by the limit of 100 a minute.",
    ),
    (
        "ready",
        {
            "ready_at": NOW,
            "campaign": {"max_per_minute": 100, "rate_minute": NOW - 2 * MINUTE, "rate_used": 100},
        },
        "About to be pushed.",
    ),
    (
        "unacknowledged",
        {"status": TaskStatus.NOTIFIED, "pushed_at": NOW - timedelta(seconds=5), "active_at": NOW},
        "Pushed 5 seconds ago, not yet taken by the broker.",
    ),
    (
        "unanswered",
        {
            "status": TaskStatus.NOTIFIED,
            "pushed_at": NOW - 3 * MINUTE,
            "acknowledged_at": NOW - 3 * MINUTE,
            "active_at": NOW - 3 * MINUTE,
        },
        "Pushed 3 minutes ago, no answer yet; times out in 57 minutes.",
    ),
    (
        "unanswered_forever",
        {
            "status": TaskStatus.NOTIFIED,
            "pushed_at": NOW - 3 * MINUTE,
            "acknowledged_at": NOW - 3 * MINUTE,
            "campaign": {"timeout_minutes": None},
        },
        "Pushed 3 minutes ago, no answer yet; there is no time-out.",
    ),
    (
        "downloading",
        {
            "status": TaskStatus.IN_PROGRESS,
            "pushed_at": NOW - MINUTE,
            "active_at": NOW - timedelta(seconds=12),
            "progress": 40,
        },
        "Downloading, reported 12 seconds ago.",
    ),
    (
        "restart",
        {"status": TaskStatus.IN_PROGRESS, "pushed_at": NOW, "active_at": NOW, "progress": 100},
        "Written; waiting for the restart and the report of the new version.",
    ),
    (
        "restarting_offline",
        {
            "status": TaskStatus.IN_PROGRESS,
            "pushed_at": NOW,
            "active_at": NOW,
            "progress": 60,
            "presence": {"is_up": False, "changed_at": NOW},
        },
        "Went offline at 60% at 14:02; it may be restarting.",
    ),
    (
        "stray",
        {
            "status": TaskStatus.IN_PROGRESS,
            "pushed_at": NOW,
            "active_at": NOW,
            "stray_until": NOW + timedelta(seconds=20),
        },
        "The device reported version 1.0.0, which is neither the old nor the new one: judged in 20 seconds.",
    ),
]


@pytest.mark.parametrize(("code", "values", "sentence"), GATES, ids=[row[0] for row in GATES])
def test_each_gate_has_its_sentence(
    task: Task, code: str, values: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    found = reason_of(task(**values))
    assert (found.code, str(found)) == (code, sentence)


def test_a_retry_names_its_attempt_and_time_and_what_failed_before(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    campaign = {"retry_interval_minutes": 30, "max_retries": 2}
    failed: dict[str, Any] = {"attempt": 2, "reason": Reason.DOWNLOAD, "detail": "no route"}
    waiting = task(campaign=campaign, due_at=NOW + 8 * MINUTE, **failed)
    assert str(reason_of(waiting)) == "Attempt 2 of 3 is due at 14:10."
    assert label_of(waiting) == "Pending (Scheduled time: 2026-11-23 14:10:30)"
    again = task(campaign=campaign, status=TaskStatus.IN_PROGRESS, active_at=NOW, progress=18, **failed)
    assert str(reason_of(again)) == (
        "Downloading, reported 0 seconds ago. Attempt 2 of 3; the last one failed: "
        "The device could not download the firmware file. “no route”"
    )


def test_pending_is_labelled_as_the_product_text_says(task: Task) -> None:
    local = datetime(2026, 11, 24, 9, 30, tzinfo=timezone.get_default_timezone())
    scheduled = task(status=TaskStatus.SCHEDULED, campaign={"schedule_at": local})
    assert label_of(scheduled) == "Pending (Scheduled time: 2026-11-24 09:30:00)"
    assert label_of(task(presence={"is_up": False})) == "Pending (Device offline)"
    assert label_of(task()) == "Pending (Queued)"
    with timezone.override("Asia/Shanghai"):
        assert label_of(scheduled) == "Pending (Scheduled time: 2026-11-24 17:30:00)"


def test_a_broken_brokers_ghost_counts_as_offline(task: Task) -> None:
    assert reason_of(task(presence={"epoch": "an earlier life"})).code == "offline"


def test_a_disabled_device_says_so_rather_than_being_waited_for(task: Task) -> None:
    waiting = task(presence={"is_up": False})
    Device.objects.update(is_disabled=True)
    assert reason_of(waiting).code == "disabled"


def test_a_page_of_tasks_costs_three_queries(
    task: Task, django_assert_num_queries: Callable[..., Any]
) -> None:
    for status in sorted(OPEN):
        task(status=status)
    tasks = list(UpdateTask.objects.select_related("campaign", "device"))
    with django_assert_num_queries(3):
        around = Surroundings.of(tasks, NOW)
        assert all(str(why(each, around, NOW)) for each in tasks)


def test_every_sentence_is_said_in_chinese_too() -> None:
    with translation.override("zh-hans"):
        assert [code for code, text in SENTENCES.items() if str(text).isascii()] == []
        assert duration(3 * MINUTE) != "3 minutes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_durations_are_said_in_one_unit(seconds: int, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


# ---- a device as a whole ----


def test_a_device_is_explained_by_its_active_task(task: Task) -> None:
    waiting = task(presence={"is_up": False})
    assert why_device(waiting.device, NOW).code == "offline"


def test_a_scheduled_task_waits_behind_the_active_one(task: Task) -> None:
    active = task()
    TaskFactory.create(
        device=active.device,
        campaign=CampaignFactory.create(),
        status=TaskStatus.SCHEDULED,
        due_at=NOW + MINUTE,
    )
    assert why_device(active.device, NOW).code == "ready"


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_an_idle_device_is_explained_by_its_last_update(task: Task, status: str) -> None:
    last = task(status=status, reason=Reason.BURN if status == "FAILED" else "")
    found = why_device(last.device, NOW)
    assert found.code == status.lower()
    assert "2.0.0" in str(found)


def test_a_device_without_updates_says_so(db: None) -> None:
    assert why_device(DeviceFactory.create()).code == "idle"
    assert why_device(DeviceFactory.create(activated_at=None)).code == "never_connected"
    assert why_device(DeviceFactory.create(is_disabled=True)).code == "disabled"


def test_a_dynamic_batch_that_is_over_has_no_sentence(db: None) -> None:
    campaign: Campaign = CampaignFactory.create(policy=Policy.DYNAMIC)
    over = TaskFactory.create(campaign=campaign, status=TaskStatus.SUCCEEDED)
    assert why(over, Surroundings.of([over], NOW), NOW) is None


@pytest.mark.django_db
def test_a_link_with_a_port_is_said_to_be_what_a_c_sdk_cannot_use(settings: Settings) -> None:
    settings.OTA_DOWNLOAD_URL = "http://127.0.0.1:8000"
    pushed = {
        "status": TaskStatus.NOTIFIED,
        "pushed_at": NOW - 3 * MINUTE,
        "acknowledged_at": NOW - 3 * MINUTE,
    }
    task = TaskFactory.create(**pushed, active_at=NOW)
    around = Surroundings.of([task], NOW)

    def code() -> str:
        found = why(task, around, NOW)
        assert found is not None
        return found.code

    assert code() == "unanswered_port"
    assert "names a port, which devices with a C SDK cannot use" in str(why(task, around, NOW))
    task.downloads = 1
    assert code() == "unanswered"
    task.downloads, task.pushed_at = 0, NOW - timedelta(seconds=59)
    assert code() == "unanswered"
    task.pushed_at, settings.OTA_DOWNLOAD_URL = NOW - 3 * MINUTE, "http://ota.example"
    assert code() == "unanswered"
