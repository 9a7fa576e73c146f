"""Request bodies, read no further than they may be long."""

import json
import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework import exceptions, parsers

from campaigns.services import MAX_CHOSEN
from otaplatform.api.errors import ApiError

# A million DeviceNames; every other body is a few kilobytes.
LONG_JSON = 64 * 1024 * 1024
SHORT_JSON = 1024 * 1024
# A value takes many times its bytes in memory. Counted before they are made; the longest list has a million.
MAX_VALUES = MAX_CHOSEN + 2000
MAX_NESTED = 1000
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


class JSONParser(parsers.BaseParser):
    """JSON objects, strictly: no NaN, nothing twice, nothing nested without end."""

    media_type = "application/json"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        view: Any = (parser_context or {}).get("view")
        limit = getattr(view, "json_limits", {}).get(getattr(view, "action", None), SHORT_JSON)
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise ApiError("too_large")
        if len(raw) > SHORT_JSON and (
            raw.count(b",") > MAX_VALUES or raw.count(b"[") + raw.count(b"{") > MAX_NESTED
        ):
            raise ApiError("too_large")
        try:
            data = json.loads(
                raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
            )
            if _HALF.search(raw):
                # Half a surrogate pair can be neither stored nor answered.
                json.dumps(data, ensure_ascii=False).encode()
            return data
        except (ValueError, RecursionError):
            raise exceptions.ParseError(_("The body is not valid JSON.")) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


class MultiPartParser(parsers.MultiPartParser):
    """Forms with a file; refused at once if Content-Length is more than the largest firmware needs."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        # That the header tells the truth is `otaplatform.requests`' business.
        length = int((parser_context or {})["request"].META.get("CONTENT_LENGTH") or 0)
        if length > (settings.OTA_MAX_FIRMWARE_MB + 1) * 1024 * 1024:
            raise ApiError("too_large")
        return super().parse(stream, media_type, parser_context)
