"""One simulated device: connects, reports what it runs, and carries out the updates it is pushed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from ssl import SSLContext

from devices import topics
from devices.brokers.embedded.codec import ConnectCode, MalformedPacket, Publish
from devices.simulator.behaviour import STEPS, Behaviour, Fault
from devices.simulator.download import Downloader, DownloadFailed
from devices.simulator.link import Link, Refused
from devices.simulator.package import DEFAULT_MODULE, Check, Package, read_push
from devices.simulator.sdks import DeviceKeys
from devices.simulator.state import VersionStore

GIVE_UP_AFTER = 8  # refusals of the credentials in a row
STRAY_VERSION = "app-1.0.0-20180101.1000"  # iotkit-embedded's Linux sample
_FIRST_BACK_OFF = 1.0
_MARKS = 8  # progress reports of a download
_DOWNLOAD_SHARE, _VERIFY_SHARE, _BURN_SHARE = 0.7, 0.1, 0.2  # of the time an update takes
_DOWNLOADED, _VERIFYING, _WRITING = 85, 90, 95  # percent

_COMPLAINTS = {
    Fault.DOWNLOAD: "connection reset while downloading",
    Fault.VERIFICATION: "the image in flash differs from the one sent",
    Fault.BURN: "flash write error at block 17",
    Fault.UPDATE: "battery too low to update",
}


@dataclass(slots=True)
class Surroundings:
    """What the devices of a fleet share. `changed` is called at every piece of news."""

    host: str = "127.0.0.1"
    port: int = 1883
    mqtt_tls: SSLContext | None = None
    http_tls: SSLContext | None = None
    store: VersionStore = field(default_factory=VersionStore)
    downloads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(200))
    connects_per_second: float = 50
    changed: Callable[[], None] = lambda: None
    _next_turn: float = 0.0

    async def turn(self) -> None:
        """Wait for a device's turn to connect."""
        now = asyncio.get_running_loop().time()
        at = self._next_turn = max(now, self._next_turn + 1 / self.connects_per_second)
        await asyncio.sleep(at - now)


