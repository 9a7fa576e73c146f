"""Odd input is never a failure of ours: every action of REST and of the console, asked nonsense."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.converters import IntConverter
from rest_framework.test import APIClient

from devices.models import Device, DeviceVersion, Product
from firmware.models import Firmware
from otaplatform.accounts.models import Account, User
from otaplatform.api.urls import urlpatterns
from tests.factories import AccountFactory, CampaignFactory, DeviceFactory, TaskFactory, UserFactory
from tests.otaplatform.api.conftest import V1
from tests.otaplatform.api.test_bounds import SCHEMA, fill  # noqa: F401  (a fixture)

HUGE = 2**70
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    HUGE,
    -HUGE,
    1e308,
    "",
    " ",
    "\0",
    "\ud800",
    "x\udfff",
    "９",
    "x" * 5000,
    [],
    [[]],
    [None],
    [HUGE],
    ["\0"],
    ["\ud800"],
    {},
    {"a": 1},
]


def fields_of(operation: Any) -> dict[str, Any]:
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return {}
    name = media["schema"]["$ref"].rpartition("/")[2]
    return dict(SCHEMA["components"]["schemas"][name].get("properties", {}))


ACTIONS = [
    (method, path, sorted(fields_of(operation)))
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
    if method in ("post", "patch")
]
VALID: dict[str, Any] = {
    "policy": "static",
    "region": "all",
    "accept_unproven": True,
    "device_names": ["meter-0001"],
    "name": "meters_1",
    "url": "https://example.com/",
}


@pytest.mark.parametrize(("method", "path", "fields"), ACTIONS)
def test_no_field_of_rest_takes_anything_that_breaks_it(
    administrator: APIClient,
    fill: Any,  # noqa: F811
    firmware: Firmware,
    method: str,
    path: str,
    fields: list[str],
) -> None:
    administrator.raise_request_exception = False
    known = VALID | {"firmware": firmware.pk}
    for field in fields or [""]:
        for value in ODD:
            body = {name: known[name] for name in fields if name in known}
            # Only what is wrong is tried: what is right would take effect.
            body |= {field: value} if field else {"strange": value}
            response = getattr(administrator, method)(
                fill(path), json.dumps(body), content_type="application/json"
            )
            assert response.status_code < 500, (field, value, response.content)
    for raw in (b"[]", b"null", b'"x"', b"1", b"", b"\xff", b'{"\\ud800": 1}', b'{"a": 1e999}', b"9" * 5000):
        response = getattr(administrator, method)(fill(path), raw, content_type="application/json")
        assert response.status_code < 500, raw


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 30, "-1", "1.5", "x", "%00", "%ED%A0%80", "１"])
def test_no_number_in_an_address_breaks_it(administrator: APIClient, product: Product, number: str) -> None:
    administrator.raise_request_exception = False
    for pattern in urlpatterns:
        route = str(pattern.pattern)
        if "<number:" not in route:
            continue
        path = route.replace("<product_key:product_key>", product.product_key)
        path = path.replace("<number:pk>", number).replace("<number:delivery>", number)
        for method in ("get", "post"):
            response = getattr(administrator, method)(V1 + path)
            assert response.status_code in (400, 403, 404, 405, 409), (path, response.status_code)


QUERIES = ["x", "\0", "\ud800", "9" * 40, "-1", "", "%", "'", "x" * 3000, "null", "[]"]


@pytest.mark.parametrize("value", QUERIES)
def test_no_query_parameter_takes_anything_that_breaks_it(
    administrator: APIClient,
    fill: Any,  # noqa: F811
    value: str,
) -> None:
    administrator.raise_request_exception = False
    raw = value.encode("utf-8", "surrogatepass").hex(" ").replace(" ", "%")
    for path, operations in SCHEMA["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                url = f"{fill(path)}?{parameter['name']}={'%' if raw else ''}{raw}"
                response = administrator.get(url)
                assert response.status_code < 500, (url, response.content)


# ---- the console -------------------------------------------------------------------------------------


def console_routes() -> list[str]:
    """Every address of the console below the root, with 0 for each number in it."""
    found: list[str] = []

    def walk(patterns: Any, prefix: str) -> None:
        for each in patterns:
            pattern: Any = each.pattern
            route = prefix + getattr(pattern, "_route", "")
            if isinstance(each, URLResolver):
                walk(each.url_patterns, route)
            elif isinstance(each, URLPattern) and hasattr(pattern, "_route"):
                known = {
                    name: "{pk}" if isinstance(converter, IntConverter) else "{text}"
                    for name, converter in pattern.converters.items()
                }
                for name, place in known.items():
                    kind = next(
                        part for part in route.split("<") if part.partition(">")[0].split(":")[-1] == name
                    ).partition(">")[0]
                    route = route.replace(f"<{kind}>", place)
                found.append(f"/{route}")

    walk(get_resolver().url_patterns, "")
    # /healthz answers 503 where no gateway runs.
    left_out = (
        "/healthz",
        "/api/",
        "/auth",
        "/topic/",
        "/f/",
        "/static/",
        "/ws/",
        "/logout",
        "/admin/logout",
    )
    return [route for route in found if not route.startswith(left_out)]


CONSOLE = console_routes()
FORM_FIELDS = [
    *("action", "task", "campaign", "reason", "tab", "next", "product", "source", "count", "once", "name"),
    *("account", "language", "time_zone", "version", "module", "sign_method", "description", "on", "form"),
    *("device_names", "source_versions", "device_list", "policy", "region", "when", "schedule_at", "busy"),
    *("timeout_minutes", "max_per_minute", "max_retries", "retry_interval_minutes", "url", "events", "days"),
    *("token", "verb", "confirmed", "stage", "_selected_action", "q", "p", "index", "select_across"),
]
TEXTS = ["", "x", "\0", "9" * 40, "１"]


@pytest.fixture
def browser(account: Account) -> Client:
    user: User = UserFactory.create(account=account, is_superuser=True)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def test_the_console_has_routes_to_ask() -> None:
    assert len(CONSOLE) > 30


@pytest.mark.parametrize("route", CONSOLE)
def test_no_form_of_the_console_takes_anything_that_breaks_it(
    browser: Client, product: Product, firmware: Firmware, route: str
) -> None:
    campaign = CampaignFactory.create(firmware=firmware)
    task = TaskFactory.create(campaign=campaign)
    DeviceFactory.create(product=product)
    pks = {firmware.pk, campaign.pk, task.pk, product.pk, 10**30}
    for pk in pks:
        url = route.format(pk=pk, text="x")
        for text in TEXTS:
            assert browser.get(url, dict.fromkeys(FORM_FIELDS, text)).status_code < 500, (url, text)
            # Whoever logs out, or is logged out, sees nothing any more.
            values = dict.fromkeys(FORM_FIELDS, text)
            assert browser.post(url, values).status_code < 500, (url, text)
        if "{pk}" not in route:
            break


@pytest.mark.parametrize(
    "action",
    ["cancel", "cancel_tab", "cancel_batch", "again", "again_tab", "pause", "resume", "stop_matching", "no"],
)
@pytest.mark.parametrize("campaigns", [0, 2])
def test_no_action_on_a_firmware_s_campaigns_breaks(
    browser: Client, firmware: Firmware, action: str, campaigns: int
) -> None:
    CampaignFactory.create_batch(campaigns, firmware=firmware)
    url = reverse("campaigns:firmware-act", args=[firmware.pk])
    one = action in ("cancel_batch", "pause", "resume", "stop_matching")
    assert browser.post(url, {"action": action, "tab": "updating"}).status_code == (400 if one else 302)
    assert browser.post(url, {"action": action, "campaign": "999999"}).status_code == 404


def test_who_may_not_choose_an_account_is_not_told_which_there_are(account: Account) -> None:
    client = Client()
    client.force_login(UserFactory.create(account=account))
    other = AccountFactory.create().pk
    found = {
        client.post("/me/account/", {"account": pk}).status_code for pk in (account.pk, other, 10**9, "x")
    }
    assert found == {403}


# ---- what devices report is theirs to name -----------------------------------------------------------


@pytest.mark.parametrize(
    "version", ["1.0+build", "a b", "v1/2", " 1.0 ", "1&2=3", "版本", "url", "#1", "%20"]
)
def test_devices_are_listed_by_any_version_that_they_run(
    administrator: APIClient, browser: Client, product: Product, version: str
) -> None:
    device: Device = DeviceFactory.create(product=product, version=version)
    DeviceFactory.create(product=product, version="1.0")
    found = administrator.get(f"{V1}products/{product.product_key}/devices/", {"version": version})
    assert [row["device_name"] for row in found.json()["results"]] == [device.name]
    assert found.json()["results"][0]["versions"] == {"default": version}
    page = browser.get("/versions/", {"product": product.pk, "version": version})
    assert [row["device"] for row in page.context["devices"]] == [device]
    link = next(
        part.partition('"')[0].replace("&amp;", "&").partition("#")[0]
        for part in page.content.decode().split('<td><a href="')[1:]
        if part.partition(">")[2].partition("<")[0] != "1.0"
    )
    page = browser.get(f"/versions/{link}")
    assert [row["device"] for row in page.context["devices"]] == [device]
    assert DeviceVersion.objects.filter(version=version).count() == 1
