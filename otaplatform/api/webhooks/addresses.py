"""Where webhooks may go: nowhere inside our own network, unless OTA_WEBHOOK_ALLOW_PRIVATE says so.

A name is resolved once, each address is judged, and the connection goes to exactly that address: a name that
answers differently the second time gains nothing.
"""

import http.client
import ipaddress
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Translation to IPv4 within one network (RFC 8215); Python 3.11 takes it for public.
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(Exception):
    """The address may not be called; the text says why."""


def is_allowed(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet. IPv4 inside IPv6 is judged as what it stands for."""
    if settings.OTA_WEBHOOK_ALLOW_PRIVATE:
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return is_allowed(inner)
        if address in _NAT64:
            return is_allowed(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _LOCAL_NAT64 or address.is_site_local or address.is_reserved:
            return False
    return address.is_global and not address.is_multicast


def check_url(url: str) -> SplitResult:
    """The parts of an address that may be called as far as it can be told without asking DNS.

    Raises ForbiddenAddressError.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ForbiddenAddressError(_("Use an http or https address without a user name."))
    if any(ord(character) <= 32 or ord(character) == 127 for character in url) or not url.isascii():
        raise ForbiddenAddressError(_("Write the address in ASCII, without spaces."))
    if host == "localhost" or host.endswith(".localhost"):
        _refuse_unless_allowed()
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return parts
    if not is_allowed(literal):
        _refuse_unless_allowed()
    return parts


def _refuse_unless_allowed() -> None:
    if not settings.OTA_WEBHOOK_ALLOW_PRIVATE:
        raise ForbiddenAddressError(_("The address lies in a private network."))


def resolve(host: str, port: int) -> str:
    """An address of the host that may be called.

    Raises ForbiddenAddressError if any of its addresses may not, OSError if there is none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not all(is_allowed(ipaddress.ip_address(number)) for number in numbers):
        raise ForbiddenAddressError(_("The address lies in a private network."))
    return numbers[0]


def connect(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """A connection for the checked parts of an address, made to the one address that was judged."""
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    raw = socket.create_connection((resolve(host, port), port), timeout)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
        )
    except BaseException:
        raw.close()
        raise
    # A closed socket must not be opened again to whatever the name says then.
    connection.auto_open = 0
    return connection
