"""The life of one task, decision by decision."""

from datetime import UTC, datetime, timedelta

import pytest

from campaigns import life
from campaigns.life import State
from campaigns.states import EventKind, IllegalMoveError, Reason, TaskStatus

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
BEFORE = NOW - timedelta(minutes=5)


def task(**values: object) -> State:
    defaults: dict[str, object] = {
        "id": 1,
        "campaign_id": 1,
        "device_id": 1,
        "module": "default",
        "status": TaskStatus.QUEUED.value,
        "attempt": 1,
        "progress": 0,
        "reason": "",
        "detail": "",
        "from_version": "1.0",
        "to_version": "2.0",
        "returns": 0,
        "due_at": BEFORE,
        "ready_at": BEFORE,
        "pushed_at": None,
        "acknowledged_at": None,
        "stray_until": None,
        "active_at": None,
        "is_late": False,
        "is_reverted": False,
    }
    return State(**(defaults | values))  # type: ignore[arg-type]


def pushed(status: TaskStatus = TaskStatus.NOTIFIED, **values: object) -> State:
    return task(
        **{"status": status.value, "pushed_at": BEFORE, "active_at": BEFORE, "ready_at": None} | values
    )


def kinds(state: State) -> list[str]:
    return [event.kind for event in state.events]


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.NOTIFIED, TaskStatus.IN_PROGRESS])
def test_an_inform_of_the_target_version_succeeds_from_every_active_state(status: TaskStatus) -> None:
    state = task(status=status.value)
    life.on_inform(state, "2.0", NOW, None)
    assert (state.status, state.progress) == ("SUCCEEDED", 100)


def test_step_100_alone_is_not_success() -> None:
    state = pushed()
    life.on_step(state, 100, "", NOW)
    assert (state.status, state.progress) == ("IN_PROGRESS", 100)


def test_progress_never_goes_back_within_an_attempt() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=70)
    life.on_step(state, 30, "", NOW)
    assert state.progress == 70


@pytest.mark.parametrize(
    ("step", "reason"),
    [(-1, "UPDATE"), (-2, "DOWNLOAD"), (-3, "VERIFICATION"), (-4, "BURN"), (-12, "UPDATE")],
)
def test_every_negative_step_fails_with_its_reason_and_the_devices_words(step: int, reason: str) -> None:
    state = pushed()
    life.on_step(state, step, "no route", NOW)
    assert (state.status, state.reason, state.detail) == ("FAILED", reason, "no route")


def test_a_failure_with_retries_left_waits_as_a_queued_row_for_its_interval() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=40, retry_interval_minutes=10, max_attempts=3)
    life.on_step(state, -2, "no route", NOW)
    assert (state.status, state.attempt, state.progress, state.pushed_at) == ("QUEUED", 2, 0, None)
    assert state.due_at == state.ready_at == NOW + timedelta(minutes=10)
    assert kinds(state) == [EventKind.RETRY]


def test_the_last_attempt_fails_for_good() -> None:
    state = pushed(attempt=3, retry_interval_minutes=0, max_attempts=3)
    life.on_step(state, -2, "", NOW)
    assert state.status == "FAILED"


def test_a_canceled_campaign_does_not_retry() -> None:
    state = pushed(retry_interval_minutes=0, max_attempts=3, may_retry=False)
    life.on_step(state, -2, "", NOW)
    assert state.status == "FAILED"


def test_a_report_of_the_previous_attempt_changes_nothing_and_is_kept() -> None:
    state = task(attempt=2, due_at=NOW + timedelta(minutes=10))
    life.on_step(state, 80, "", NOW)
    assert (state.status, state.progress, state.is_changed) == ("QUEUED", 0, False)
    assert kinds(state) == [EventKind.IGNORED]


def test_a_task_never_pushed_is_ready_as_soon_as_its_device_connects() -> None:
    state = task(ready_at=None)
    life.on_up(state, NOW)
    assert state.ready_at == NOW


