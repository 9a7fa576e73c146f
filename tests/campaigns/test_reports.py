"""Batches of device reports onto presence, versions, tasks, events and counters."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from campaigns import expand, life, moves, reports, sweep
from campaigns.life import PUSH_SPACING
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.reports import Down, Inform, Step, Up
from campaigns.states import EventKind, Policy, TaskStatus
from devices import presence
from devices.models import Device, DevicePresence, DeviceVersion, VersionCounter
from devices.versions import SETTLE, recount
from firmware.models import Firmware
from tests.campaigns.conftest import counts, status_of
from tests.factories import EPOCH, CampaignFactory, FirmwareFactory, TaskFactory

Fleet = Callable[..., list[Device]]


def inform(device: Device, version: str, now: datetime, **values: object) -> Inform:
    return Inform(device.pk, device.product_id, "default", version, now, **values)  # type: ignore[arg-type]


def step(device: Device, number: int, now: datetime, detail: str = "", **values: object) -> Step:
    return Step(device.pk, None, number, detail, now, **values)  # type: ignore[arg-type]


def push(campaign: Campaign, at: datetime) -> None:
    """As the dispatcher leaves them: pushed and acknowledged."""
    tasks = UpdateTask.objects.filter(campaign=campaign, status=TaskStatus.QUEUED)
    states = moves.read(tasks)
    for state in states:
        state.move(TaskStatus.NOTIFIED, at, kind=EventKind.PUSHED)
        state.pushed_at = state.active_at = state.acknowledged_at = at
        state.ready_at = None
    moves.add_counts(moves.write(states, at)[1])


@pytest.fixture
def running(campaign: Campaign, fleet: Fleet, now: datetime) -> tuple[Campaign, Device]:
    """A campaign with one device that was pushed to a minute ago."""
    (device,) = fleet(1)
    expand.expand(campaign.pk, now)
    push(campaign, now - timedelta(minutes=1))
    return campaign, device


def test_a_first_inform_is_stored_and_counted(fleet: Fleet, now: datetime) -> None:
    (device,) = fleet(1, version=None)
    reports.apply([inform(device, "1.0.0", now)], now)
    assert DeviceVersion.objects.get().version == "1.0.0"
    assert VersionCounter.objects.distribution(device.product) == [("1.0.0", 1)]


def test_of_several_informs_in_one_batch_the_last_stands_and_the_counters_stay_true(
    fleet: Fleet, now: datetime
) -> None:
    devices = fleet(3, version=None)
    batch = [inform(device, version, now) for version in ("1.0.0", "app-1", "1.1.0") for device in devices]
    reports.apply(batch, now)
    reports.apply([inform(devices[0], "1.2.0", now)], now)
    assert VersionCounter.objects.distribution(devices[0].product) == [("1.1.0", 2), ("1.2.0", 1)]
    assert recount() == {}


def test_steps_then_a_target_inform_in_one_batch_leave_every_move_in_the_history(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    applied = reports.apply(
        [step(device, 10, now), step(device, 60, now), step(device, 100, now), inform(device, "2.0.0", now)],
        now,
    )
    assert applied.campaigns == {campaign.pk}
    assert counts(campaign) == {"SUCCEEDED": 1}
    moved = TaskEvent.objects.order_by("id").values_list("after", flat=True)
    assert list(moved) == ["NOTIFIED", "IN_PROGRESS", "SUCCEEDED"]


def test_a_redelivered_report_changes_nothing(running: tuple[Campaign, Device], now: datetime) -> None:
    campaign, device = running
    Campaign.objects.filter(pk=campaign.pk).update(retry_interval_minutes=0, max_retries=5)
    reports.apply([step(device, -2, now)], now)
    push(campaign, now)
    reports.apply([step(device, -2, now, duplicate=True)], now)
    assert UpdateTask.objects.get().attempt == 2


def test_one_devices_report_does_not_touch_another(campaign: Campaign, fleet: Fleet, now: datetime) -> None:
    speaking, silent = fleet(2)
    expand.expand(campaign.pk, now)
    push(campaign, now)
    reports.apply([step(speaking, -3, now, "bad digest")], now)
    assert (status_of(speaking), status_of(silent)) == ("FAILED", "NOTIFIED")
    assert counts(campaign) == {"FAILED": 1, "NOTIFIED": 1}


def test_a_retry_of_a_device_that_meanwhile_went_offline_is_parked(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    Campaign.objects.filter(pk=campaign.pk).update(retry_interval_minutes=0, max_retries=1)
    DevicePresence.objects.filter(device=device).update(is_up=False)
    reports.apply([step(device, -2, now)], now)
    task = UpdateTask.objects.get()
    assert (task.status, task.attempt, task.ready_at) == ("QUEUED", 2, None)


def test_going_offline_parks_and_coming_back_wakes(campaign: Campaign, fleet: Fleet, now: datetime) -> None:
    (device,) = fleet(1)
    expand.expand(campaign.pk, now)
    reports.apply([Down(device.pk, f"c{device.pk}", EPOCH, now)], now)
    assert UpdateTask.objects.get().ready_at is None
    applied = reports.apply([Up(device.pk, "c-new", EPOCH, now)], now)
    assert (UpdateTask.objects.get().ready_at, applied.ready) == (now, True)


def test_the_end_of_a_connection_that_was_taken_over_leaves_the_device_online(
    fleet: Fleet, now: datetime
) -> None:
    (device,) = fleet(1)
    reports.apply([Up(device.pk, "second", EPOCH, now), Down(device.pk, f"c{device.pk}", EPOCH, now)], now)
    assert device.presence.is_online(now)


def test_a_notified_device_that_goes_away_is_pending_again(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    reports.apply([Down(device.pk, f"c{device.pk}", EPOCH, now)], now)
    assert counts(campaign) == {"QUEUED": 1}


def test_a_restart_with_the_new_version_succeeds_across_disconnect_and_reconnect(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    reports.apply(
        [
            step(device, 100, now),
            Down(device.pk, f"c{device.pk}", EPOCH, now),
            Up(device.pk, "after-restart", EPOCH, now),
            inform(device, "2.0.0", now),
        ],
        now,
    )
    assert counts(campaign) == {"SUCCEEDED": 1}


def test_an_inform_of_its_module_ends_a_reservation_and_one_of_another_does_not(
    fleet: Fleet, campaign: Campaign, now: datetime
) -> None:
    (device,) = fleet(1)
    presence.reserve({device.pk: "default"}, now + timedelta(minutes=30))
    expand.expand(campaign.pk, now)
    reports.apply([Inform(device.pk, device.product_id, "mcu", "7", now)], now)
    assert DevicePresence.objects.get().reserved_until == now + timedelta(minutes=30)
    applied = reports.apply([inform(device, "1.0.0", now)], now)
    assert (UpdateTask.objects.get().ready_at, applied.ready) == (now, True)


def test_a_late_target_version_after_a_cancel_is_recorded(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    _campaign, device = running
    UpdateTask.objects.update(status=TaskStatus.CANCELED)
    reports.apply([inform(device, "2.0.0", now)], now)
    task = UpdateTask.objects.get()
    assert (task.status, task.is_late) == ("CANCELED", True)


def test_a_foreign_progress_report_is_kept_but_never_fills_the_history(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    _campaign, device = running
    UpdateTask.objects.update(status=TaskStatus.FAILED)
    reports.apply([step(device, -1, now)] * 50, now)
    reports.apply([step(device, -1, now)] * 50, now)
    assert TaskEvent.objects.filter(kind=EventKind.IGNORED).count() == moves.MAX_IGNORED_EVENTS


def test_a_row_that_moved_on_meanwhile_is_read_and_decided_again(
    running: tuple[Campaign, Device], now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, device = running
    read, calls = moves.read, []

    def read_then_lose_the_race(tasks: object) -> list[moves.State]:
        states = read(tasks)  # type: ignore[arg-type]
        if not calls:
            UpdateTask.objects.update(status=TaskStatus.CANCELED)
            moves.add_counts({(campaign.pk, "NOTIFIED"): -1, (campaign.pk, "CANCELED"): 1})
        calls.append(1)
        return states

    monkeypatch.setattr(moves, "read", read_then_lose_the_race)
    reports.apply([step(device, 50, now)], now)
    assert counts(campaign) == {"CANCELED": 1}


class TestDynamic:
    @pytest.fixture
    def dynamic(self, firmware: Firmware) -> Campaign:
        return CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC, source_versions=["1.0.0"])

    def test_a_device_gets_its_task_once_the_matching_version_that_it_reported_has_settled(
        self, dynamic: Campaign, fleet: Fleet, now: datetime
    ) -> None:
        (device,) = fleet(1, version=None)
        reports.apply([inform(device, "1.0.0", now)], now)
        sweep.sweep(now + SETTLE - timedelta(microseconds=1))
        assert not UpdateTask.objects.exists()
        assert sweep.sweep(now + SETTLE) == {dynamic.pk}
        assert UpdateTask.objects.get().ready_at == now + SETTLE
        assert counts(dynamic) == {"QUEUED": 1}
        assert not DeviceVersion.objects.filter(settles_at__isnull=False).exists()

    def test_a_device_on_another_version_is_left_alone(
        self, dynamic: Campaign, fleet: Fleet, now: datetime
    ) -> None:
        (device,) = fleet(1, version=None)
        reports.apply([inform(device, "0.9.0", now)], now)
        sweep.sweep(now + SETTLE)
        assert not UpdateTask.objects.exists()

    def test_the_newest_batch_that_matches_or_is_reached_ends_the_search(
        self, dynamic: Campaign, firmware: Firmware, fleet: Fleet, now: datetime
    ) -> None:
        newer = FirmwareFactory.create(product=firmware.product, version="1.0.0")
        CampaignFactory.create(firmware=newer, policy=Policy.DYNAMIC, source_versions=["2.0.0"])
        (device,) = fleet(1, version=None)
        reports.apply([inform(device, "1.0.0", now)], now)
        sweep.sweep(now + SETTLE)
        assert not UpdateTask.objects.exists()

    def test_a_busy_device_is_taken_in_when_its_task_ends(
        self, dynamic: Campaign, firmware: Firmware, fleet: Fleet, now: datetime
    ) -> None:
        (device,) = fleet(1, version="1.0.0")
        other = CampaignFactory.create(
            firmware=FirmwareFactory.create(product=firmware.product, version="1.1.0"), expanded_at=None
        )
        expand.expand(other.pk, now)
        push(other, now)
        reports.apply([step(device, -1, now)], now)
        assert counts(other) == {"FAILED": 1}
        assert counts(dynamic) == {"QUEUED": 1}

    def test_a_device_is_taken_in_ten_times_and_no_more(
        self, dynamic: Campaign, fleet: Fleet, now: datetime
    ) -> None:
        (device,) = fleet(1, version=None)
        for _ in range(12):
            for version in ("1.0.0", "2.0.0"):
                reports.apply([inform(device, version, now)], now)
                now += SETTLE
                sweep.sweep(now)
                push(dynamic, now)
        assert UpdateTask.objects.filter(device=device, status=TaskStatus.SUCCEEDED).count() == 10

    def test_a_device_whose_sdk_informs_a_version_of_its_own_at_each_connect_is_not_taken_in_again(
        self, firmware: Firmware, fleet: Fleet, now: datetime
    ) -> None:
        """The target's application follows within three seconds: the device never left it."""
        campaign = CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC)
        (device,) = fleet(1, version="2.0.0")
        for gap in (timedelta(seconds=0), timedelta(seconds=0.15), timedelta(seconds=3)):
            now += timedelta(hours=1)
            reports.apply([inform(device, "app-1.0.0-20180101.1000", now)], now)
            reports.apply([inform(device, "2.0.0", now + gap)], now + gap)
            sweep.sweep(now + timedelta(minutes=1))
        assert not UpdateTask.objects.filter(campaign=campaign).exists()

    def test_a_device_is_matched_again_only_by_a_version_that_is_new_since(
        self, dynamic: Campaign, fleet: Fleet, now: datetime
    ) -> None:
        (device,) = fleet(1, version="1.0.0")
        reports.apply([inform(device, "1.0.0", now)], now)
        UpdateTask.objects.update(status=TaskStatus.FAILED, reason="NO_LONGER_MATCHES")
        reports.apply([inform(device, "1.0.0", now)], now)
        sweep.sweep(now + timedelta(minutes=1))
        assert UpdateTask.objects.count() == 1

    @pytest.mark.parametrize(
        ("status", "reason", "detail", "tasks"),
        [
            ("CANCELED", "", "", 1),
            ("CANCELED", "", "a newer batch that replaced it", 2),
            ("FAILED", "DOWNLOAD", "", 1),
            ("FAILED", "TIMEOUT", "", 1),
            ("FAILED", "NO_LONGER_MATCHES", "", 2),
            ("FAILED", "CONFLICT", "", 2),
            ("SUCCEEDED", "", "", 2),
        ],
    )
    def test_an_operators_cancel_and_a_failure_are_the_end_of_a_device_in_a_dynamic_batch(
        self,
        dynamic: Campaign,
        fleet: Fleet,
        now: datetime,
        status: str,
        reason: str,
        detail: str,
        tasks: int,
    ) -> None:
        (device,) = fleet(1, version="1.0.0")
        reports.apply([inform(device, "1.0.0", now)], now)
        task = UpdateTask.objects.get()
        UpdateTask.objects.update(status=status, reason=reason)
        TaskEvent.objects.create(task=task, at=now, kind=EventKind.MOVED, after=status, detail=detail)
        for version in ("1.1.0", "1.0.0"):
            now += timedelta(minutes=1)
            reports.apply([inform(device, version, now)], now)
            sweep.sweep(now + SETTLE)
        assert UpdateTask.objects.count() == tasks

    def test_a_product_without_dynamic_batches_pays_one_query(
        self, fleet: Fleet, now: datetime, django_assert_num_queries: Callable[..., object]
    ) -> None:
        devices = fleet(3)
        with django_assert_num_queries(7):  # type: ignore[attr-defined]
            reports.apply([inform(device, "1.0.0", now) for device in devices], now)


