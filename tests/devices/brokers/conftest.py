from __future__ import annotations

from collections.abc import Iterator

import pytest

from devices.brokers.embedded import BrokerThread, Listener, Options
from tests.devices.brokers.clients import Gateway, authenticate


@pytest.fixture
def options() -> Options:
    """Override in a module or parametrize to test under other bounds."""
    return Options(keep_alive_range=(1, 1200), sweep_interval=0.05)


@pytest.fixture
def broker(options: Options) -> Iterator[BrokerThread]:
    with BrokerThread(authenticate, [Listener(0)], options) as running:
        yield running


@pytest.fixture
def port(broker: BrokerThread) -> int:
    return broker.ports[0]


@pytest.fixture
def gateway(port: int) -> Iterator[Gateway]:
    with Gateway(port) as connected:
        yield connected
