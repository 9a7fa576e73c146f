"""No request costs more than it carries: lists are judged by their length, answers to nonsense are short."""

import json
import tracemalloc
from typing import Any

import pytest
from rest_framework.test import APIClient

from campaigns.services import MAX_CHOSEN, MAX_VALIDATED
from devices.models import Product
from firmware.models import Firmware
from otaplatform.api.errors import LONGEST_NAME, MAX_ERRORS, MAX_UNKNOWN, body
from otaplatform.api.parsers import LONG_JSON, MAX_VALUES, SHORT_JSON
from tests.factories import (
    CampaignFactory,
    DeviceFactory,
    TaskFactory,
)
from tests.otaplatform.api.conftest import V1, code_of
from tests.otaplatform.api.test_schema import COMMITTED

SCHEMA: Any = json.loads(COMMITTED.read_text())
SHORT_ANSWER = 64 * 1024


def resolved(shape: Any) -> Any:
    while "$ref" in shape or "allOf" in shape:
        shape = shape["allOf"][0] if "allOf" in shape else SCHEMA
        if shape is SCHEMA:
            raise AssertionError("an unnamed reference")
        if "$ref" in shape:
            return resolved(SCHEMA["components"]["schemas"][shape["$ref"].rpartition("/")[2]])
    return shape


