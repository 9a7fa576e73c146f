from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.contract import INTERNAL, Identity, PresenceEvent, PresenceSnapshot

names = st.text("abcXYZ019_.:@-", min_size=1, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    PresenceEvent, names, names, st.booleans(), texts, texts, st.integers(0, 2**45), texts, texts
)
snapshots = st.builds(
    PresenceSnapshot,
    texts,
    texts,
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 2**45),
    st.lists(st.tuples(names, names, texts)).map(tuple),
)


@given(events)
def test_a_presence_event_survives_the_wire(event: PresenceEvent) -> None:
    assert PresenceEvent.from_json(event.topic, event.to_json()) == event


@given(snapshots)
def test_a_presence_snapshot_survives_the_wire(snapshot: PresenceSnapshot) -> None:
    assert PresenceSnapshot.from_json(snapshot.to_json()) == snapshot


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"event":"sleeping"}',
        b'{"event":"connected"}',
        b'{"connected":1}',
    ],
)
def test_other_bytes_are_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        PresenceEvent.from_json("$ota/presence/pk/dn", payload)
    with pytest.raises(ValueError):
        PresenceSnapshot.from_json(payload)


@pytest.mark.parametrize(("pk", "dn"), [("", "dn"), ("pk", ""), ("a/b", "dn"), ("pk", "+"), ("pk", "d#")])
def test_a_device_whose_name_would_break_out_of_its_topics_is_no_identity(pk: str, dn: str) -> None:
    with pytest.raises(ValueError):
        Identity(pk, dn)


def test_the_platform_itself_needs_no_device_name() -> None:
    assert INTERNAL.is_internal