class StepFailed(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """An update ends with this fault, reported in the device's own words."""

    def __init__(self, fault: Fault, words: str) -> None:
        super().__init__(words)
        self.fault = fault


class PowerLost(Exception):  # noqa: N818
    """The device vanishes in the middle of an update."""


class SimulatedDevice:
    """`await run()` lives the device's life until cancelled, refused for good, or past `Behaviour.linger`.

    `versions` is what it runs, by module. `counters`: connects, refusals, lost (connections it did not end),
    informs, pushes, duplicate_pushes (of the version it is just installing; not started again),
    ignored_pushes (unreadable for its SDK), updates (begun), installed, downloaded (bytes), and for each
    `Fault` how often an update ended by it.
    """

    def __init__(
        self,
        keys: DeviceKeys,
        surroundings: Surroundings | None = None,
        behaviour: Behaviour | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        self.keys = keys
        self.around = surroundings or Surroundings()
        self.behaviour = behaviour or Behaviour()
        identity = f"{keys.product_key}/{keys.device_name}"
        # Which SDK and which first version depend on the name, so a device stays what it is from run to run.
        nature = random.Random(f"{seed or 0}/{identity}")  # noqa: S311 - a simulation
        self._chance = random.Random(None if seed is None else f"{seed}/{identity}/life")  # noqa: S311
        # A stream of its own, so that the fate of the n-th update does not depend on the network.
        self._fate = random.Random(None if seed is None else f"{seed}/{identity}/fate")  # noqa: S311
        self.sdk = nature.choice(self.behaviour.sdks)
        self.versions = {DEFAULT_MODULE: self.behaviour.versions.draw(nature)}
        self.versions |= {module: mix.draw(nature) for module, mix in self.behaviour.modules.items()}
        self.versions |= self.around.store.get(keys.product_key, keys.device_name)
        self.counters: Counter[str] = Counter()
        self.has_ended = False
        self._link: Link | None = None
        self._update: asyncio.Task[None] | None = None
        self._installing: tuple[str, str] | None = None  # module and version
        self._silent_about: tuple[str, str] | None = None
        self._next: Package | None = None
        self._away_for: float | None = None  # it ended the connection itself, and comes back after this
        self._is_done = False
        self._message_id = 0

    @property
    def is_online(self) -> bool:
        return self._link is not None

    @property
    def is_updating(self) -> bool:
        return self._update is not None

    def push(self, payload: bytes) -> None:
        """Take a push as if it had come over the connection."""
        package = read_push(payload, self.sdk.reads_md5_only)
        if package is None:
            self._count("ignored_pushes")
            return
        self._count("pushes")
        named = (package.module, package.version)
        if self._update is not None:
            if named == self._installing:
                self._count("duplicate_pushes")
            else:
                self._next = package
        elif self.versions.get(package.module) == package.version:
            self._inform(package.module)
        elif named != self._silent_about:
            self._begin(package)

    async def run(self) -> None:
        try:
            if self._chance.random() < self.behaviour.offline:
                await self._pause(self.behaviour.draw_away(self._chance))
            refusals = attempts = 0
            while refusals < GIVE_UP_AFTER and not self._is_done:
                try:
                    await self._stay(await self._connect())
                    refusals = attempts = 0
                    if self._away_for is None and not self._is_done:
                        self._count("lost")
                except Refused as refused:
                    self._count("refusals")
                    refusals = refusals + 1 if refused.code is ConnectCode.BAD_CREDENTIALS else 0
                except (OSError, MalformedPacket):
                    pass
                if not self._is_done:
                    await self._pause_before_return(attempts)
                    attempts += 1
        finally:
            await self._end()

    # ---- connection ---------------------------------------------------------------------------------

    async def _connect(self) -> Link:
        around = self.around
        await around.turn()
        connect = self.sdk.connect(self.keys)
        return await Link.open(around.host, around.port, connect, self.sdk.ping_every, tls=around.mqtt_tls)

    async def _stay(self, link: Link) -> None:
        """Be online until the connection ends."""
        self._link, self._away_for = link, None
        self._count("connects")
        loop = asyncio.get_running_loop()
        stay = self.behaviour.draw_stay(self._chance)
        timers = [loop.call_later(stay / self.behaviour.speed, self._leave)] if stay is not None else []
        if self.behaviour.linger is not None:
            timers.append(loop.call_later(self.behaviour.linger, self._finish))
        try:
            if self.sdk.subscribes:
                link.subscribe(tuple((self._topic(kind), 1) for kind in self.sdk.subscribes))
            self._introduce()
            while (message := await link.receive()) is not None:
                self._receive(message)
        finally:
            self._link = None
            link.close()
            for timer in timers:
                timer.cancel()
            self.around.changed()
        await link.closed()

    def _receive(self, message: Publish) -> None:
        known = topics.parse(message.topic)
        if known is not None and known.kind in (
            topics.Kind.UPGRADE, topics.Kind.REQUEST, topics.Kind.FIRMWARE_GET_REPLY,
        ):  # fmt: skip
            self.push(message.payload)

    async def _pause_before_return(self, attempts: int) -> None:
        if self._away_for is not None:
            seconds, self._away_for = self._away_for, None
        else:
            back_off: float = min(_FIRST_BACK_OFF * 2**attempts, self.behaviour.longest_back_off)
            seconds = back_off * self._chance.uniform(0.5, 1.0)
        await self._pause(seconds)

    def _leave(self) -> None:
        """Go away for a while, with or without a good-bye; not in the middle of an update."""
        if self._link is not None and self._update is None:
            self._go(self.behaviour.draw_away(self._chance), politely=self._chance.random() < 0.5)

    def _finish(self) -> None:
        """Go for good, now or after the update that is going on."""
        if self._update is None:
            self._is_done = True
            if self._link is not None:
                self._link.close()

    def _go(self, away_for: float, politely: bool = True) -> None:
        self._away_for = away_for
        if self._link is not None:
            (self._link.close if politely else self._link.abort)()

    async def _end(self) -> None:
        if self._update is not None:
            self._update.cancel()
            await asyncio.wait([self._update])
        self.has_ended = True
        self.around.changed()

    # ---- reports ------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        if self.behaviour.stray_inform and self.sdk.informs > 1:
            self._report(topics.Kind.INFORM, {"version": STRAY_VERSION})
        else:
            for _ in range(self.sdk.informs - 1):
                self._inform(DEFAULT_MODULE)
        for module in self.versions:
            self._inform(module)

    def _inform(self, module: str) -> None:
        self._count("informs")
        self._report(topics.Kind.INFORM, {"version": self.versions[module]} | _module_param(module))

    def _progress(self, step: int, words: str, module: str) -> None:
        params = {"step": str(step), "desc": words} | _module_param(module)
        self._report(topics.Kind.PROGRESS, params)

    def _report(self, kind: topics.Kind, params: dict[str, str]) -> None:
        """Nothing is kept while offline: the inform after the next connect says what came of it."""
        if self._link is not None:
            self._message_id += 1
            payload = self.sdk.report(self._message_id, params)
            self._link.publish(self._topic(kind), payload, self.sdk.report_qos)

    def _topic(self, kind: topics.Kind) -> str:
        return topics.build(kind, self.keys.product_key, self.keys.device_name)

    # ---- update -------------------------------------------------------------------------------------

    def _begin(self, package: Package) -> None:
        fault = self.behaviour.draw_fault(self._fate)
        if fault is Fault.SILENT:
            self._silent_about = (package.module, package.version)
            self._count(fault)
            return
        self._installing = (package.module, package.version)
        self._count("updates")
        self._update = asyncio.create_task(self._carry_out(package, fault))

    async def _carry_out(self, package: Package, fault: Fault | None) -> None:
        low, high = self.behaviour.restart_seconds
        restart = self._chance.uniform(low, high)
        try:
            await self._install(package, fault)
        except StepFailed as failed:
            self._progress(STEPS[failed.fault], str(failed)[:128], package.module)
            self._count(failed.fault)
            self._updated()
        except PowerLost:
            self._count(Fault.CRASH)
            self._updated(restart, politely=False)
        else:
            if fault is Fault.ROLLBACK:
                self._count(fault)
            else:
                self.versions[package.module] = package.version
                self.around.store.put(self.keys.product_key, self.keys.device_name, self.versions)
                self._count("installed")
            self._updated(restart)

    def _updated(self, restart: float | None = None, politely: bool = True) -> None:
        """The update is over; `restart` is the time that a restart takes, which forgets what waits."""
        waiting, self._next = self._next, None
        self._update = self._installing = None
        if restart is not None:
            self._go(restart, politely)
        elif waiting is not None:
            self._begin(waiting)
        elif self.behaviour.linger is not None:
            asyncio.get_running_loop().call_later(self.behaviour.linger, self._finish)
        self.around.changed()

    async def _install(self, package: Package, fault: Fault | None) -> None:
        low, high = self.behaviour.update_seconds
        seconds = self._chance.uniform(low, high)
        module = package.module
        self._progress(0, "download started", module)
        self._fail_if(fault, Fault.UPDATE)
        try:
            wrong = await self._download(package, fault, seconds * _DOWNLOAD_SHARE)
        except DownloadFailed as error:
            raise StepFailed(Fault.DOWNLOAD, str(error)) from None
        self._progress(_VERIFYING, "verifying", module)
        await self._pause(seconds * _VERIFY_SHARE)
        if wrong:
            raise StepFailed(Fault.VERIFICATION, wrong)
        self._fail_if(fault, Fault.VERIFICATION)
        self._progress(_WRITING, "writing", module)
        await self._pause(seconds * _BURN_SHARE)
        self._fail_if(fault, Fault.BURN)
        self._progress(100, "restarting", module)

    async def _download(self, package: Package, fault: Fault | None, seconds: float) -> str | None:
        """Fetch and check all files, slowed down to `seconds`; what is wrong with them, if anything."""
        pieces = self.sdk.firmware_pieces
        strikes_at = self._chance.randrange(1, _MARKS)
        done = marks = 0
        for file in package.files:
            chunk = None if pieces is None else -(-file.size // pieces)
            http = Downloader(chunk, self.sdk.is_c, self.around.http_tls, self._pause)
            check = Check(package, file)
            async with self.around.downloads, aclosing(http.blocks(file.url, file.size)) as blocks:
                async for block in blocks:
                    check.feed(block)
                    done += len(block)
                    self.counters["downloaded"] += len(block)
                    reached = min(_MARKS, _MARKS * done // package.size)
                    while marks < reached:
                        marks += 1
                        await self._pause(seconds / _MARKS)
                        if marks == strikes_at:
                            self._strike(fault)
                        self._progress(_DOWNLOADED * marks // _MARKS, "downloading", package.module)
            if wrong := check.fault(self.behaviour.public_key):
                return wrong
        return None

    def _strike(self, fault: Fault | None) -> None:
        self._fail_if(fault, Fault.DOWNLOAD)
        if fault is Fault.CRASH:
            raise PowerLost

    def _fail_if(self, fault: Fault | None, at: Fault) -> None:
        if fault is at:
            raise StepFailed(at, _COMPLAINTS[at])

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.behaviour.speed)

    def _count(self, name: str) -> None:
        self.counters[name] += 1
        self.around.changed()


def _module_param(module: str) -> dict[str, str]:
    return {} if module == DEFAULT_MODULE else {"module": module}
