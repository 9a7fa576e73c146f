"""The reports of each device that the gateway has not acknowledged yet, and how many there may be."""

from __future__ import annotations

from collections import Counter


class Waiting:
    """`most` reports of one device, and `most_bytes` of them; the last one may reach beyond."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._reports: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def has_any(self, device: str) -> bool:
        return device in self._reports

    def has_room(self, device: str) -> bool:
        return self._reports[device] < self._most and self._bytes[device] < self._most_bytes

    def add(self, device: str, size: int) -> None:
        self._reports[device] += 1
        self._bytes[device] += size

    def remove(self, device: str, size: int) -> None:
        self._reports[device] -= 1
        self._bytes[device] -= size
        if not self._reports[device]:
            del self._reports[device], self._bytes[device]
