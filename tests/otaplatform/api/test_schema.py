"""The OpenAPI description: committed, complete, and shown by viewers from our own files."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client
from django.utils import translation
from drf_spectacular.generators import SchemaGenerator

from otaplatform.api.codes import CODES
from otaplatform.api.examples import EXAMPLES

COMMITTED = Path(settings.BASE_DIR) / "docs" / "openapi.json"


def _generated() -> Any:
    generator: Any = SchemaGenerator
    return generator().get_schema(request=None, public=True)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    with translation.override("en"):
        found: dict[str, Any] = json.loads(json.dumps(_generated(), default=str))
    return found


def operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in schema["paths"].values() for operation in path.values()]


def test_the_schema_is_the_committed_one(schema: dict[str, Any]) -> None:
    """`manage.py spectacular --format openapi-json --file docs/openapi.json` writes it anew."""
    assert json.loads(COMMITTED.read_text()) == schema


def test_every_operation_says_what_it_does_and_how_it_may_fail(schema: dict[str, Any]) -> None:
    found = operations(schema)
    names = [operation["operationId"] for operation in found]
    assert len(names) == len(set(names)) > 50
    for operation in found:
        assert operation["summary"], operation["operationId"]
        assert {"400", "401", "403", "404", "429", "500"} <= set(operation["responses"])


def test_every_code_of_the_catalogue_is_in_the_schema_and_in_the_docs(schema: dict[str, Any]) -> None:
    assert set(schema["components"]["schemas"]["Error"]["properties"]["code"]["enum"]) == set(CODES)
    text = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
    for code, (status, _sentence) in CODES.items():
        assert f"| `{code}` | {status} |" in text, code


def test_the_examples_fit_their_shapes(schema: dict[str, Any]) -> None:
    shown = {}
    for operation in operations(schema):
        for status, answer in operation["responses"].items():
            for media in answer.get("content", {}).values():
                if "example" in media:
                    jsonschema.validate(media["example"], media["schema"] | _closed(schema), _validator())
                    shown[operation["operationId"]] = status
        for media in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                jsonschema.validate(media["example"], media["schema"] | _closed(schema), _validator())
    assert set(shown) == set(EXAMPLES)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The components with `nullable` in the words of JSON Schema, and nothing beside what is listed."""

    def close(node: Any) -> Any:
        if isinstance(node, list):
            return [close(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: close(value) for key, value in node.items()}
        if node.pop("nullable", False) and isinstance(node.get("type"), str):
            node["type"] = [node["type"], "null"]
        if "properties" in node and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        return node

    return {"components": close(schema["components"])}


def _validator() -> Any:
    return jsonschema.Draft7Validator


def test_the_schema_is_served_without_a_login(db: None) -> None:
    response = Client().get("/api/v1/schema/")
    assert response.status_code == 200
    assert json.loads(response.content)["openapi"].startswith("3.")


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_the_viewers_load_nothing_from_elsewhere_and_run_nothing_inline(db: None, page: str) -> None:
    response = Client().get(f"/api/v1/{page}/")
    text = response.content.decode()
    assert "http:" not in text
    assert "https:" not in text
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    for name in text.split('src="/static/')[1:]:
        assert finders.find(name.partition('"')[0])


def test_the_script_of_the_viewer_carries_the_csrf_token(db: None) -> None:
    browser = Client()
    script = browser.get("/api/v1/docs/swagger.js").content.decode()
    assert browser.cookies["csrftoken"].value
    assert 'const csrf = "' in script
    assert "{{" not in script