def test_a_report_of_an_unknown_device_id_is_harmless(db: None, now: datetime) -> None:
    applied = reports.apply([Up(999_999, "c", EPOCH, now), Step(999_999, None, 5, "", now)], now)
    assert applied.campaigns == set()


def test_a_late_finish_is_told_of_the_task_that_was_pushed_and_of_no_other(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    """A later launch that met the device busy, and one canceled before its push, did not update it."""
    campaign, device = running
    first = UpdateTask.objects.get(device=device)
    UpdateTask.objects.filter(pk=first.pk).update(status=TaskStatus.CANCELED, pushed_at=now)
    values = {"campaign": CampaignFactory.create(product=campaign.product), "device": device}
    TaskFactory.create(status=TaskStatus.FAILED, reason="CONFLICT", **values)
    TaskFactory.create(status=TaskStatus.CANCELED, match_number=2, **values)
    reports.apply([inform(device, "2.0.0", now)], now)
    assert set(UpdateTask.objects.filter(is_late=True).values_list("id", flat=True)) == {first.pk}


def test_a_late_finish_of_one_module_is_not_hidden_by_a_newer_task_of_another(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    first = UpdateTask.objects.get(device=device)
    UpdateTask.objects.filter(pk=first.pk).update(status=TaskStatus.CANCELED, pushed_at=now)
    TaskFactory.create(
        campaign=campaign, device=device, module="mcu", status=TaskStatus.FAILED, pushed_at=now
    )
    reports.apply([inform(device, "2.0.0", now)], now)
    first.refresh_from_db()
    assert first.is_late


def test_a_late_finish_is_told_though_the_device_waits_for_its_next_update(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    campaign, device = running
    UpdateTask.objects.update(status=TaskStatus.CANCELED, pushed_at=now)
    following = CampaignFactory.create(
        firmware=FirmwareFactory.create(product=campaign.product, version="3.0.0"), expanded_at=None
    )
    expand.expand(following.pk, now)
    reports.apply([step(device, 50, now), inform(device, "2.0.0", now)], now)
    first, second = UpdateTask.objects.order_by("id")
    assert (first.is_late, second.status) == (True, "QUEUED")
    assert not TaskEvent.objects.filter(task=first, kind=EventKind.IGNORED).exists()


def test_of_two_progress_reports_read_at_once_the_further_one_stands(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    _, device = running
    reports.apply([step(device, 10, now)], now)
    (first,), (second,) = (moves.read(UpdateTask.objects.all()) for _ in range(2))
    for state, progress in ((first, 60), (second, 40)):
        life.on_step(state, progress, "", now)
        assert moves.write([state], now)[0] == {state.id}
    assert UpdateTask.objects.get().progress == 60


def test_a_step_that_no_pushed_task_is_about_keeps_the_next_push_away(
    running: tuple[Campaign, Device], now: datetime
) -> None:
    """A second copy goes on after the first one has brought the device to its target."""
    campaign, device = running
    reports.apply([inform(device, "2.0.0", now)], now)
    assert counts(campaign) == {"SUCCEEDED": 1}
    reports.apply([step(device, 40, now)], now)
    rows = DevicePresence.objects.filter(device=device)
    assert rows.get().reserved_until == now + PUSH_SPACING
    rows.update(reserved_until=now + timedelta(minutes=20))
    reports.apply([step(device, 50, now)], now)
    assert rows.get().reserved_until == now + timedelta(minutes=20), "a longer reservation stands"
    reports.apply([inform(device, "2.0.0", now)], now)
    assert rows.get().reserved_until is None


def test_a_step_of_a_pushed_task_reserves_nothing(running: tuple[Campaign, Device], now: datetime) -> None:
    _campaign, device = running
    reports.apply([step(device, 40, now)], now)
    assert DevicePresence.objects.get(device=device).reserved_until is None
