"""The life of one task, decision by decision."""

from datetime import UTC, datetime, timedelta

import pytest

from campaigns import life
from campaigns.life import State
from campaigns.states import EventKind, IllegalMoveError, Reason, TaskStatus

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BEFORE = NOW - timedelta(minutes=5)
# A connection after the push, which is made BEFORE.
LATER = NOW - SECOND


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


def test_a_device_that_goes_away_while_updating_keeps_its_task_because_it_may_be_restarting() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=100)
    life.on_down(state, NOW)
    assert (state.status, state.is_changed) == ("IN_PROGRESS", False)


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


def test_canceling_a_pushed_task_reserves_the_device_and_an_unpushed_one_does_not() -> None:
    waiting, updating = task(), pushed()
    life.cancel(waiting, NOW)
    life.cancel(updating, NOW)
    assert (waiting.reserve, updating.reserve) == (False, True)


def test_a_success_cannot_be_moved() -> None:
    state = task(status="SUCCEEDED")
    with pytest.raises(IllegalMoveError):
        life.cancel(state, NOW)


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


def test_a_device_that_asks_and_is_back_after_it_was_given_its_update_is_given_it_again() -> None:
    state = pushed()
    life.on_heard(state, NOW, None)
    assert (state.status, state.returns, state.ready_at) == ("QUEUED", 0, None)
    at_it = pushed(TaskStatus.IN_PROGRESS)
    life.on_heard(at_it, NOW, None)
    assert (at_it.status, at_it.ready_at) == ("IN_PROGRESS", NOW + 30 * SECOND), "it may be its restart"


# ---- a version that settles --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [TaskStatus.NOTIFIED, TaskStatus.QUEUED, TaskStatus.IN_PROGRESS])
def test_the_target_of_a_pushed_task_counts_at_once(status: TaskStatus) -> None:
    state = pushed(status)
    life.on_inform(state, "2.0", NOW, None, is_settled=False)
    assert (state.status, state.progress) == ("SUCCEEDED", 100)


def test_the_target_counts_at_once_for_a_retry_that_waits_because_an_earlier_attempt_was_pushed() -> None:
    state = task(attempt=2)
    life.on_inform(state, "2.0", NOW, None, is_settled=False)
    assert state.status == "SUCCEEDED"


def test_the_target_of_a_task_never_pushed_must_stand_for_ten_seconds() -> None:
    state = task()
    life.on_inform(state, "2.0", NOW, None, is_settled=False)
    assert (state.status, state.stray_until) == ("QUEUED", NOW + 10 * SECOND)
    life.on_judgement(state, NOW + 9 * SECOND, "2.0", NOW)
    assert (state.status, state.stray_until) == ("QUEUED", NOW + 10 * SECOND)
    life.on_judgement(state, NOW + 10 * SECOND, "2.0", NOW)
    assert state.status == "SUCCEEDED"


def test_a_target_that_another_version_followed_at_once_is_no_success() -> None:
    state = task()
    life.on_inform(state, "2.0", NOW, None, is_settled=False)
    life.on_inform(state, "1.0", NOW + SECOND, None)
    assert (state.status, state.stray_until) == ("QUEUED", None)


def test_on_the_connection_of_the_push_whatever_is_reported_is_the_source() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, progress=40)
    for version in ("hal-1", "1.1"):
        life.on_inform(state, version, NOW, connected_at=BEFORE)
        assert (state.status, state.from_version, state.stray_until) == ("IN_PROGRESS", version, None)
    assert state.returns == 0


def test_a_version_seen_before_the_push_is_a_source_on_a_later_connection() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "hal-1", NOW, LATER, was_seen=True, is_settled=False)
    assert (state.stray_until, state.returns) == (None, 0)


def test_a_version_that_is_neither_is_judged_when_it_stood_for_thirty_seconds() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "app-9", NOW, LATER)
    assert (state.status, state.stray_until) == ("IN_PROGRESS", NOW + 30 * SECOND)
    assert kinds(state) == [EventKind.STRAY_VERSION]
    life.on_judgement(state, NOW + 30 * SECOND, "app-9", NOW + SECOND)
    assert (state.status, state.stray_until) == ("IN_PROGRESS", NOW + 31 * SECOND)
    life.on_judgement(state, NOW + 31 * SECOND, "app-9", NOW + SECOND)
    assert (state.status, state.reason, state.detail) == ("FAILED", Reason.WRONG_VERSION, "app-9")


