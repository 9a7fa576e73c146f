"""Addresses from which wrong logins come too often."""

import hashlib
import time

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError
from rest_framework.throttling import BaseThrottle

WINDOW = 60


def _key(request: HttpRequest) -> str:
    # Which address a proxy names, and whether it is believed, is settled for the API already.
    address = str(BaseThrottle().get_ident(request))  # type: ignore[arg-type]
    return f"device-auth:{hashlib.sha256(address.encode()).hexdigest()[:32]}:{int(time.time() // WINDOW)}"


def is_blocked(request: HttpRequest) -> bool:
    """Whether the address had its wrong logins of this minute. A cache that is down blocks nobody."""
    limit = settings.OTA_HTTP_AUTH_FAILURES
    try:
        return bool(limit) and int(cache.get(_key(request)) or 0) >= limit
    except (RedisError, OSError, ValueError):
        return False


def count_failure(request: HttpRequest) -> None:
    key = _key(request)
    try:
        cache.add(key, 0, 2 * WINDOW)
        cache.incr(key)
    except (RedisError, OSError, ValueError):
        return
