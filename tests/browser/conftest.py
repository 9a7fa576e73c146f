"""A real browser against the real server: Debian's chromium, uvicorn in a thread, WebSockets included.

def test_…(open_console): page = open_console("/devices/product/", chinese=True)
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from devices import versions
from devices.models import Device, Product
from firmware.models import Firmware
from otaplatform.accounts.models import User
from otaplatform.accounts.roles import ADMINISTRATOR
from tests.factories import DeviceFactory, FirmwareFactory, ProductFactory, UserFactory

HERE = Path(__file__).parent
AXE = HERE.parent / "vendor" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
START_TIMEOUT = 15
# Screenshots are for people; they are written only if somebody asks for them.
SCREENSHOTS = os.environ.get("OTA_SCREENSHOTS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session", autouse=True)
def _chromium() -> Iterator[None]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("There is no chromium on this machine.")
        pytest.skip("There is no chromium on this machine.")
    # Playwright's synchronous interface keeps an event loop running in the test's thread.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    yield
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    return {
        "executable_path": CHROMIUM,
        "args": ["--no-sandbox", "--disable-gpu", "--no-first-run", *quiet],
    }


@pytest.fixture(scope="session")
def server_address(django_db_setup: None) -> Iterator[str]:
    """Where the platform answers, as long as the session lasts."""
    from otaplatform.asgi import application

    # The server's threads would keep their connections beyond the test database.
    connection.settings_dict["CONN_MAX_AGE"] = 0
    config = uvicorn.Config(
        application, port=0, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(START_TIMEOUT * 50):
        if server.started:
            break
        thread.join(0.02)
    assert server.started, "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(START_TIMEOUT)


@pytest.fixture
def server(server_address: str, transactional_db: None) -> str:
    """The platform's address, with a database that the server's threads see and the test empties."""
    return server_address


@pytest.fixture
def administrator(server: str) -> User:
    """Somebody of an account in the role Administrator."""
    user = UserFactory(username="lihua", first_name="李", last_name="华")
    user.groups.set(Group.objects.filter(name=ADMINISTRATOR))
    return user


@pytest.fixture
def product(administrator: User) -> Product:
    return ProductFactory.create(account=administrator.account, name="智能网关")


@pytest.fixture
def firmware(product: Product) -> Firmware:
    return FirmwareFactory.create(product=product, name="gateway_fw_2", version="2.1.0")


@pytest.fixture
def devices(product: Product) -> list[Device]:
    made = [
        DeviceFactory.create(product=product, name=f"gw-shanghai-{number:04d}", version="1.0.0", online=True)
        for number in range(3)
    ]
    made.append(DeviceFactory.create(product=product, name="gw-beijing-0007", version="1.1.0", online=False))
    versions.recount(repair=True)
    return made


OpenConsole = Callable[..., Page]


@pytest.fixture
def open_console(server: str, browser: Browser) -> Iterator[OpenConsole]:
    """Open a page: `open_console(path, user=None, chinese=False, phone=False, dark=False)`.

    With a user, the browser is logged in. Whatever the browser's console complains about, a breach of the
    content security policy say, fails the test.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        # A form that is sent back, or a refused page, is an answer like others; and what has no address
        # comes from a script that the test evaluates.
        address = message.location["url"]
        if message.type == "error" and address and "status of 4" not in message.text:
            complaints.append(f"{address}: {message.text}")

    def open_page(
        path: str,
        user: User | None = None,
        *,
        chinese: bool = False,
        phone: bool = False,
        dark: bool = False,
    ) -> Page:
        context = browser.new_context(
            base_url=server,
            locale="zh-CN" if chinese else "en-US",
            timezone_id="Asia/Shanghai",
            viewport=PHONE if phone else DESKTOP,
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            name = settings.SESSION_COOKIE_NAME
            context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": server}])
        page = context.new_page()
        page.on("console", listen)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of the page in the folder OTA_SCREENSHOTS, if that is set."""
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds on the page that is serious or critical."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run({resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html'][:160]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def scrolls_sideways(page: Page) -> bool:
    """Whether the page is wider than the window."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth"))
