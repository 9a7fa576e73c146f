"""How simulated devices behave: what they run, how fast they are, and how often things go wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isfinite
from types import MappingProxyType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from devices.simulator.sdks import SDKS, Sdk

MAX_VERSION = 64


class Fault(StrEnum):
    """What can go wrong with an update. The first four are reported as the step of that failure."""

    DOWNLOAD = "download"  # step -2
    VERIFICATION = "verification"  # step -3
    BURN = "burn"  # step -4
    UPDATE = "update"  # step -1
    SILENT = "silent"  # never answers the push
    ROLLBACK = "rollback"  # reports 100 percent, then comes back on the old version
    CRASH = "crash"  # vanishes during the download, and comes back on the old version


STEPS: Mapping[Fault, int] = MappingProxyType(
    {Fault.UPDATE: -1, Fault.DOWNLOAD: -2, Fault.VERIFICATION: -3, Fault.BURN: -4}
)

DEMO_FAULTS: Mapping[Fault, float] = MappingProxyType(
    {
        Fault.DOWNLOAD: 0.02,
        Fault.VERIFICATION: 0.01,
        Fault.BURN: 0.01,
        Fault.UPDATE: 0.01,
        Fault.ROLLBACK: 0.01,
        Fault.CRASH: 0.02,
    }
)


@dataclass(frozen=True, slots=True)
class VersionMix:
    """The versions that devices start with, and the weight of each."""

    weights: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`1.0.0:70,1.1.0:30`; a version without a weight has the weight 1. Raises ValueError."""
        weights: dict[str, float] = {}
        for item in text.split(","):
            version, _, weight = item.strip().partition(":")
            if not 0 < len(version) <= MAX_VERSION:
                raise ValueError(f"{version!r} is not a version of 1 to {MAX_VERSION} characters")
            weights[version] = _number(weight or "1", f"the weight of {version}")
        if not sum(weights.values()):
            raise ValueError("at least one version needs a weight above 0")
        return cls(weights)

    def draw(self, chance: random.Random) -> str:
        return chance.choices(list(self.weights), list(self.weights.values()))[0]


def parse_fault(text: str) -> tuple[Fault, float]:
    """`download=0.1`: the fault and its share of updates, 0 to 1. Raises ValueError."""
    name, _, rate = text.partition("=")
    if name not in list(Fault):
        raise ValueError(f"{name!r} is none of {', '.join(Fault)}")
    return Fault(name), _number(rate, f"the rate of {name}", most=1)


def _number(text: str, what: str, most: float = inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not (0 <= value <= most and isfinite(value)):
        raise ValueError(f"{what} cannot be {text!r}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a fleet's devices have in common. Times are seconds, divided by `speed`.

    `sdks`: each device has one of them, decided by its name.
    `modules`: versions of further modules, by name.
    `offline`: the share of the devices that are away at any moment; each one leaves and comes back.
    `linger`: a device leaves for good once it has been online that long without an update (not divided).
    `stray_inform`: iotkit devices first report the version of their sample application, as iotkit-embedded
    does when the port's version function was left as it is.
    `public_key`: with it, a package without a valid `digestsign` fails its verification.
    """

    sdks: Sequence[Sdk] = SDKS
    versions: VersionMix = VersionMix({"1.0.0": 70, "1.1.0": 30})
    modules: Mapping[str, VersionMix] = field(default_factory=dict)
    faults: Mapping[Fault, float] = field(default_factory=dict)
    offline: float = 0.0
    speed: float = 1.0
    update_seconds: tuple[float, float] = (8, 20)
    restart_seconds: tuple[float, float] = (2, 4)
    away_seconds: float = 120
    longest_back_off: float = 60
    linger: float | None = None
    stray_inform: bool = False
    public_key: RSAPublicKey | None = None

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError("the speed must be above 0")
        if not 0 <= self.offline < 1:
            raise ValueError("the offline share must be 0 or more and below 1")
        if sum(self.faults.values()) > 1 + 1e-9:
            raise ValueError("the rates of failures add up to more than 1")

    def draw_fault(self, chance: random.Random) -> Fault | None:
        """What goes wrong with the next update, if anything."""
        point = chance.random()
        for fault, rate in self.faults.items():
            point -= rate
            if point < 0:
                return fault
        return None

    def draw_away(self, chance: random.Random) -> float:
        """Seconds that a device stays away."""
        return chance.expovariate(1 / self.away_seconds)

    def draw_stay(self, chance: random.Random) -> float | None:
        """Seconds that a device stays online before it leaves; None: it does not leave."""
        if not self.offline:
            return None
        return chance.expovariate(self.offline / ((1 - self.offline) * self.away_seconds))
