"""What a product's devices run, and how it moves while they are updated."""

from typing import Any

import pytest

from campaigns import services as updates
from campaigns.services import Plan
from devices.models import Product
from devices.simulator import Behaviour, running_fleet
from devices.simulator.behaviour import VersionMix
from tests.flows.stage import registered, verified, wait_online, wait_over
from tests.running import Platform

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("workers")]


def shares(console: Any, product: Product) -> dict[str, str]:
    page = console.get("/versions/", {"product": product.pk})
    return {each["name"]: each["percent"] for each in page.context["slices"]}


def test_the_distribution_follows_the_fleet_and_a_version_lists_its_devices(
    platform: Platform, product: Product, console: Any
) -> None:
    firmware = verified(product)
    keys = registered(product, 8)
    fleets = [
        running_fleet(keys[start:end], platform.port, Behaviour(speed=200, versions=VersionMix({version: 1})))
        for start, end, version in (
            (0, 3, "1.0.0"),
            *((start, start + 1, f"0.{start}") for start in range(3, 8)),
        )
    ]
    try:
        for fleet in fleets:
            fleet.__enter__()
        wait_online(product, 8)
        before = shares(console, product)
        assert (before["1.0.0"], before["Others"], len(before)) == ("37.5", "12.5", 6)
        page = console.get("/versions/", {"product": product.pk, "version": "1.0.0"})
        names = {each["device"].name for each in page.context["devices"]}
        assert names == {each.device_name for each in keys[:3]}
        wait_over(updates.launch_batch(firmware, Plan(source_versions=["1.0.0"], accept_unproven=True)))
        after = shares(console, product)
        assert after[f"{firmware.name} 2.0.0"] == "37.5"
        assert "1.0.0" not in after
    finally:
        for fleet in fleets:
            fleet.__exit__(None, None, None)
