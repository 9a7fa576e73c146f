"""Every page of the device side of the console: readable by all, at every width, in light and dark."""

import pytest
from playwright.sync_api import Page

from otaplatform.accounts import audit
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot, scrolls_sideways, serious_faults
from tests.factories import DeviceFactory, ProductFactory


@pytest.fixture
def pages(administrator: User) -> dict[str, str]:
    """{name: address} of the pages, with something on each of them."""
    product = ProductFactory(account=administrator.account, name="智能网关")
    device = DeviceFactory(product=product, name="gw-shanghai-0412", online=True, version="1.0.0")
    DeviceFactory(product=product, is_disabled=True)
    audit.record(product.account, administrator, "device.disabled", device)
    return {
        "dashboard": "/",
        "products": "/devices/product/",
        "product": f"/devices/product/{product.pk}/change/",
        "product-new": "/devices/product/add/",
        "devices": "/devices/device/",
        "device": f"/devices/device/{device.pk}/change/",
        "device-new": "/devices/device/add/",
        "device-batch": "/devices/device/batch/",
        "device-remove": f"/devices/device/{device.pk}/remove/",
        "users": "/accounts/user/",
        "user-new": "/accounts/user/add/",
        "user": f"/accounts/user/{administrator.pk}/change/",
        "user-password": f"/accounts/user/{administrator.pk}/password/",
        "audit": "/accounts/auditentry/",
        "my-settings": "/me/",
        "password": "/password_change/",
    }


def walk(page: Page, pages: dict[str, str], suffix: str) -> list[str]:
    faults = []
    for name, address in pages.items():
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        faults += [f"{name}: {fault}" for fault in serious_faults(page)]
        if scrolls_sideways(page):
            faults.append(f"{name}: wider than the window")
        screenshot(page, f"{name}-{suffix}")
    return faults


def test_nothing_serious_in_light(
    open_console: OpenConsole, administrator: User, pages: dict[str, str]
) -> None:
    assert walk(open_console("/", administrator, chinese=True), pages, "zh") == []


def test_nothing_serious_in_dark_on_a_phone(
    open_console: OpenConsole, administrator: User, pages: dict[str, str]
) -> None:
    page = open_console("/", administrator, phone=True, dark=True)
    assert walk(page, pages, "phone") == []


def test_nothing_serious_before_the_login_and_on_empty_pages(
    open_console: OpenConsole, administrator: User
) -> None:
    assert walk(open_console("/login/"), {"login": "/login/"}, "en") == []
    empty = {"empty-products": "/devices/product/", "empty-devices": "/devices/device/", "empty": "/"}
    assert walk(open_console("/", administrator, dark=True), empty, "dark") == []
