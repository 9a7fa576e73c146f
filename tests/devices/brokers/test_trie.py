from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.embedded.trie import TopicTrie

levels = st.sampled_from(["", "a", "b", "$s"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join)
filters = st.builds(
    lambda path, tail: "/".join([*path, *tail]),
    st.lists(levels | st.just("+"), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
) | st.just("#")
subscriptions = st.dictionaries(st.tuples(filters, st.integers(0, 3)), st.integers(0, 1), max_size=12)


def matches(topic_filter: str, topic: str) -> bool:
    """The specification's rule (MQTT 3.1.1, 4.7), written for one filter."""
    wanted, given_levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        given_levels = given_levels[: len(wanted)]
    return len(wanted) == len(given_levels) and all(
        want in ("+", level) for want, level in zip(wanted, given_levels, strict=True)
    )


def grown(entries: dict[tuple[str, int], int]) -> TopicTrie[int]:
    trie: TopicTrie[int] = TopicTrie()
    for (topic_filter, subscriber), qos in entries.items():
        trie.add(topic_filter, subscriber, qos)
    return trie


@given(subscriptions, topics)
def test_a_match_finds_each_subscriber_once_with_its_highest_qos(
    entries: dict[tuple[str, int], int], topic: str
) -> None:
    expected: dict[int, int] = {}
    for (topic_filter, subscriber), qos in entries.items():
        if matches(topic_filter, topic):
            expected[subscriber] = max(qos, expected.get(subscriber, 0))
    assert grown(entries).match(topic) == expected


@given(subscriptions, subscriptions, topics)
def test_removing_leaves_the_rest_and_in_the_end_nothing(
    kept: dict[tuple[str, int], int], removed: dict[tuple[str, int], int], topic: str
) -> None:
    trie = grown({**removed, **kept})
    for topic_filter, subscriber in removed.keys() - kept.keys():
        trie.remove(topic_filter, subscriber)
    assert trie.match(topic) == grown(kept).match(topic)
    for topic_filter, subscriber in kept:
        trie.remove(topic_filter, subscriber)
        trie.remove(topic_filter, subscriber)
    assert not trie
