"""Webhooks: where they may go."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from otaplatform.accounts.models import Account
from otaplatform.api.models import Webhook
from otaplatform.api.webhooks import addresses, send, services
from tests.otaplatform.api.webhook_tools import waiting


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "https://",
        "https://user:pw@example.com/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://a.localhost/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[::127.0.0.1]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[fd00::1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: y",
    ],
)
def test_addresses_inside_our_own_network_are_refused(account: Account, url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.create_webhook(account, url=url, actor=None)
    assert "url" in refused.value.message_dict


def test_a_name_that_leads_inside_is_not_called(
    hook: Callable[..., Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only one of its addresses does; and what was judged is what is connected to."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    monkeypatch.setattr(socket, "create_connection", lambda *args: pytest.fail("connected"))
    delivery = waiting(hook("http://rebinding.example/"))
    send.send_due()
    delivery.refresh_from_db()
    assert "private network" in delivery.error


def test_the_connection_goes_to_the_judged_address_without_asking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def lookup(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    connected: list[Any] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert send.call("http://example.com/", "s", 1, "task.failed", {}).status is None
    assert (asked, connected) == (["example.com"], [("93.184.216.34", 80)])


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_alike_however_it_is_written(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    mapped = ipaddress.IPv6Address(f"::ffff:{plain}")
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + number)
    assert addresses.is_allowed(plain) == addresses.is_allowed(mapped) == addresses.is_allowed(nat64)
