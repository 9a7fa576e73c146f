"""What the verbs of this app refuse with: a sentence for people, beside the field it is about."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django_stubs_ext import StrOrPromise


class FirmwareRefusedError(ValidationError):
    """An upload or association that breaks a rule.

    `error_dict` maps a field (of the form, and of the API) to its errors, each with a code and a
    translatable message, so forms take it by `add_error(None, …)` and serializers by `message_dict`.
    """

    @classmethod
    def of(cls, field: str, message: StrOrPromise, code: str, **params: Any) -> "FirmwareRefusedError":
        return cls({field: ValidationError(message, code=code, params=params or None)})

    @property
    def codes(self) -> dict[str, list[str]]:
        """{field: its codes}, for programs."""
        return {field: [error.code or "" for error in errors] for field, errors in self.error_dict.items()}


class FirmwareInUseError(Exception):
    """A firmware that campaigns use stays; `campaigns` are they, oldest first."""

    def __init__(self, message: str, campaigns: Iterable[Any]) -> None:
        super().__init__(message)
        self.campaigns = list(campaigns)


class FileUnavailableError(Exception):
    """A stored file is missing, or is no longer what was uploaded. The text says which, for the log."""
