"""Which ports a start takes."""

import socket
from collections.abc import Iterator

import pytest

from otaplatform.ports import PortError, choose_port, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_default_port_that_is_taken_moves_on_and_says_so(taken: int) -> None:
    said: list[str] = []
    port = choose_port("127.0.0.1", taken, "HTTP_PORT", set(), said.append)
    assert port > taken
    assert is_free("127.0.0.1", port)
    assert said == [f"Port {taken} is in use; HTTP_PORT is {port} this time."]


def test_a_port_that_was_set_and_is_taken_is_an_error(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTA_HTTP_PORT", str(taken))
    with pytest.raises(PortError, match=f"HTTP_PORT={taken} is in use"):
        choose_port("127.0.0.1", taken, "HTTP_PORT", set(), print)


def test_two_parts_do_not_get_the_same_port(taken: int) -> None:
    free = choose_port("127.0.0.1", taken, "HTTP_PORT", set(), lambda line: None)
    assert choose_port("127.0.0.1", free, "MQTT_PORT", {free}, lambda line: None) != free


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_foreign_address_is_refused_with_a_sentence(host: str) -> None:
    with pytest.raises(PortError, match="not an address of this machine"):
        is_free(host, 8000)
