"""Simulated devices that speak the wire as the device SDKs do, for demonstrations, tests and load.

No Django in here: a fleet needs nothing but the devices' credentials and the address of a broker.
"""

from devices.simulator.behaviour import DEMO_FAULTS, Behaviour, Fault, VersionMix
from devices.simulator.device import SimulatedDevice, Surroundings
from devices.simulator.fleet import Fleet, running_fleet
from devices.simulator.sdks import SDKS, DeviceKeys, Sdk
from devices.simulator.state import VersionStore

__all__ = [
    "DEMO_FAULTS",
    "SDKS",
    "Behaviour",
    "DeviceKeys",
    "Fault",
    "Fleet",
    "Sdk",
    "SimulatedDevice",
    "Surroundings",
    "VersionMix",
    "VersionStore",
    "running_fleet",
]
