"""The bounds that keep one client, or a crowd of them, from hurting the rest."""

from __future__ import annotations

import resource
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from devices import topics
from devices.brokers.embedded.codec import DEFAULT_MAX_SIZE, Packet, Publish, Subscribe, Unsubscribe

_REMEMBERED_ADDRESSES = 10_000
_FILES_BESIDE_CONNECTIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times are seconds, sizes bytes."""

    max_packet: int = DEFAULT_MAX_SIZE  # of the platform's own clients
    device_packet: int = 64 * 1024
    max_connect_packet: int = 16 * 1024
    # Of a longer report the gateway gets so much and a byte more: enough to refuse it, and to show it.
    max_report: int = topics.MAX_REPORT
    max_connections: int = 10_000
    reserved_for_loopback: int = 64  # on top, so that the gateway gets in when devices fill the rest

    connect_timeout: float = 10
    authenticate_timeout: float = 30
    registration_time: float = 30
    # Alibaba Cloud IoT documents 30-1200 s; SDK users who set less should not be locked out.
    keep_alive_range: tuple[int, int] = (10, 1200)
    sweep_interval: float = 1

    connects_per_second: float = 20  # per address
    connect_burst: int = 200
    limit_loopback: bool = False
    # Per device, in units of work (`cost_of`); one that asks for more is read slower, and no more of one
    # device is done at a time than `slice_cost`, so that the others have their turns.
    cost_per_second: float = 100
    cost_burst: float = 400
    slice_cost: float = 20

    device_window: int = 20  # QoS 1 messages on their way to a device
    device_queue: int = 100
    device_queue_bytes: int = 1024 * 1024
    # Of one device, not yet acknowledged by the gateway; a device with none of them is always let in.
    device_reports: int = 256
    device_report_bytes: int = 64 * 1024
    # Of these, on their way to the gateway, which answers them in order: others come right behind.
    device_reports_sent: int = 32
    device_bytes_sent: int = 8 * 1024
    # SDKs subscribe a dozen topics, in one packet or in twelve, and MQTT.js sends all of its subscriptions
    # in one packet after each reconnect; so a packet may hold as many as a device may have.
    max_subscriptions: int = 100

    internal_window: int = 2_000
    internal_queue: int = 20_000
    internal_queue_bytes: int = 64 * 1024 * 1024
    internal_session_expiry: float = 600
    # Persistent sessions that exist from the start, subscribed to `topics.GATEWAY_FILTERS`: a device that is
    # faster than the gateway finds its reports kept. They never expire.
    standing_sessions: tuple[str, ...] = ()


_BYTES_OF_A_UNIT = 512
_REPORT_UNITS = 3  # it is parsed and stored


def cost_of(packet: Packet, is_report: bool) -> float:
    """What a packet of a device costs, in units of about the smallest packet's work."""
    match packet:
        case Publish():
            return (_REPORT_UNITS if is_report else 1) + len(packet.payload) / _BYTES_OF_A_UNIT
        case Subscribe() | Unsubscribe():
            return 1.0 + len(packet.filters)
        case _:
            return 1.0


class TokenBucket:
    """`burst` at once, `rate` per second in the long run."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._level, self._at = rate, burst, burst, now

    def charge(self, now: float, count: float) -> float:
        """Take `count` tokens, on credit if need be. Returns the seconds until the debt is paid."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - count
        self._at = now
        return max(0.0, -self._level / self._rate)

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self.charge(now, 1) > 0:
            self._level += 1
            return False
        return True


class AddressLimiter:
    """How often one address (of IPv6: one /64 network) may connect."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def admits(self, host: str, now: float) -> bool:
        options = self._options
        if not options.limit_loopback and is_loopback(host):
            return True
        key = _network(host)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(options.connects_per_second, options.connect_burst, now)
            if len(self._buckets) > _REMEMBERED_ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)


def is_loopback(host: str) -> bool:
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _network(host: str) -> str:
    address = ip_address(host)
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))


def connection_bound(wanted: int) -> int:
    """Raise this process's limit of open files as far as it goes; returns how many connections then fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(wanted + _FILES_BESIDE_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(1, min(wanted, hard - _FILES_BESIDE_CONNECTIONS))
