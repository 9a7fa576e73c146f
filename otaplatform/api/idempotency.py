"""`Idempotency-Key`: a POST repeated with the same key gets the same answer and does nothing twice."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request

from otaplatform.accounts.models import User
from otaplatform.api.errors import ApiError
from otaplatform.api.models import IdempotencyKey

HEADER = "Idempotency-Key"
KEEP = timedelta(days=1)
# Longer than any request runs: the process of an older claim without an answer has died.
LONGEST_REQUEST = timedelta(minutes=10)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# What says nothing about the request itself: the key may be used again.
_NOT_KEPT = frozenset({401, 403, 429})


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer of the first request."""

    status: int
    data: Any
    headers: dict[str, str]


def fingerprint(request: Request) -> str:
    """SHA-256 over what the request asks: method, address, and the body's meaning (not its spelling)."""
    digest = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    data = request.data
    if hasattr(data, "lists"):
        for name, values in sorted(data.lists()):
            for value in values:
                digest.update(f"{name}\0".encode())
                digest.update(_of_file(value) if isinstance(value, UploadedFile) else str(value).encode())
    else:
        digest.update(json.dumps(data, sort_keys=True).encode())
    return digest.hexdigest()


def _of_file(upload: "UploadedFile[bytes]") -> bytes:
    digest = hashlib.sha256(f"{upload.name}\0".encode())
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return digest.digest()


def claim(request: Request, user: User, now: datetime | None = None) -> IdempotencyKey | Kept | None:
    """Our claim on the request's key, or the answer that is kept under it; None without a key.

    Raises ApiError: the key is malformed, was used for another request, or its request is still running.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = _("An Idempotency-Key has 1 to 255 visible ASCII characters.")
        raise ApiError("invalid", problems={HEADER: [("invalid", message)]})
    now = now or timezone.now()
    mark = fingerprint(request)
    try:
        with transaction.atomic():
            return IdempotencyKey.objects.create(user=user, key=key, fingerprint=mark, claimed_at=now)
    except IntegrityError:
        pass
    row = IdempotencyKey.objects.filter(user=user, key=key).first()
    if row is None:
        raise ApiError("idempotency_running")
    if row.claimed_at < now - KEEP or (row.status is None and row.claimed_at < now - LONGEST_REQUEST):
        claimed = IdempotencyKey.objects.filter(pk=row.pk, claimed_at=row.claimed_at, status=row.status)
        if claimed.update(fingerprint=mark, claimed_at=now, status=None, answer_encrypted=""):
            return IdempotencyKey.objects.get(pk=row.pk)
        raise ApiError("idempotency_running")
    if row.fingerprint != mark:
        raise ApiError("idempotency_mismatch")
    if row.status is None:
        raise ApiError("idempotency_running")
    kept = json.loads(row.answer)
    return Kept(row.status, kept["data"], kept["headers"])


def keep(claimed: IdempotencyKey, status: int, rendered: bytes, headers: dict[str, str]) -> None:
    """Store the answer under our claim; an answer that says nothing about the request frees the key."""
    mine = IdempotencyKey.objects.filter(pk=claimed.pk, claimed_at=claimed.claimed_at)
    if status in _NOT_KEPT or status >= 500:
        mine.delete()
        return
    claimed.answer = json.dumps({"data": json.loads(rendered or b"null"), "headers": headers})
    mine.update(status=status, answer_encrypted=claimed.answer_encrypted)


def forget(now: datetime | None = None) -> int:
    """Remove keys whose time is over."""
    return IdempotencyKey.objects.filter(claimed_at__lt=(now or timezone.now()) - KEEP).delete()[0]
