"""Topic filters with wildcards, kept as a tree so that a match costs by depth and not by subscriptions."""

from __future__ import annotations

from typing import Generic, TypeVar

Subscriber = TypeVar("Subscriber")


class _Node(Generic[Subscriber]):
    __slots__ = ("children", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber]] = {}
        self.subscribers: dict[Subscriber, int] = {}


class TopicTrie(Generic[Subscriber]):
    """Filter -> subscribers with their QoS. Filters are taken as valid."""

    def __init__(self) -> None:
        self._root: _Node[Subscriber] = _Node()

    def add(self, topic_filter: str, subscriber: Subscriber, qos: int) -> None:
        """Adding again replaces the QoS."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.subscribers[subscriber] = qos

    def remove(self, topic_filter: str, subscriber: Subscriber) -> None:
        """Does nothing if there is no such subscription."""
        path = [(self._root, "")]
        for level in topic_filter.split("/"):
            child = path[-1][0].children.get(level)
            if child is None:
                return
            path.append((child, level))
        path[-1][0].subscribers.pop(subscriber, None)
        for (parent, _), (node, level) in zip(path[-2::-1], path[:0:-1], strict=True):
            if node.children or node.subscribers:
                return
            del parent.children[level]

    def match(self, topic: str) -> dict[Subscriber, int]:
        """Who gets a message on `topic`, each once, with the highest QoS of its matching filters.

        A filter that begins with a wildcard does not match topics that begin with `$` (MQTT 3.1.1, 4.7.2).
        """
        found: dict[Subscriber, int] = {}
        nodes = [self._root]
        wildcards = not topic.startswith("$")
        for level in topic.split("/"):
            reached = []
            for node in nodes:
                if (child := node.children.get(level)) is not None:
                    reached.append(child)
                if wildcards:
                    if (child := node.children.get("+")) is not None:
                        reached.append(child)
                    if (child := node.children.get("#")) is not None:
                        _merge(found, child.subscribers)
            nodes, wildcards = reached, True
        for node in nodes:
            _merge(found, node.subscribers)
            if (child := node.children.get("#")) is not None:  # "a/#" covers "a" itself
                _merge(found, child.subscribers)
        return found

    def __bool__(self) -> bool:
        return bool(self._root.children)


def _merge(found: dict[Subscriber, int], more: dict[Subscriber, int]) -> None:
    for subscriber, qos in more.items():
        found[subscriber] = max(qos, found.get(subscriber, 0))