@pytest.mark.parametrize("version", ["1.0", None])
def test_a_judgement_that_finds_the_source_or_nothing_only_ends(version: str | None) -> None:
    state = pushed(TaskStatus.IN_PROGRESS, stray_until=NOW)
    life.on_judgement(state, NOW, version, BEFORE)
    assert (state.status, state.stray_until) == ("IN_PROGRESS", None)


def test_a_stray_version_that_was_followed_by_the_source_is_forgiven() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_inform(state, "app-9", NOW, LATER)
    life.on_inform(state, "1.0", NOW, LATER)
    assert state.stray_until is None


def test_a_step_clears_a_pending_judgement() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, stray_until=NOW, last_step=20)
    life.on_step(state, 20, "", NOW)
    assert (state.stray_until, state.is_changed) == (None, True)


# ---- connections -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.NOTIFIED, TaskStatus.IN_PROGRESS])
def test_a_pushed_task_of_a_returning_device_waits_thirty_seconds_for_a_word(status: TaskStatus) -> None:
    state = pushed(status)
    life.on_up(state, NOW)
    assert state.ready_at == NOW + 30 * SECOND
    assert state.status == ("IN_PROGRESS" if status == TaskStatus.IN_PROGRESS else "QUEUED")


def test_a_push_is_not_repeated_within_thirty_seconds() -> None:
    state = pushed(pushed_at=NOW)
    life.on_unacknowledged(state, NOW + 5 * SECOND)
    assert state.ready_at == NOW + 30 * SECOND


def test_a_source_inform_neither_hurries_the_second_push_nor_puts_it_off() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=55, stepped_at=BEFORE)
    life.on_up(state, LATER)
    life.on_inform(state, "1.0", NOW, LATER)
    assert (state.status, state.ready_at, state.returns) == ("IN_PROGRESS", LATER + 30 * SECOND, 0)


def test_a_step_after_a_reconnect_means_that_the_update_goes_on() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=55, stepped_at=BEFORE)
    life.on_up(state, LATER)
    life.on_step(state, 56, "", NOW)
    assert (state.status, state.ready_at) == ("IN_PROGRESS", None)


def test_a_device_that_gave_no_word_is_pushed_to_again_and_a_lost_connection_never_counts() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=55, stepped_at=BEFORE, progress=55)
    for _ in range(20):
        life.on_up(state, LATER)
        life.on_word_missing(state, NOW + 30 * SECOND, LATER)
        assert (state.status, state.returns, state.ready_at) == ("QUEUED", 0, NOW + 30 * SECOND)
        state.status = TaskStatus.IN_PROGRESS.value


def test_a_device_that_goes_away_while_it_is_waited_for_is_waited_for_no_longer() -> None:
    state = pushed(TaskStatus.IN_PROGRESS)
    life.on_up(state, NOW)
    life.on_down(state, NOW)
    assert (state.status, state.ready_at) == ("IN_PROGRESS", None)


def test_a_later_connection_that_nobody_told_of_is_seen_by_its_inform() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=55, stepped_at=BEFORE)
    life.on_inform(state, "1.0", NOW, LATER)
    assert (state.status, state.ready_at) == ("IN_PROGRESS", LATER + 30 * SECOND)


# ---- fallbacks ---------------------------------------------------------------------------------------


def test_a_source_inform_on_a_later_connection_without_a_step_in_between_is_a_fallback() -> None:
    state = pushed()
    life.on_inform(state, "1.0", NOW, LATER, is_settled=False)
    assert state.returns == 0, "it has not settled"
    for _ in range(3):
        life.on_inform(state, "1.0", NOW, LATER)
        assert state.returns == 1, "one push counts once"


def test_a_source_inform_after_a_step_below_the_burn_is_none() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=99, stepped_at=BEFORE)
    life.on_up(state, LATER)
    life.on_inform(state, "1.0", NOW, LATER)
    life.on_word_missing(state, NOW + 30 * SECOND, LATER)
    assert state.returns == 0


