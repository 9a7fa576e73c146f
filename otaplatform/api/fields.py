"""Strict fields and serializers: a number is a number, a time has its zone, nothing unknown is read over."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.fields import empty

from otaplatform.api.codes import CODES
from otaplatform.api.errors import unknown

MAX_ID = 2**63 - 1


class Text(serializers.CharField):
    """Text as it was sent: not trimmed, and no number in its place."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


class Truth(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid", input=data)
        return data


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        # Looked for one by one: a list or an object has no hash.
        if not any(type(choice) is type(data) and choice == data for choice in self.choices):
            self.fail("invalid_choice", input=data)
        return data


class Moment(serializers.DateTimeField):
    """A time of ISO 8601 that names its zone; answered in UTC."""

    default_error_messages = {"zone": _("Write the time with its zone, for example 2030-01-31T08:00:00Z.")}

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"default_timezone": UTC, **options})

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = parse_datetime(data) if isinstance(data, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail("zone")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            self.fail("zone")


class Texts(serializers.Field[list[str], Any, list[str], Any]):
    """A list of short texts, checked as a whole: a million names take a second, not ten."""

    default_error_messages = {
        "not_a_list": _("Send a list of texts of at most 64 characters."),
        "too_many": _("At most %(limit)s items can be sent."),
        "empty": _("Send at least one item."),
    }

    def __init__(self, *, limit: int, allow_empty: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.limit, self.allow_empty = limit, allow_empty

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            self.fail("not_a_list")
        if len(data) > self.limit:
            message = str(self.error_messages["too_many"]) % {"limit": self.limit}
            raise serializers.ValidationError(message, code="too_many")
        if any(type(item) is not str or len(item) > 64 or "\0" in item for item in data):
            self.fail("not_a_list")
        if not data and not self.allow_empty:
            self.fail("empty")
        try:
            "".join(data).encode()
        except UnicodeEncodeError:
            self.fail("not_a_list")
        return data

    def to_representation(self, value: list[str]) -> list[str]:
        return value


class Choices(serializers.ListField):
    """A list of choices. Its length is judged before its items are looked at."""

    def __init__(self, choices: Any, **options: Any) -> None:
        super().__init__(child=Choice(choices), allow_empty=False, max_length=len(list(choices)), **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        assert self.max_length is not None
        if isinstance(data, list) and len(data) > self.max_length:
            message = str(self.error_messages["max_length"]).format(max_length=self.max_length)
            raise serializers.ValidationError(message, code="max_length")
        return super().to_internal_value(data)


class Strict(serializers.Serializer[Any]):
    """Refuses what it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        refuse_unknown(self, data)
        return super().to_internal_value(data)

    def run_validation(self, data: Any = empty) -> Any:
        return super().run_validation({} if data in (None, "") else data)


class StrictModel(serializers.ModelSerializer[Any]):
    """A Strict over a model: the rules of a field are the model's."""

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.CharField: Text,
        models.TextField: Text,
        models.URLField: serializers.URLField,
        models.BooleanField: Truth,
        models.PositiveIntegerField: Whole,
        models.PositiveSmallIntegerField: Whole,
        models.DateTimeField: Moment,
    }
    serializer_choice_field = Choice

    def to_internal_value(self, data: Any) -> Any:
        refuse_unknown(self, data)
        return super().to_internal_value(data)


def refuse_unknown(serializer: serializers.Serializer[Any], data: Any) -> None:
    if isinstance(data, Mapping):
        writable = {name for name, field in serializer.fields.items() if not field.read_only}
        if strange := [str(name) for name in data if name not in writable]:
            raise unknown(strange)


class Shown(serializers.ModelSerializer[Any]):
    """What is answered of a row. Times are in UTC."""

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DateTimeField: Moment,
    }

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.Meta.read_only_fields = cls.Meta.fields


class ErrorItem(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class Error(serializers.Serializer[Any]):
    code = serializers.ChoiceField(sorted(CODES))
    message = serializers.CharField(help_text="A sentence in the language of Accept-Language")

    def get_fields(self) -> dict[str, Any]:
        # A serializer has an attribute of this name, so the field cannot be declared as the others are.
        items = serializers.ListField(child=ErrorItem())
        return super().get_fields() | {"fields": serializers.DictField(child=items)}