def test_a_waiting_retry_does_not_go_before_its_time_when_the_device_connects() -> None:
    due = NOW + timedelta(minutes=10)
    state = task(ready_at=None, due_at=due)
    life.on_up(state, NOW)
    assert state.ready_at == due


def test_a_pushed_task_of_a_returning_device_waits_for_the_inform_or_ten_seconds() -> None:
    state = pushed()
    life.on_down(state, BEFORE + timedelta(minutes=1))
    assert (state.status, state.ready_at) == ("QUEUED", None)
    life.on_up(state, NOW)
    assert state.ready_at == NOW + timedelta(seconds=10)
    life.on_inform(state, "1.0", NOW + timedelta(seconds=1), NOW)
    assert state.ready_at == NOW + timedelta(seconds=1)


def test_a_push_is_not_repeated_within_thirty_seconds() -> None:
    state = pushed(pushed_at=NOW - timedelta(seconds=5))
    life.on_up(state, NOW)
    life.on_inform(state, "1.0", NOW + timedelta(seconds=1), NOW)
    assert state.ready_at == NOW + timedelta(seconds=25)


def test_a_device_that_goes_away_while_updating_keeps_its_task_because_it_may_be_restarting() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=100)
    life.on_down(state, NOW)
    assert (state.status, state.is_changed) == ("IN_PROGRESS", False)


def test_a_source_version_after_a_reconnect_is_pushed_again() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "1.0", NOW, connected_at=NOW - timedelta(seconds=1))
    assert (state.status, state.ready_at, state.returns) == ("QUEUED", NOW, 1)


def test_a_routine_source_report_without_a_reconnect_starts_no_second_download() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=40)
    life.on_inform(state, "1.0", NOW, connected_at=BEFORE - timedelta(hours=1))
    assert (state.status, state.active_at) == ("IN_PROGRESS", NOW)


def test_the_second_of_two_informs_after_a_connect_counts_no_second_return() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    for _ in range(2):
        life.on_inform(state, "1.0", NOW, connected_at=NOW - timedelta(seconds=1))
    assert state.returns == 1


def test_the_fourth_return_on_the_source_version_is_a_roll_back() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, returns=3)
    life.on_inform(state, "1.0", NOW, connected_at=NOW - timedelta(seconds=1))
    assert (state.status, state.reason) == ("FAILED", Reason.ROLLED_BACK)


def test_a_stray_version_fails_only_if_it_still_stands_after_its_grace() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "app-1.0.0", NOW, None)
    assert (state.status, state.stray_until) == ("IN_PROGRESS", NOW + timedelta(seconds=30))
    life.on_stray_due(state, NOW + timedelta(seconds=30), "app-1.0.0")
    assert (state.status, state.reason, state.detail) == ("FAILED", Reason.WRONG_VERSION, "app-1.0.0")


def test_a_stray_version_that_was_followed_by_the_source_is_forgiven() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "app-1.0.0", NOW, None)
    life.on_inform(state, "1.0", NOW, None)
    assert state.stray_until is None


def test_a_device_that_was_never_heard_of_takes_its_first_report_as_its_source() -> None:
    state = pushed(from_version="")
    life.on_inform(state, "1.7", NOW, None)
    assert (state.status, state.from_version, state.stray_until) == ("NOTIFIED", "1.7", None)


def test_silence_of_an_online_device_is_a_time_out_and_reserves_it() -> None:
    state = pushed()
    life.on_silence(state, NOW, is_online=True)
    assert (state.status, state.reason, state.reserve) == ("FAILED", Reason.TIMEOUT, True)


def test_silence_of_an_offline_device_only_parks_its_task() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_silence(state, NOW, is_online=False)
    assert (state.status, state.ready_at, state.reserve) == ("QUEUED", None, False)


def test_progress_that_arrives_after_the_connection_broke_keeps_the_task_from_a_second_push() -> None:
    state = pushed()
    life.on_down(state, NOW)
    life.on_step(state, 20, "", NOW)
    assert (state.status, state.progress, state.ready_at) == ("IN_PROGRESS", 20, None)


