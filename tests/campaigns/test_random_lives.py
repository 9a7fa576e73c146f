"""Random lives of a few devices, with all that goes wrong in the field, held against what must be true.

Each seed plays some minutes of doubled, late, stray and missing reports, lost connections, power cuts, steps,
fallbacks, restarts of the gateway and late ticks on a clock of its own; then the world becomes quiet, and
every task has to end truthfully. `OTA_RANDOM_LIVES` says how many seeds are played, `OTA_RANDOM_LIVES_FROM`
where they begin.
"""

import heapq
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from campaigns import dispatch, expand, moves, reports, sweep
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.reports import Down, Inform, Report, Step, Up
from campaigns.states import ACTIVE, OPEN, Policy, TaskStatus
from devices import presence, versions
from devices.models import Device
from firmware.models import Firmware
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory

FIRST = int(os.environ.get("OTA_RANDOM_LIVES_FROM", "0"))
LIVES = int(os.environ.get("OTA_RANDOM_LIVES", "40"))
BIRTH = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
QUIET_FROM = BIRTH + timedelta(minutes=5)
LATEST = timedelta(seconds=20)
HAL = "app-1.0.0-20180101.1000"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@dataclass(eq=False)
class Unit:
    """One device as it really is."""

    row: Device
    # Seconds between the SDK's own inform and the application's; None: one inform at each connect.
    gap: float | None
    informs: bool
    steps: bool
    version: str = "1.0.0"
    ran: list[tuple[datetime, str]] = field(default_factory=list)
    connection: str = ""
    epoch: str = ""
    is_busy: bool = False
    life: int = 0  # what was planned in an earlier life does not happen
    pushes: list[datetime] = field(default_factory=list)
    stepped: datetime = BIRTH - timedelta(days=1)

    def runs(self, version: str, at: datetime) -> None:
        self.version = version
        self.ran.append((at, version))

    def ran_lately(self, version: str, at: datetime) -> bool:
        """At that time, or so shortly before that a late report may say so."""
        before = [each for time, each in self.ran if time <= at - LATEST][-1:]
        return version in before + [each for time, each in self.ran if at - LATEST <= time <= at]


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  (a test that can be played again)
        self.now, self.epoch = BIRTH, "epoch-1"
        self.order, self.names = count(), count()
        self.plans: list[tuple[datetime, int, Callable[[], None]]] = []
        self.stormy = True
        # Kept and told at the end: the dispatcher goes on when its broker raises.
        self.wrong: list[str] = []
        self.firmware = FirmwareFactory.create(version="2.0.0")
        self.units = [self._unit() for _ in range(2)]
        self.by_name = {unit.row.name: unit for unit in self.units}
        self.campaigns = [self._campaign(self.firmware, "1.0.0")]
        if self.chance(0.5):
            newer = FirmwareFactory.create(product=self.firmware.product, version="3.0.0")
            self.campaigns.append(self._campaign(newer, "2.0.0", policy=Policy.DYNAMIC))

    def chance(self, probability: float) -> bool:
        return self.stormy and self.random.random() < probability

    def _unit(self) -> Unit:
        row = DeviceFactory.create(product=self.firmware.product)
        gap = self.random.choice([None, None, 0, 0.15, 0.5, 3])
        return Unit(row, gap, self.random.random() < 0.9, self.random.random() < 0.8)

    def _campaign(self, firmware: Firmware, source: str, **values: object) -> Campaign:
        interval, times = self.random.choice([(None, None), (0, 1), (0, 5), (10, 2)])
        values = {"policy": self.random.choice([Policy.STATIC, Policy.DYNAMIC])} | values
        return CampaignFactory.create(
            firmware=firmware,
            source_versions=self.random.choice([[], [source]]) or [source] * (firmware.version == "3.0.0"),
            retry_interval_minutes=interval,
            max_retries=times,
            timeout_minutes=10,
            started_at=self.now,
            created_at=self.now,
            expanded_at=None,
            **values,
        )

    # ---- time ----

    def plan(self, wait: float, what: Callable[[], None], unit: Unit | None = None) -> None:
        """Do something later; of a device only if it lives on until then."""
        life = unit.life if unit else 0

        def do() -> None:
            if unit is None or unit.life == life:
                what()

        heapq.heappush(self.plans, (self.now + seconds(wait), next(self.order), do))

    def play(self, until: datetime) -> None:
        while self.plans and self.plans[0][0] <= until:
            self.now, _, do = heapq.heappop(self.plans)
            do()
        self.now = until

    def ticks(self) -> None:
        """As late as a busy machine lets them be."""
        sweep.end_waits(self.now)
        dispatch.dispatch(self.send, self.now)
        if self.random.random() < 0.3:
            sweep.sweep(self.now)
        self.plan(self.random.uniform(2, 20) if self.stormy else 45, self.ticks)

    # ---- device to server ----

    def say(self, *said: Report) -> None:
        """Reports of now: applied at once, late, twice or never."""
        if self.chance(0.04):
            return
        if self.chance(0.04):
            late = self.random.uniform(0.1, LATEST.total_seconds() - 1)
            self.plan(late, lambda: self.hear(said))
            return
        self.hear(said)
        if self.chance(0.04):
            self.hear(said)

    def hear(self, said: Sequence[Report]) -> None:
        for report in said:
            if isinstance(report, Step) and report.step >= 0:
                self.unit_of(report.device_id).stepped = self.now
        moved = [type(report)(**(_fields(report) | {"at": self.now})) for report in said]
        reports.apply(moved, self.now)

    def unit_of(self, device_id: int) -> Unit:
        return next(unit for unit in self.units if unit.row.pk == device_id)

    def connect(self, unit: Unit) -> None:
        unit.connection, unit.epoch = f"c{next(self.names)}", self.epoch
        reports.apply([Up(unit.row.pk, unit.connection, unit.epoch, self.now)], self.now)
        if not unit.informs:
            return
        if unit.gap is None:
            self.plan(0.05, lambda: self.inform(unit, unit.version), unit)
        else:
            self.plan(0.05, lambda: self.inform(unit, HAL), unit)
            self.plan(0.05 + unit.gap, lambda: self.inform(unit, unit.version), unit)

    def inform(self, unit: Unit, version: str) -> None:
        if unit.connection:
            self.say(Inform(unit.row.pk, unit.row.product_id, "default", version, self.now))

    def step(self, unit: Unit, number: int) -> None:
        if unit.connection:
            self.say(Step(unit.row.pk, None, number, "", self.now))

    def disconnect(self, unit: Unit) -> None:
        if unit.connection and not self.chance(0.3):
            reports.apply([Down(unit.row.pk, unit.connection, unit.epoch, self.now)], self.now)
        unit.connection = ""

    # ---- what happens to devices ----

    def power_cut(self, unit: Unit, away: float) -> None:
        unit.life += 1
        unit.is_busy = False
        self.disconnect(unit)
        self.plan(away, lambda: self.connect(unit), unit)

    def lose_link(self, unit: Unit, away: float) -> None:
        """The update goes on meanwhile."""
        self.disconnect(unit)
        self.plan(away, lambda: self.connect(unit) if not unit.connection else None, unit)

    def restart_gateway(self) -> None:
        self.epoch = f"epoch-{next(self.names)}"
        presence.begin_epoch(self.epoch, self.now)
        for unit in self.units:
            if unit.connection:
                unit.connection = ""
                back = self.random.uniform(0.5, 20)
                self.plan(back, lambda u=unit: self.connect(u) if not u.connection else None, unit)

    def trouble(self) -> None:
        if not self.stormy:
            return
        unit = self.random.choice(self.units)
        match self.random.randrange(7):
            case 0 | 1:
                self.power_cut(unit, self.random.choice([1, 8, 40, 200]))
            case 2 | 3:
                self.lose_link(unit, self.random.choice([0.5, 5, 25, 90]))
            case 4:
                self.restart_gateway()
            case 5:
                self.inform(unit, unit.version)
            case 6:
                self.inform(unit, HAL)
        self.plan(self.random.uniform(5, 60), self.trouble)

    # ---- server to device ----

    def send(self, messages: Sequence[tuple[str, bytes]]) -> list[bool]:
        return [self.deliver(topic.rsplit("/", 1)[1], payload) for topic, payload in messages]

    def deliver(self, name: str, payload: bytes) -> bool:
        unit = self.by_name[name]
        if unit.pushes and self.now - unit.pushes[-1] < seconds(30):
            self.wrong.append(f"a second copy within 30 seconds: {name} at {self.now}")
        unit.pushes.append(self.now)
        if unit.connection and not self.chance(0.1):
            if unit.is_busy:
                if self.now - unit.stepped < seconds(30):
                    self.wrong.append(f"a second copy into an update that goes on: {name} at {self.now}")
            else:
                self.update(unit, json.loads(payload)["data"]["version"])
        return not self.chance(0.1)

    def update(self, unit: Unit, version: str) -> None:
        if self.chance(0.1):
            return  # it takes no notice
        unit.is_busy = True
        pace, at = self.random.uniform(1, 15), 0.0
        ends_at = self.random.choice([-1, -2, -3, -4]) if self.chance(0.15) else 100
        number = 0
        while number < 100:
            number = min(100, number + self.random.randint(5, 40))
            at += pace
            if unit.steps:
                self.plan(at, lambda n=number: self.step(unit, n), unit)
        if ends_at < 0:
            self.plan(at + 1, lambda: self.give_up(unit, ends_at), unit)
        else:
            self.plan(at + 2, lambda: self.restart(unit, version), unit)

    def give_up(self, unit: Unit, number: int) -> None:
        unit.is_busy = False
        self.step(unit, number)

    def restart(self, unit: Unit, version: str) -> None:
        self.power_cut(unit, self.random.uniform(1, 20))
        if self.chance(0.2):
            return  # it falls back
        unit.runs("9.9.9" if self.chance(0.1) else version, self.now)