@pytest.mark.parametrize(
    ("connected_at", "stepped_at", "is_settling", "returns"),
    [
        (LATER, BEFORE, False, 1),
        (LATER, BEFORE, True, 0),
        (LATER, NOW, False, 0),  # the last step came after the restart
        (BEFORE, BEFORE, False, 0),  # no restart
    ],
)
def test_a_restart_that_followed_the_burn_and_brought_no_new_version_is_a_fallback(
    connected_at: datetime, stepped_at: datetime, is_settling: bool, returns: int
) -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=100, stepped_at=stepped_at)
    life.on_word_missing(state, NOW, connected_at, is_settling=is_settling)
    assert (state.status, state.returns) == ("QUEUED", returns)


def test_a_restart_after_the_burn_counts_though_the_task_was_parked_meanwhile() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, last_step=100, stepped_at=BEFORE)
    life.on_silence(state, LATER, is_online=False)
    life.on_up(state, NOW)
    life.on_inform(state, "1.0", NOW, NOW)
    assert (state.status, state.returns) == ("QUEUED", 1)


def test_what_breaks_because_the_broker_starts_anew_is_no_fallback() -> None:
    silent, burnt = pushed(), pushed(TaskStatus.IN_PROGRESS, last_step=100, stepped_at=BEFORE)
    for state in (silent, burnt):
        life.on_up(state, LATER, is_ours=True)
        life.on_inform(state, "1.0", NOW, LATER)
    life.on_word_missing(burnt, NOW + 30 * SECOND, LATER)
    assert (silent.returns, burnt.returns) == (0, 0)


@pytest.mark.parametrize(("before", "status"), [(2, "QUEUED"), (3, "FAILED")])
def test_the_third_fallback_is_answered_and_the_fourth_ends_the_attempt(before: int, status: str) -> None:
    state = pushed(returns=before)
    life.on_inform(state, "1.0", NOW, LATER)
    assert (state.status, state.returns) == (status, before + 1)
    burnt = pushed(TaskStatus.IN_PROGRESS, returns=before, last_step=100, stepped_at=BEFORE)
    life.on_word_missing(burnt, NOW, LATER)
    assert (burnt.status, burnt.returns) == (status, before + 1)
    if status == "FAILED":
        assert (state.reason, burnt.reason) == (Reason.ROLLED_BACK, Reason.ROLLED_BACK)


@pytest.mark.parametrize(
    ("pushes", "stepless", "status"), [(10, 3, "FAILED"), (10, 2, "QUEUED"), (9, 9, "QUEUED")]
)
def test_ten_pushes_without_a_step_between_the_last_three_end_the_attempt(
    pushes: int, stepless: int, status: str
) -> None:
    state = pushed(pushes=pushes, stepless=stepless)
    life.on_down(state, NOW)
    assert state.status == "QUEUED", "offline: nothing is decided yet"
    life.on_up(state, NOW)
    assert state.status == status
    if status == "FAILED":
        assert (state.reason, state.reserve) == (Reason.TIMEOUT, True)


def test_a_push_that_the_broker_never_took_is_none_that_the_device_ignored() -> None:
    state = pushed(pushes=10, stepless=3)
    life.on_unacknowledged(state, NOW)
    assert (state.status, state.pushes, state.stepless) == ("QUEUED", 9, 2)


def test_another_push_forgets_what_came_of_the_one_before() -> None:
    state = pushed(last_step=100, has_returned=True, pushes=1, stepless=0)
    life.note_push(state, NOW)
    assert (state.last_step, state.has_returned) == (None, False)
    assert (state.pushes, state.stepless, state.active_at) == (2, 1, NOW)


# ---- what puts off the time-out ----------------------------------------------------------------------


def test_only_a_step_that_grows_puts_off_the_time_out() -> None:
    state = pushed()
    life.on_step(state, 0, "", NOW)
    assert (state.active_at, state.last_step) == (NOW, 0)
    life.on_step(state, 0, "", NOW + SECOND)
    assert (state.active_at, state.stepped_at) == (NOW, NOW + SECOND)
    life.on_step(state, 1, "", NOW + 2 * SECOND)
    assert (state.active_at, state.last_step) == (NOW + 2 * SECOND, 1)


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("connected_at", [BEFORE, LATER])
def test_an_inform_never_puts_off_the_time_out(connected_at: datetime, asks: bool) -> None:
    state = pushed()
    life.on_inform(state, "1.0", NOW, connected_at, asks=asks)
    assert state.active_at == BEFORE
