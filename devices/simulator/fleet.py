"""Many simulated devices in one event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devices.simulator.behaviour import STEPS, Behaviour, Fault
from devices.simulator.device import SimulatedDevice, Surroundings
from devices.simulator.sdks import DeviceKeys
from devices.simulator.state import VersionStore

logger = logging.getLogger(__name__)

_SAVE_EVERY = 2.0
_STOP_TIME = 5.0


class Fleet:
    """The devices of `keys`. `run` belongs to an event loop; everything else may be called from any thread.

    `say` is given a line of statistics every `say_every` seconds, unless nothing has changed.
    """

    def __init__(
        self,
        keys: Iterable[DeviceKeys],
        surroundings: Surroundings | None = None,
        behaviour: Behaviour | None = None,
        *,
        seed: int | None = None,
        say: Callable[[str], None] | None = None,
        say_every: float = 30,
    ) -> None:
        self._around = surroundings or Surroundings()
        self._around.changed = self._notify
        self._news = threading.Condition()
        self._say, self._say_every = say, say_every
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopped = False
        self.devices = [SimulatedDevice(each, self._around, behaviour, seed=seed) for each in keys]

    def __getitem__(self, device_name: str) -> SimulatedDevice:
        for device in self.devices:
            if device.keys.device_name == device_name:
                return device
        raise KeyError(device_name)

    async def run(self) -> None:
        """Until `stop`, or until every device has ended. Raises OSError if versions cannot be kept."""
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            return
        lives = [self._loop.create_task(self._live(device)) for device in self.devices]
        chores = [self._loop.create_task(chore) for chore in (self._keep_saving(), self._keep_saying())]
        stop = self._loop.create_task(self._stopping.wait())
        ends = self._loop.create_task(asyncio.wait(lives)) if lives else stop
        try:
            await asyncio.wait([stop, ends, *chores], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*lives, *chores, stop):
                task.cancel()
            await asyncio.gather(*lives, stop, ends, return_exceptions=True)
            self._around.store.save()
        for result in await asyncio.gather(*chores, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def stop(self) -> None:
        """Let `run` end: all devices say good-bye. May be called before `run`, and again."""
        self._is_stopped = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def counters(self) -> Counter[str]:
        """The sum of the devices' counters."""
        total: Counter[str] = Counter()
        for device in self.devices:
            total.update(dict(device.counters))
        return total

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Block until `condition()` is true; it is asked at every piece of news. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                if not self._news.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise TimeoutError(f"it did not come to that: {self.status()}")

    def status(self) -> str:
        """One line for a person."""
        counters = self.counters()
        online = sum(device.is_online for device in self.devices)
        updating = sum(device.is_updating for device in self.devices)
        failed = sum(counters[fault] for fault in STEPS)
        line = (
            f"{online} of {len(self.devices)} devices online, {updating} updating; "
            f"{counters['installed']} updates installed, {failed} failed"
        )
        others = {
            "rolled back": counters[Fault.ROLLBACK],
            "crashed": counters[Fault.CRASH],
            "silent": counters[Fault.SILENT],
            "duplicate pushes": counters["duplicate_pushes"],
            "unreadable pushes": counters["ignored_pushes"],
            "refused connections": counters["refusals"],
        }
        return line + "".join(f", {count} {name}" for name, count in others.items() if count)

    async def _live(self, device: SimulatedDevice) -> None:
        try:
            await device.run()
        except Exception:
            logger.exception("%s has ended", device.keys)

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            self._around.store.save()

    async def _keep_saying(self) -> None:
        said = ""
        while self._say is not None:
            await asyncio.sleep(self._say_every)
            if (status := self.status()) != said:
                self._say(status)
                said = status
        await self._stopping.wait()

    def _notify(self) -> None:
        with self._news:
            self._news.notify_all()


@contextmanager
def running_fleet(
    keys: Iterable[DeviceKeys],
    port: int,
    behaviour: Behaviour | None = None,
    *,
    host: str = "127.0.0.1",
    seed: int | None = 0,
    state_file: Path | None = None,
) -> Iterator[Fleet]:
    """A fleet in a thread of its own, stopped on leaving the context."""
    around = Surroundings(host=host, port=port, store=VersionStore(state_file))
    fleet = Fleet(keys, around, behaviour, seed=seed)
    thread = threading.Thread(target=lambda: asyncio.run(fleet.run()), name="simulated-fleet", daemon=True)
    thread.start()
    try:
        yield fleet
    finally:
        fleet.stop()
        thread.join(_STOP_TIME)
        if thread.is_alive():
            raise RuntimeError("the simulated fleet does not stop")