def bodies() -> list[tuple[str, str, str, Any]]:
    """(method, path, field, its shape) of every list and text that a JSON body may hold."""
    found = []
    for path, operations in SCHEMA["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is None:
                continue
            name = media["schema"]["$ref"].rpartition("/")[2]
            for field, shape in SCHEMA["components"]["schemas"][name].get("properties", {}).items():
                if shape.get("type") in ("array", "string") and "enum" not in shape:
                    found.append((method, path, field, shape))
    return found


BODIES = bodies()


@pytest.fixture
def fill(product: Product, firmware: Firmware) -> Any:
    """An address with an object of each kind in it."""
    campaign = CampaignFactory.create(firmware=firmware)
    device = DeviceFactory.create(product=product, version="1.0.0", online=True)
    task = TaskFactory.create(campaign=campaign, device=device)

    def address(path: str) -> str:
        pk = {"firmware": firmware.pk, "campaigns": campaign.pk, "tasks": task.pk}
        kind = path.split("/")[3]
        return path.format(
            product_key=product.product_key,
            device_name=device.name,
            id=pk.get(kind, 1),
            pk=pk.get(kind, 1),
            key="0" * 15,
            delivery=1,
        )

    return address


def example(path: str, firmware: int) -> dict[str, Any]:
    """What else the body of an address needs."""
    if path.endswith(("/campaigns/", "/preview/")):
        return {"firmware": firmware, "policy": "static", "region": "directional", "accept_unproven": True}
    return {"device_names": ["meter-1"]} if path.endswith("/validate/") else {}


def filled(shape: Any, more: int) -> Any:
    """A value of the largest length that is allowed, and `more`."""
    if shape["type"] == "string":
        return "x" * (shape.get("maxLength", 1000) + more)
    items = resolved(shape["items"])
    one = items["enum"][0] if "enum" in items else "meter-0001"
    return [one] * (shape["maxItems"] + more)


def test_every_list_and_text_of_a_body_has_an_end() -> None:
    assert len(BODIES) > 10
    for _method, path, field, shape in BODIES:
        if shape.get("format") not in ("date-time", "binary"):
            assert ("maxItems" if shape["type"] == "array" else "maxLength") in shape, (path, field)


# The million names that are allowed are looked up, which takes seconds.
LARGEST = [
    pytest.param(*found, more, marks=[pytest.mark.slow] if found[3].get("maxItems") == MAX_CHOSEN else [])
    for found in BODIES
    for more in (0, 1)
]


@pytest.mark.parametrize(("method", "path", "field", "shape", "more"), LARGEST)
def test_the_largest_allowed_and_one_more_cost_what_they_carry(
    administrator: APIClient,
    fill: Any,
    firmware: Firmware,
    method: str,
    path: str,
    field: str,
    shape: Any,
    more: int,
) -> None:
    values = example(path, firmware.pk) | {field: filled(shape, more)}
    raw = json.dumps(values)
    tracemalloc.start()
    response = getattr(administrator, method)(fill(path), raw, content_type="application/json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert response.status_code < 500
    assert len(response.content) < SHORT_ANSWER
    if more and shape.get("format") != "date-time":
        assert response.status_code == 400
        assert field in response.json()["fields"]
    assert peak < 16 * len(raw) + 16 * 1024 * 1024


LISTS = ("device_names", "source_versions", "events", "states")


@pytest.mark.parametrize(("method", "path"), sorted({(method, path) for method, path, *_rest in BODIES}))
@pytest.mark.parametrize(
    "nonsense",
    [
        {f"field{number}": 1 for number in range(10_000)},
        {"x" * 500_000: 1},
        {name: [{"a": []}] * 5000 for name in LISTS},
        {name: ["no"] * 5000 for name in LISTS},
        {"policy": "x" * 900_000, "name": "x" * 90_000, "reason": "x" * 9000},
    ],
    ids=["unknown", "long", "objects", "wrong", "echo"],
)
def test_nonsense_is_answered_shortly(
    administrator: APIClient, fill: Any, method: str, path: str, nonsense: dict[str, Any]
) -> None:
    response = getattr(administrator, method)(
        fill(path), json.dumps(nonsense), content_type="application/json"
    )
    assert response.status_code in (400, 404, 409)
    assert len(response.content) < SHORT_ANSWER


def test_at_most_twenty_unknown_fields_are_named_and_the_others_counted(administrator: APIClient) -> None:
    response = administrator.post(f"{V1}tokens/", {f"field{number}": 1 for number in range(40_000)})
    assert code_of(response) == (400, "invalid")
    assert len(response.json()["fields"]) == MAX_UNKNOWN == 20
    assert "39,980 more fields are unknown." in response.json()["message"]
    response = administrator.get(f"{V1}tokens/?" + "&".join(f"f{number}=" for number in range(100)))
    assert "80 more fields are unknown." in response.json()["message"]


def test_at_most_a_hundred_errors_are_told_and_the_others_counted(
    operator: APIClient, firmware: Firmware
) -> None:
    names = [f"ghost-{number}" for number in range(MAX_VALIDATED)]
    response = operator.post(f"{V1}firmware/{firmware.pk}/validate/", {"device_names": names})
    assert code_of(response) == (400, "invalid")
    assert len(response.json()["fields"]["device_names"]) == MAX_ERRORS == 100
    assert response.json()["message"].endswith("900 more errors are not listed.")


def test_the_end_of_a_long_name_and_sentence_is_left_out() -> None:
    problems = {"n" * 5000: [("c", "s" * 5000)], **{str(number): [("c", "s")] for number in range(200)}}
    answer = body("invalid", "m" * 5000, problems)
    assert max(map(len, answer["fields"])) == LONGEST_NAME
    assert sum(map(len, answer["fields"].values())) == MAX_ERRORS
    assert len(answer["message"]) < 1100
    assert "101 more errors" in answer["message"]


def test_an_error_that_is_alone_is_told_whole() -> None:
    answer = body("invalid", "m", {"name": [("c", "sentence")] * MAX_ERRORS})
    assert (len(answer["fields"]["name"]), answer["message"]) == (100, "m")


@pytest.mark.parametrize(
    ("path", "filler", "count"),
    [
        ("campaigns/preview/", b"[],", SHORT_JSON // 3),
        ("campaigns/preview/", b"1,", MAX_VALUES + 1),
        ("campaigns/", b"{},", SHORT_JSON // 3),
        ("webhooks/", b"   ", SHORT_JSON // 3),
    ],
)
def test_a_body_that_would_grow_in_memory_is_refused_before_it_is_parsed(
    administrator: APIClient, path: str, filler: bytes, count: int
) -> None:
    raw = b'{"device_names": [' + filler * count + b'"x"]}'
    assert SHORT_JSON < len(raw) < LONG_JSON
    tracemalloc.start()
    response = administrator.post(f"{V1}{path}", raw, content_type="application/json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code_of(response) == (413, "too_large")
    assert peak < 4 * len(raw) + 4 * 1024 * 1024


def test_a_query_or_a_form_of_too_many_fields_is_malformed(operator: APIClient, product: Product) -> None:
    many = "&".join(f"f{number}=" for number in range(1001))
    assert code_of(operator.get(f"{V1}products/?{many}")) == (400, "malformed")
    form = {f"f{number}": "x" for number in range(1001)}
    assert code_of(operator.post(f"{V1}firmware/", form, format="multipart")) == (400, "malformed")
    large = operator.post(f"{V1}firmware/", {"name": "x" * 3_000_000}, format="multipart")
    assert code_of(large) == (413, "too_large")