def test_the_target_version_after_a_time_out_is_shown_as_finished_late() -> None:
    state = task(status="FAILED", reason="TIMEOUT")
    life.on_version_after_end(state, "2.0", NOW)
    assert (state.status, state.is_late, kinds(state)) == ("FAILED", True, [EventKind.FINISHED_LATE])


def test_a_success_that_later_runs_its_old_version_is_shown_as_reverted() -> None:
    state = task(status="SUCCEEDED", ready_at=None)
    life.on_version_after_end(state, "1.0", NOW)
    assert (state.status, state.is_reverted) == ("SUCCEEDED", True)
    life.on_version_after_end(state, "2.0", NOW)
    assert state.is_reverted is False


def test_canceling_a_pushed_task_reserves_the_device_and_an_unpushed_one_does_not() -> None:
    waiting, updating = task(), pushed()
    life.cancel(waiting, NOW)
    life.cancel(updating, NOW)
    assert (waiting.reserve, updating.reserve) == (False, True)


def test_a_success_cannot_be_moved() -> None:
    state = task(status="SUCCEEDED")
    with pytest.raises(IllegalMoveError):
        life.cancel(state, NOW)


def test_a_connection_that_flaps_after_one_push_counts_one_return() -> None:
    state = pushed()
    for _ in range(5):
        life.on_down(state, NOW)
        life.on_up(state, NOW)
    assert (state.status, state.returns) == ("QUEUED", 1)


def test_a_task_parked_by_its_time_out_has_returned_once_when_its_device_is_back() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_silence(state, NOW, is_online=False)
    life.on_up(state, NOW)
    life.on_inform(state, "1.0", NOW, NOW)
    assert (state.status, state.returns) == ("QUEUED", 1)


def online(*, until: datetime) -> tuple[datetime, datetime]:
    return (BEFORE - timedelta(minutes=1), until)


def test_what_became_due_while_a_device_that_asks_was_online_is_due_anew_when_it_is_back() -> None:
    met, missed = task(ready_at=None), task(ready_at=None)
    life.on_heard(met, NOW, online(until=BEFORE))
    life.on_heard(missed, NOW, online(until=BEFORE - timedelta(seconds=1)))
    assert (met.due_at, met.is_changed) == (NOW, True)
    assert (missed.due_at, missed.is_changed) == (BEFORE, False)


def test_a_retry_that_is_not_due_yet_stays_so_when_the_device_is_back() -> None:
    later = NOW + timedelta(minutes=10)
    state = task(due_at=later, ready_at=later)
    life.on_heard(state, NOW, None)
    assert (state.due_at, state.ready_at) == (later, None)


def test_a_device_that_asks_and_is_back_after_it_was_given_its_update_has_returned() -> None:
    state = pushed()
    life.on_heard(state, NOW, None)
    assert (state.status, state.returns, state.ready_at) == ("QUEUED", 1, None)
    at_it = pushed(TaskStatus.IN_PROGRESS)
    life.on_heard(at_it, NOW, None)
    assert at_it.status == "IN_PROGRESS", "it may be its restart"


def test_asking_again_and_again_does_not_put_off_the_time_out() -> None:
    state = pushed()
    life.on_inform(state, "1.0", NOW, BEFORE - timedelta(hours=1), asks=True)
    assert (state.active_at, state.is_changed) == (BEFORE, False)


def test_a_stray_version_of_a_device_that_asks_is_judged_when_it_says_it_again() -> None:
    state = task(pushed_at=BEFORE, ready_at=None)
    life.on_inform(state, "app-9", NOW, BEFORE, asks=True)
    life.on_inform(state, "app-9", NOW + timedelta(seconds=29), BEFORE, asks=True)
    assert state.status == "QUEUED"
    life.on_inform(state, "app-9", NOW + timedelta(seconds=30), BEFORE, asks=True)
    assert (state.status, state.reason) == ("FAILED", Reason.WRONG_VERSION)
