"""How an attempt ends, what a new one starts from, and what is seen of a task after its end."""

import pytest

from campaigns import life
from campaigns.states import EventKind, Reason, TaskStatus
from tests.campaigns.test_life import BEFORE, NOW, SECOND, kinds, pushed, task

# ---- attempts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_exactly_these_reasons_are_tried_again(reason: Reason) -> None:
    retried = {"UPDATE", "DOWNLOAD", "VERIFICATION", "BURN", "WRONG_VERSION", "ROLLED_BACK", "TIMEOUT"}
    state = pushed(retry_interval_minutes=0, max_attempts=2)
    life.fail(state, NOW, reason)
    assert state.status == ("QUEUED" if reason.value in retried else "FAILED")


def test_spacing_holds_across_attempts() -> None:
    state = pushed(pushed_at=NOW - 15 * SECOND, retry_interval_minutes=0, max_attempts=2)
    life.fail(state, NOW, Reason.ROLLED_BACK)
    assert state.due_at == state.ready_at == NOW + 15 * SECOND
    over = pushed(TaskStatus.FAILED, pushed_at=NOW - 15 * SECOND)
    life.again(over, NOW)
    assert over.due_at == over.ready_at == NOW + 15 * SECOND


COUNTED: dict[str, object] = {
    "progress": 60,
    "returns": 2,
    "pushes": 4,
    "stepless": 3,
    "last_step": 60,
    "stepped_at": BEFORE,
    "has_returned": True,
    "acknowledged_at": BEFORE,
    "stray_until": NOW,
}


def test_a_new_attempt_starts_from_nothing() -> None:
    fresh = dict.fromkeys(COUNTED, None) | dict.fromkeys(("progress", "returns", "pushes", "stepless"), 0)
    fresh |= {"has_returned": False, "pushed_at": None}
    state = pushed(retry_interval_minutes=0, max_attempts=2, **COUNTED)
    life.fail(state, NOW, Reason.TIMEOUT)
    assert {name: getattr(state, name) for name in fresh} == fresh
    over = pushed(
        TaskStatus.FAILED, attempt=3, reason="BURN", detail="x", is_late=True, is_reverted=True, **COUNTED
    )
    life.again(over, NOW)
    assert {name: getattr(over, name) for name in fresh} == fresh
    assert (over.attempt, over.reason, over.detail, over.active_at) == (1, "", "", None)
    assert (over.is_late, over.is_reverted) == (False, False)


# ---- after the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["TIMEOUT", "ROLLED_BACK", "WRONG_VERSION", "DOWNLOAD", "UPDATE"])
def test_the_target_version_after_any_failure_is_shown_as_finished_late_once(reason: str) -> None:
    state = pushed(TaskStatus.FAILED, reason=reason)
    for _ in range(2):
        life.on_version_after_end(state, "2.0", NOW)
        assert (state.status, state.is_late, kinds(state)) == ("FAILED", True, [EventKind.FINISHED_LATE])


def test_a_failure_that_runs_another_version_is_neither_late_nor_reverted() -> None:
    state = pushed(TaskStatus.FAILED, reason="TIMEOUT")
    life.on_version_after_end(state, "1.0", NOW)
    assert (state.is_late, state.stray_until, state.is_changed) == (False, None, False)


@pytest.mark.parametrize("values", [{"status": "SUCCEEDED"}, {"status": "FAILED", "is_late": True}])
@pytest.mark.parametrize("version", ["1.0", "0.7-factory"])
def test_a_success_that_then_runs_any_other_version_is_reverted_once_that_stood(
    values: dict[str, object], version: str
) -> None:
    state = task(ready_at=None, **values)
    life.on_version_after_end(state, version, NOW)
    assert (state.is_reverted, state.stray_until) == (False, NOW + 30 * SECOND)
    life.on_judgement(state, NOW + 30 * SECOND, version, NOW + SECOND)
    assert (state.is_reverted, state.stray_until) == (False, NOW + 31 * SECOND)
    life.on_judgement(state, NOW + 31 * SECOND, version, NOW + SECOND)
    assert (state.status, state.is_reverted, state.stray_until) == (values["status"], True, None)
    assert kinds(state) == [EventKind.REVERTED]
    life.on_version_after_end(state, "2.0", NOW)
    assert state.is_reverted is False


def test_a_success_that_is_followed_by_its_own_version_or_an_asked_one_is_not_reverted() -> None:
    state = task(status="SUCCEEDED", ready_at=None, stray_until=NOW)
    life.on_judgement(state, NOW, "2.0", BEFORE)
    assert (state.is_reverted, state.stray_until) == (False, None)
    life.on_judgement(state, NOW, "3.0", BEFORE, was_asked=True)
    assert state.is_reverted is False
    life.on_version_after_end(state, "1.0", NOW)
    life.on_version_after_end(state, "2.0", NOW + SECOND)
    assert state.stray_until is None


def test_a_failure_of_a_canceled_batch_ends_it() -> None:
    state = pushed(TaskStatus.IN_PROGRESS, may_retry=False, retry_interval_minutes=0, max_attempts=6)
    life.on_step(state, -1, "no", NOW)
    assert (state.status, state.ready_at) == ("FAILED", None)
