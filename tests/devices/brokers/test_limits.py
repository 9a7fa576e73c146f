from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.brokers.embedded.limits import (
    AddressLimiter,
    Options,
    TokenBucket,
    connection_bound,
    is_loopback,
)

FEW = Options(connects_per_second=1, connect_burst=3)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_a_bucket_never_lets_more_through_than_burst_and_rate_allow(pauses: list[float]) -> None:
    bucket, now, taken = TokenBucket(rate=2, burst=5, now=0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
    assert taken <= 5 + 2 * now
    assert taken >= min(5, len(pauses))


def test_a_debt_is_paid_at_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5, now=0)
    assert bucket.charge(0, 5) == 0
    assert bucket.charge(0, 20) == 2
    assert bucket.charge(1, 0) == 1


def test_one_address_that_connects_too_often_is_turned_away_and_others_are_not() -> None:
    limiter = AddressLimiter(FEW)
    assert [limiter.admits("192.0.2.1", 0) for _ in range(5)] == [True, True, True, False, False]
    assert limiter.admits("192.0.2.2", 0)
    assert limiter.admits("192.0.2.1", 1)


def test_the_addresses_of_one_ipv6_network_count_together() -> None:
    limiter = AddressLimiter(FEW)
    assert [limiter.admits(f"2001:db8::{n}", 0) for n in range(1, 5)] == [True, True, True, False]
    assert limiter.admits("2001:db8:0:1::1", 0)


def test_ipv4_addresses_seen_through_an_ipv6_socket_count_apart() -> None:
    limiter = AddressLimiter(FEW)
    assert all(limiter.admits(f"::ffff:192.0.2.{n}", 0) for n in range(1, 9))


@pytest.mark.parametrize(("loopback_too", "admitted"), [(False, 9), (True, 3)])
def test_loopback_is_exempt_unless_wanted(loopback_too: bool, admitted: int) -> None:
    limiter = AddressLimiter(Options(connects_per_second=1, connect_burst=3, limit_loopback=loopback_too))
    assert sum(limiter.admits("127.0.0.1", 0) for _ in range(9)) == admitted


@pytest.mark.parametrize(
    ("host", "verdict"),
    [("127.8.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False)],
)
def test_loopback_is_recognised(host: str, verdict: bool) -> None:
    assert is_loopback(host) is verdict


def test_the_limit_of_open_files_is_raised_and_bounds_the_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert connection_bound(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= soft
        if hard != resource.RLIM_INFINITY:
            assert connection_bound(hard) < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
