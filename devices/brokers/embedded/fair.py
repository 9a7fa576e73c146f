"""A queue that many fill and one empties, in which nobody waits behind another's flood."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Barrier(Generic[Item]):
    item: Item


class FairQueue(Generic[Item]):
    """One lane for each source, served in turn; the order within a lane is kept.

    A barrier comes behind all that was there before it, and before all that comes later, of any source.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[Item]] = OrderedDict()
        self._held: dict[str, deque[Item]] = {}  # lanes of sources that are not served now
        self._not_served: set[str] = set()
        self._later: deque[tuple[str, Item] | _Barrier[Item]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, source: str, item: Item) -> None:
        self._count += 1
        if self._later:
            self._later.append((source, item))
        else:
            self._enqueue(source, item)

    def push_barrier(self, item: Item) -> None:
        self._count += 1
        self._later.append(_Barrier(item))

    def pop(self) -> Item | None:
        """The next one, or None: nothing is there, or only sources that are not served now."""
        if self._lanes:
            source, lane = next(iter(self._lanes.items()))
            item = lane.popleft()
            if lane:
                self._lanes.move_to_end(source)
            else:
                del self._lanes[source]
        elif not self._held and self._later:
            first = self._later.popleft()
            assert isinstance(first, _Barrier), "what is behind no barrier stands in its lane"
            item = first.item
            while self._later and not isinstance(self._later[0], _Barrier):
                source, following = self._take_following()
                self._enqueue(source, following)
        else:
            return None
        self._count -= 1
        return item

    def hold(self, source: str) -> None:
        """Do not serve this source until `release`."""
        self._not_served.add(source)
        if (lane := self._lanes.pop(source, None)) is not None:
            self._held[source] = lane

    def release(self, source: str) -> None:
        self._not_served.discard(source)
        if (lane := self._held.pop(source, None)) is not None:
            self._lanes[source] = lane

    def drain(self) -> list[Item]:
        """Everything, whoever is served; the queue is empty then."""
        for source in list(self._not_served):
            self.release(source)
        drained = []
        while (item := self.pop()) is not None:
            drained.append(item)
        return drained

    def _take_following(self) -> tuple[str, Item]:
        following = self._later.popleft()
        assert not isinstance(following, _Barrier)
        return following

    def _enqueue(self, source: str, item: Item) -> None:
        lane = self._held.get(source) if source in self._not_served else self._lanes.get(source)
        if lane is None:
            lane = deque()
            (self._held if source in self._not_served else self._lanes)[source] = lane
        lane.append(item)
