"""What every resource shares: scope, language, strict input, repeated requests, conditional edits."""

import hashlib
import json
from typing import Any, ClassVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db.models import QuerySet
from django.http import Http404
from django.utils import timezone, translation
from django.utils.functional import cached_property
from knox.models import AuthToken
from rest_framework import serializers, viewsets
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from otaplatform.accounts.models import Account, User
from otaplatform.accounts.scope import account_scope
from otaplatform.api import idempotency, paging
from otaplatform.api.errors import ApiError, unknown
from otaplatform.api.models import IdempotencyKey
from otaplatform.api.parsers import JSONParser


class Filters(serializers.Serializer[Any]):
    """Query parameters of a list; a resource adds its own."""

    cursor = serializers.CharField(required=False, max_length=500)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=paging.MAX_PAGE_SIZE)


class Resource(viewsets.GenericViewSet[Any]):
    """Actions over rows of the request's account.

    The tables say, for each action, which permission it needs, what it reads, which query parameters it
    knows and what it answers; the schema is made from the same tables.
    """

    parser_classes = [JSONParser]
    http_method_names = ["get", "post", "patch", "delete", "head"]
    permissions: ClassVar[dict[str, str]] = {}
    inputs: ClassVar[dict[str, type[serializers.BaseSerializer[Any]]]] = {}
    # action -> (status, what one object looks like); lists are pages of it, None is no body.
    outputs: ClassVar[dict[str, tuple[int, type[serializers.BaseSerializer[Any]] | None]]] = {}
    filters: ClassVar[dict[str, type[Filters]]] = {}
    # Fields whose errors the verbs report under another name.
    field_names: ClassVar[dict[str, str]] = {}
    # How long a body may be, in bytes, of actions whose body is not short.
    json_limits: ClassVar[dict[str, int]] = {}
    _claimed: IdempotencyKey | None = None

    # ---- who asks -----------------------------------------------------------------------------------

    @cached_property
    def account(self) -> Account | None:
        """Whose rows may be seen; None (a superuser who chose no account) sees all."""
        return account_scope(self.request._request)

    @property
    def own_account(self) -> Account:
        """The account in which something new is made."""
        if self.account is None:
            raise ApiError("no_account")
        return self.account

    @property
    def actor(self) -> User:
        return cast("User", self.request.user)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not self.action:
            self.http_method_not_allowed(request)
        # A server that does not measure bodies (`otaplatform.requests` does): no body is ever guessed empty.
        if "Transfer-Encoding" in request.headers and not request.META.get("CONTENT_LENGTH"):
            raise ApiError("length_required")
        if isinstance(request.auth, AuthToken):
            self._prefer(request)
        _ = self.account
        known = set(self.filters[self.action]().fields) if self.action in self.filters else set()
        if strange := [name for name in request.query_params if name not in known]:
            raise unknown(strange)
        if request.method == "POST":
            claimed = idempotency.claim(request, self.actor)
            if isinstance(claimed, idempotency.Kept):
                raise _ReplayError(claimed)
            self._claimed = claimed

    def _prefer(self, request: Request) -> None:
        """A token has no session: sentences come in the user's zone, and language unless one is asked for."""
        if self.actor.language and "Accept-Language" not in request.headers:
            translation.activate(self.actor.language)
        try:
            timezone.activate(ZoneInfo(self.actor.time_zone or "UTC"))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            timezone.activate(ZoneInfo("UTC"))

    # ---- requests that are repeated -----------------------------------------------------------------

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, _ReplayError):
            headers = {**exc.kept.headers, "Idempotency-Replayed": "true"}
            return Response(exc.kept.data, exc.kept.status, headers=headers)
        return super().handle_exception(exc)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        # Secrets are among the answers, and no answer is worth keeping.
        response["Cache-Control"] = "no-store"
        if self._claimed:
            headers = {name: response[name] for name in ("Location",) if name in response}
            data = b"" if response.data is None else JSONRenderer().render(response.data)
            idempotency.keep(self._claimed, response.status_code, data, headers)
            self._claimed = None
        return response

    # ---- in and out ---------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """The body, checked."""
        serializer = self.inputs[self.action](data=self.request.data, context={"view": self})
        serializer.is_valid(raise_exception=True)
        return cast("dict[str, Any]", serializer.validated_data)

    def asked(self) -> dict[str, Any]:
        """The query parameters, checked."""
        serializer = self.filters[self.action](data=self.request.query_params.dict(), context={"view": self})
        serializer.is_valid(raise_exception=True)
        return cast("dict[str, Any]", serializer.validated_data)

    def show(self, row: Any, **context: Any) -> Response:
        status, shown = self.outputs[self.action]
        assert shown is not None, "an action that answers nothing shows nothing"
        data = shown(row, context={"request": self.request, **context}).data
        headers = {"ETag": etag(data)} if self.action in ("retrieve", "partial_update") else None
        return Response(data, status, headers=headers)

    def page(self, rows: "QuerySet[Any]", *order: str) -> paging.Page:
        """The page of `rows` that is asked for, newest first unless an order is given."""
        size = self.asked().get("page_size", paging.PAGE_SIZE)
        return paging.page(self.request, rows, *(order or ("-id",)), size=size)

    def list_of(self, page: paging.Page, rows: Any = None, **context: Any) -> Response:
        """A page as `{results, next, previous}`; `rows` if not the page's rows themselves are shown."""
        _status, shown = self.outputs[self.action]
        assert shown is not None, "a list shows rows"
        found = page.rows if rows is None else rows
        data = shown(found, many=True, context={"request": self.request, **context}).data
        return Response({"results": data, "next": page.next, "previous": page.previous})

    def unchanged(self, row: Any) -> None:
        """Hold `If-Match` against a row that was read under lock."""
        wanted = self.request.headers.get("If-Match")
        if wanted is None or wanted.strip() == "*":
            return
        shown = self.outputs["retrieve"][1]
        assert shown is not None, "what is edited can be read"
        if etag(shown(row, context={"request": self.request}).data) not in [
            tag.strip() for tag in wanted.split(",")
        ]:
            raise ApiError("precondition_failed")


class _ReplayError(Exception):
    def __init__(self, kept: idempotency.Kept) -> None:
        super().__init__()
        self.kept = kept


def etag(data: Any) -> str:
    """A strong tag of what is shown of an object."""
    text = json.dumps(data, sort_keys=True, default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def one(rows: "QuerySet[Any]", **lookup: Any) -> Any:
    """The one row, or 404: another account's is as absent as one that never was."""
    found = rows.filter(**lookup).first()
    if found is None:
        raise Http404
    return found
