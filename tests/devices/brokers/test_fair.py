"""The queue in which sources take turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.embedded.fair import FairQueue

Entry = tuple[str, int]


def filled(*sources: str) -> FairQueue[Entry]:
    queue: FairQueue[Entry] = FairQueue()
    for number, source in enumerate(sources):
        queue.push(source, (source, number))
    return queue


def test_sources_take_turns_however_much_one_of_them_has() -> None:
    queue = filled("flood", "flood", "flood", "calm", "flood", "other")
    assert [item[0] for item in queue.drain()] == ["flood", "calm", "other", "flood", "flood", "flood"]


def test_a_source_that_is_held_waits_and_the_others_do_not() -> None:
    queue = filled("a", "b", "a")
    queue.hold("a")
    queue.push("a", ("a", 3))
    assert [queue.pop(), queue.pop(), len(queue)] == [("b", 1), None, 3]
    queue.release("a")
    assert queue.drain() == [("a", 0), ("a", 2), ("a", 3)]


def test_a_barrier_waits_for_what_is_held_before_it() -> None:
    queue = filled("a")
    queue.hold("a")
    queue.push_barrier(("", 9))
    queue.push("b", ("b", 1))
    assert queue.pop() is None
    queue.release("a")
    assert queue.drain() == [("a", 0), ("", 9), ("b", 1)]


@given(st.lists(st.tuples(st.sampled_from("abc|"), st.booleans()), max_size=60))
def test_nothing_is_lost_and_each_sources_order_and_each_barrier_stands(
    steps: list[tuple[str, bool]],
) -> None:
    queue: FairQueue[Entry] = FairQueue()
    out: list[Entry] = []
    for number, (source, takes) in enumerate(steps):
        if source == "|":
            queue.push_barrier((source, number))
        else:
            queue.push(source, (source, number))
            if number % 3 == 0:
                queue.hold(source)
            elif number % 5 == 0:
                queue.release(source)
        if takes and (item := queue.pop()) is not None:
            out.append(item)
        assert len(queue) + len(out) == number + 1
    out += queue.drain()
    assert sorted(out, key=lambda item: item[1]) == [(source, n) for n, (source, _) in enumerate(steps)]
    for source in "abc":
        assert [n for name, n in out if name in (source, "|")] == sorted(
            n for name, n in out if name in (source, "|")
        )
