"""How the OpenAPI schema is made: from the tables of each resource, with every error it may answer."""

from functools import cache
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, inline_serializer
from rest_framework import serializers

from otaplatform.api.codes import CODES
from otaplatform.api.examples import EXAMPLES
from otaplatform.api.fields import Error
from otaplatform.api.serializers.devices import JobFile, JobNew

_TITLES = {
    "ProductResource": "products",
    "DeviceResource": "devices",
    "JobResource": "devices",
    "FirmwareResource": "firmware",
    "CampaignResource": "campaigns",
    "TaskResource": "tasks",
    "AuditResource": "audit",
    "TokenResource": "tokens",
    "WebhookResource": "webhooks",
}
_ALWAYS = (400, 401, 403, 404, 406, 429, 500)
_WITH_BODY = (409, 411, 413, 415)
_LISTS = {"list", "history", "tasks", "events", "deliveries", "rows"}


class Tokens(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "otaplatform.api.auth.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token ` and a token of `manage.py create_token` or of `POST /tokens/`",
        }


class Sessions(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "otaplatform.api.auth.BrowserAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


class TextLists(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "otaplatform.api.fields.Texts"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {
            "type": "array",
            "items": {"type": "string", "maxLength": 64},
            "minItems": 0 if self.target.allow_empty else 1,
            "maxItems": self.target.limit,
        }


class Schema(AutoSchema):
    """Describes an action of a `Resource`."""

    view: Any  # a Resource

    def get_tags(self) -> list[str]:
        return [_TITLES[type(self.view).__name__]]

    def get_operation_id(self) -> str:
        name = type(self.view).__name__.removesuffix("Resource").lower()
        return f"{name}_{self.view.action}"

    def get_summary(self) -> str:
        return self.get_description().partition(". ")[0].partition("\n")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        text = (getattr(self.view, self.view.action).__doc__ or "").strip()
        needed = self.view.permissions.get(self.view.action)
        return f"{text}\n\nPermission: `{needed}`." if needed else text

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = []
        if self.view.action in self.view.filters:
            found.append(self.view.filters[self.view.action])
        if self.method == "POST":
            found.append(
                OpenApiParameter(
                    "Idempotency-Key",
                    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                    OpenApiParameter.HEADER,
                    description="Repeating the request with the same key gives the same answer.",
                )
            )
        if self._edits():
            found.append(
                OpenApiParameter(
                    "If-Match", str, OpenApiParameter.HEADER, description="The ETag that was read"
                )
            )
        return found

    def _edits(self) -> bool:
        return "partial_update" in self.view.outputs and self.view.action in ("partial_update", "destroy")

    def get_request_serializer(self) -> Any:
        shape = self.view.inputs.get(self.view.action)
        if shape is JobNew:
            return {"application/json": JobNew, "multipart/form-data": JobFile}
        return shape

    def get_response_serializers(self) -> Any:
        status, shape = self.view.outputs[self.view.action]
        if shape is None:
            answers: dict[int, Any] = {status: OpenApiResponse(description="Done")}
        elif self.view.action in _LISTS:
            answers = {status: _page_of(shape)}
        else:
            answers = {status: shape}
        errors = set(_ALWAYS)
        if self.method == "POST" or self.view.inputs.get(self.view.action):
            errors.update(_WITH_BODY)
        if self.method in ("PATCH", "DELETE"):
            errors.add(409)
        if self._edits():
            errors.add(412)
        for error in sorted(errors):
            codes = ", ".join(f"`{code}`" for code, (of, _text) in CODES.items() if of == error)
            answers[error] = OpenApiResponse(Error, description=f"Codes: {codes}")
        return answers

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False

    def map_parsers(self) -> list[Any]:
        return [parser.media_type for parser in self.view.get_parsers()]


@cache
def _page_of(shape: type[Any]) -> Any:
    return inline_serializer(
        f"{shape.__name__.removesuffix('Shown')}Page",
        {
            "results": shape(many=True),
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
        },
    )


def finish(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: what its tables cannot say, and the examples."""
    for name, component in result["components"]["schemas"].items():
        # Class docstrings are for readers of the code, the models' labels for forms.
        component.pop("description", None)
        for shape in component.get("properties", {}).values():
            shape.pop("title", None)
            shape.pop("x-spec-enum-id", None)
            if "enum" in shape:
                # The range of the column, which is the database's own.
                shape.pop("minimum", None)
                shape.pop("maximum", None)
            if "enum" in shape:
                # The range of the database's column says less than the values, and differs between databases.
                shape.pop("minimum", None)
                shape.pop("maximum", None)
        if name.endswith("Request"):
            component["additionalProperties"] = False
    for path in result["paths"].values():
        for operation in path.values():
            example = EXAMPLES.get(operation["operationId"], {})
            bodies = [operation.get("requestBody", {})] if "request" in example else []
            for body in bodies:
                for media in body["content"].values():
                    media["example"] = example["request"]
            for status, answer in operation["responses"].items():
                for media in answer.get("content", {}).values():
                    if status.startswith("2") and "response" in example:
                        media["example"] = example["response"]
    return result