def _fields(report: Report) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__slots__}


def end_well(world: World) -> None:
    """No more trouble: devices come back, say what they run and do what they are told; hours go by."""
    world.stormy = False
    world.play(QUIET_FROM + timedelta(minutes=4))
    # Twice: what settles after the last success may be the beginning of the next batch.
    for _ in range(2):
        for unit in world.units:
            world.power_cut(unit, 1)
        for _ in range(60):
            world.play(world.now + seconds(60))
            if not UpdateTask.objects.filter(status__in=OPEN).exists():
                break
        world.play(world.now + timedelta(minutes=2))
        sweep.sweep(world.now)
    # Six attempts of ten pushes each, with half an hour's reservation between them, take about five hours.
    for _ in range(360):
        if not UpdateTask.objects.filter(status__in=OPEN).exists():
            break
        world.play(world.now + seconds(60))
    for unit in world.units:
        world.power_cut(unit, 1)
    world.play(world.now + timedelta(minutes=2))
    sweep.sweep(world.now)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + LIVES))
def test_whatever_happens_every_task_ends_truthfully(db: None, seed: int) -> None:
    world = World(seed)
    presence.begin_epoch(world.epoch, BIRTH)
    for unit in world.units:
        unit.runs("1.0.0", BIRTH)
        world.plan(world.random.uniform(0, 20), lambda u=unit: world.connect(u), unit)
    launch = world.random.uniform(0, 60)
    for campaign in world.campaigns:
        world.plan(launch, lambda c=campaign: _expand(c.pk, world))
    world.plan(1, world.ticks)
    world.plan(launch + 10, world.trouble)
    world.play(QUIET_FROM)
    end_well(world)

    history = UpdateTask.objects.values("id", "device_id", "status", "reason", "attempt", "pushes")
    assert not UpdateTask.objects.filter(status__in=OPEN).exists(), list(history)
    assert world.wrong == []
    assert moves.recount([campaign.pk for campaign in world.campaigns]) == {}
    assert versions.recount() == {}
    devices = {unit.row.pk: unit for unit in world.units}
    tasks = {task.pk: task for task in UpdateTask.objects.all()}
    for event in TaskEvent.objects.filter(after=TaskStatus.SUCCEEDED):
        task = tasks[event.task_id]
        assert devices[task.device_id].ran_lately(task.to_version, event.at), "a false success"
    for task in UpdateTask.objects.over_and_known():
        unit = devices[task.device_id]
        if unit.informs and unit.version == task.to_version:
            assert task.status == TaskStatus.SUCCEEDED or task.is_late, "a success that nobody was told of"
            later = [t for t in tasks.values() if t.pk > task.pk and t.device_id == task.device_id]
            assert later or not task.is_reverted, "what it came back to by another task stays a reversion"
        elif unit.informs and task.status == TaskStatus.SUCCEEDED:
            newer = [t for t in tasks.values() if t.pk > task.pk and t.device_id == task.device_id]
            assert task.is_reverted or newer, "a reversion that nobody was told of"


def _expand(campaign_id: int, world: World) -> None:
    expand.expand(campaign_id, world.now)
    active: dict[int, int] = defaultdict(int)
    for task in UpdateTask.objects.filter(status__in=ACTIVE):
        active[task.device_id] += 1
    assert max(active.values(), default=0) <= 1
