"""Whose wrong attempts are counted together, and the counters of those that are cheap to make."""

import hashlib
import time
from ipaddress import IPv6Address, ip_address, ip_network

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError
from rest_framework.throttling import BaseThrottle

WINDOW = 60


def client_address(request: HttpRequest) -> str:
    """The client's address; of IPv6 its network of 64 bits, all of which one client usually has.

    Which address a proxy names, and whether it is believed, is settled by NUM_PROXIES of the API.
    """
    text = str(BaseThrottle().get_ident(request) or "")  # type: ignore[arg-type]
    try:
        address = ip_address(text)
    except ValueError:
        return text[:45]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ip_network((address, 64), strict=False).network_address) + "/64"
    return str(address)


class FailureLimit:
    """At most so many failures a minute of one address; then its next attempts are not looked at.

    For attempts whose secret cannot be guessed, so that only their cost matters: the counters are in the
    cache, and a cache that is down blocks nobody. `setting` names the limit; 0 is none.
    """

    def __init__(self, name: str, setting: str) -> None:
        self.name, self.setting = name, setting

    def _key(self, request: HttpRequest) -> str:
        digest = hashlib.sha256(client_address(request).encode()).hexdigest()[:32]
        return f"{self.name}:{digest}:{int(time.time() // WINDOW)}"

    def is_blocked(self, request: HttpRequest) -> bool:
        """Whether the address has had its failures of this minute."""
        limit = getattr(settings, self.setting)
        try:
            return bool(limit) and int(cache.get(self._key(request)) or 0) >= limit
        except (RedisError, OSError, ValueError):
            return False

    def count_failure(self, request: HttpRequest) -> None:
        """One more failure of the address."""
        key = self._key(request)
        try:
            cache.add(key, 0, 2 * WINDOW)
            cache.incr(key)
        except (RedisError, OSError, ValueError):
            return

    @staticmethod
    def wait() -> float:
        """Seconds until the next minute."""
        return WINDOW - time.time() % WINDOW
