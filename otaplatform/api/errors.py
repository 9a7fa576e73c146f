"""Every error as `{"code", "message", "fields"}`, in the language that the request asks for."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from django.core.exceptions import (
    NON_FIELD_ERRORS,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.core.signals import got_request_exception
from django.db import IntegrityError
from django.http import Http404
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django_stubs_ext import StrOrPromise
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from campaigns.services import RefusedError
from firmware.errors import FirmwareInUseError
from otaplatform.api.codes import CODES, CONFLICTS

logger = logging.getLogger(__name__)

# {field: [(code, sentence)]}
Problems = dict[str, list[tuple[str, str]]]
# An answer is bounded whatever was sent: errors and unknown fields told, characters of a name and a sentence.
MAX_ERRORS, MAX_UNKNOWN = 100, 20
LONGEST_NAME, LONGEST_SENTENCE = 100, 1000
_OF_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    429: "throttled",
}


class ApiError(exceptions.APIException):
    """A refusal with a code of the catalogue; without a message of its own it has the catalogue's."""

    def __init__(self, code: str, message: StrOrPromise = "", problems: Problems | None = None) -> None:
        self.status_code, default = CODES[code]
        self.code, self.message, self.problems = code, str(message or default), problems or {}
        super().__init__(self.message, code)


def body(code: str, message: StrOrPromise = "", problems: Problems | None = None) -> dict[str, Any]:
    """The answer of an error, with the first MAX_ERRORS of its problems and the count of the others."""
    fields: dict[str, list[dict[str, str]]] = {}
    left = MAX_ERRORS
    for field, errors in (problems or {}).items():
        if shown := errors[:left]:
            fields[_short(field, LONGEST_NAME)] = [
                {"code": code, "message": _short(text, LONGEST_SENTENCE)} for code, text in shown
            ]
        left -= len(shown)
    sentence = _short(str(message or CODES[code][1]), LONGEST_SENTENCE)
    if others := sum(map(len, (problems or {}).values())) - MAX_ERRORS + left:
        more = ngettext("%(n)s more error is not listed.", "%(n)s more errors are not listed.", others)
        sentence = f"{sentence} {more % {'n': f'{others:,}'}}"
    return {"code": code, "message": sentence, "fields": fields}


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else Truncator(text[: length + 1]).chars(length)


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """Django REST framework's exception handler: nothing leaves the API in another form."""
    set_rollback()
    refusal = _refusal(error, getattr(context.get("view"), "field_names", {}))
    headers = {}
    if isinstance(error, exceptions.APIException):
        if header := getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = header
        if (wait := getattr(error, "wait", None)) is not None:
            headers["Retry-After"] = str(max(1, round(wait + 0.5)))
    if refusal is None:
        logger.exception("the API failed")
        got_request_exception.send(sender=handle, request=context.get("request"))
        return Response(body("server_error"), 500)
    answer = body(refusal.code, refusal.message, refusal.problems)
    return Response(answer, refusal.status_code, headers=headers)


def _refusal(error: Exception, names: Mapping[str, str]) -> ApiError | None:
    """What an exception means to the caller; None for one that is our own fault."""
    match error:
        case ApiError():
            return error
        case RefusedError():
            return ApiError(error.code if error.code in CODES else "conflict", " ".join(error.messages))
        case ValidationError():
            return _invalid(_problems_of_django(error), names)
        case exceptions.ValidationError():
            return _invalid(dict(_problems_of_rest(error.get_full_details())), names)
        case FirmwareInUseError():
            return ApiError("in_use", str(error))
        case IntegrityError():
            return ApiError("conflict")
        case Http404():
            return ApiError("not_found")
        case RequestDataTooBig():
            return ApiError("too_large")
        case SuspiciousOperation():
            return ApiError("malformed")
        case PermissionDenied():
            return ApiError("forbidden")
        case exceptions.APIException():
            code = _OF_STATUS.get(error.status_code)
            return ApiError(code, str(error.detail) if code == "malformed" else "") if code else None
        case _:
            return None


def _invalid(problems: Problems, names: Mapping[str, str]) -> ApiError:
    """Wrong values are 400; if nothing but the state of things stands against them, 409."""
    codes = [code for errors in problems.values() for code, _text in errors]
    general = " ".join(text for _code, text in problems.pop(NON_FIELD_ERRORS, []))
    fields = {names.get(field, field): errors for field, errors in problems.items()}
    conflicts = {CONFLICTS[code] for code in codes if code in CONFLICTS}
    code = conflicts.pop() if conflicts and all(code in CONFLICTS for code in codes) else "invalid"
    if not general and fields:
        firsts = (text for errors in fields.values() for _code, text in errors[:1])
        general = " ".join(islice(firsts, MAX_UNKNOWN))
    return ApiError(code, general, fields)


def _problems_of_django(error: ValidationError) -> Problems:
    errors = error.error_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.error_list}
    return {
        field: [(each.code or "invalid", str(text)) for each in found for text in each.messages]
        for field, found in errors.items()
    }


def _problems_of_rest(details: Any, path: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Nested details flattened: an item of a list is `device_names.3`."""
    if isinstance(details, Mapping):
        for name, inner in details.items():
            step = NON_FIELD_ERRORS if name == "non_field_errors" else str(name)
            yield from _problems_of_rest(inner, f"{path}.{step}" if path else step)
    elif isinstance(details, Sequence) and details and "message" not in details[0]:
        for number, inner in enumerate(details):
            yield from _problems_of_rest(inner, f"{path}.{number}")
    elif details:
        yield path or NON_FIELD_ERRORS, [(str(d["code"]), str(d["message"])) for d in details]


def unknown(names: Iterable[str]) -> ApiError:
    """The refusal of fields or parameters that an address does not have; the first MAX_UNKNOWN are named."""
    found = list(names)
    text = _("There is no such field.")
    message = ""
    if (others := len(found) - MAX_UNKNOWN) > 0:
        more = ngettext("%(n)s more field is unknown.", "%(n)s more fields are unknown.", others)
        message = f"{CODES['invalid'][1]} {more % {'n': f'{others:,}'}}"
    return ApiError("invalid", message, {name: [("unknown", text)] for name in sorted(found[:MAX_UNKNOWN])})
