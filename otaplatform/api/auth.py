"""Who asks, and whether the role allows it."""

import hashlib
import time
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken
from redis.exceptions import RedisError
from rest_framework import exceptions, permissions, throttling
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from otaplatform.accounts.models import User
from otaplatform.core.throttling import FailureLimit

_wrong_tokens = FailureLimit("api-auth", "OTA_API_AUTH_FAILURES")

if TYPE_CHECKING:  # Django REST framework's views read this module while they are being imported.
    from rest_framework.views import APIView


class TokenAuthentication(KnoxTokenAuthentication):  # type: ignore[misc]
    """`Authorization: Token …`. Tokens are stored as hashes, expire, and are found by their whole hash."""

    def authenticate(self, request: Request) -> tuple[User, AuthToken] | None:
        """An address that has sent many wrong tokens waits before its next one is looked up."""
        if not request.headers.get("Authorization", "").lower().startswith("token"):
            return None
        if _wrong_tokens.is_blocked(request._request):
            raise exceptions.Throttled(_wrong_tokens.wait())
        try:
            found: tuple[User, AuthToken] | None = super().authenticate(request)
        except exceptions.AuthenticationFailed:
            _wrong_tokens.count_failure(request._request)
            raise
        return found

    def authenticate_credentials(self, token: bytes) -> tuple[User, AuthToken]:
        rows = AuthToken.objects.select_related("user__account")
        found = rows.filter(digest=hash_token(token.decode("latin-1"))).first()
        if found is None or (found.expiry and found.expiry <= timezone.now()) or not found.user.is_active:
            raise exceptions.AuthenticationFailed
        return found.user, found


class BrowserAuthentication(SessionAuthentication):
    """The console's own login; asks for the CSRF token as every form does."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        found = super().authenticate(request)
        return None if found and getattr(found[0], "must_change_password", False) else found


class RolePermission(permissions.BasePermission):
    """The permission that the view names for its action, from the user's role.

    An action without one (a method that the address does not know) is open to everybody who is logged in.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        needed = getattr(view, "permissions", {}).get(getattr(view, "action", None) or "", "")
        return not needed or request.user.has_perm(needed)


class RateThrottle(throttling.BaseThrottle):
    """OTA_API_RATE requests a minute of each user (or address). A cache that is down lets everything pass."""

    WINDOW = 60

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """One counter for each minute, moved by the cache itself, so several processes count together."""
        limit, now = settings.OTA_API_RATE, time.time()
        self.left = self.WINDOW - now % self.WINDOW
        if not limit:
            return True
        who = f"user {request.user.pk}" if request.user.is_authenticated else self.get_ident(request)
        name = hashlib.sha256(str(who).encode()).hexdigest()[:32]
        key = f"api-rate:{name}:{int(now // self.WINDOW)}"
        try:
            cache.add(key, 0, 2 * self.WINDOW)
            return bool(cache.incr(key) <= limit)
        except (RedisError, OSError, ValueError):
            return True

    def wait(self) -> float:
        """Seconds until the next minute."""
        return self.left
