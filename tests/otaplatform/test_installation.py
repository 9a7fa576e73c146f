"""Where a start on one machine lets devices download from, and what it says of that."""

import socket

import pytest
from pytest_django import Settings

from otaplatform.installation import Installation
from otaplatform.ports import PortError


@pytest.fixture
def free(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that stands for 80; nothing is set by the environment."""
    for name in ("OTA_PUBLIC_URL", "OTA_DOWNLOAD_PORT", "OTA_DOWNLOAD_URL", "OTA_HTTP_PORT", "OTA_MQTT_PORT"):
        monkeypatch.delenv(name, raising=False)
    settings.OTA_BIND = "127.0.0.1"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings.OTA_DOWNLOAD_PORT = probe.getsockname()[1]
    return int(settings.OTA_DOWNLOAD_PORT)


def downloads(installation: Installation) -> str:
    (line,) = [line for line in installation.summary(True, None, 0) if line.startswith("Firmware:")]
    return line


def test_links_name_no_port_where_the_port_of_downloads_may_be_had(free: int) -> None:
    installation = Installation(print)
    assert installation.download_port == free
    assert installation.environ()["OTA_DOWNLOAD_URL"] == "http://127.0.0.1"
    (web,) = [part for part in installation.parts(0) if part.name == "web"]
    assert list(web.command)[-2:] == ["--download-port", str(free)]
    assert downloads(installation).endswith("http://127.0.0.1/f/")


def test_where_it_may_not_be_had_the_start_says_what_c_sdks_need(free: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free))
        taken.listen(1)
        installation = Installation(print)
    assert installation.download_port == 0
    assert installation.environ()["OTA_DOWNLOAD_URL"] == installation.public_url
    assert "C SDKs cannot use an address with a port" in downloads(installation)


def test_a_port_of_downloads_that_was_set_must_be_free(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTA_DOWNLOAD_PORT", str(free))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free))
        taken.listen(1)
        with pytest.raises(PortError, match="OTA_DOWNLOAD_PORT"):
            Installation(print)


@pytest.mark.parametrize("url", ["https://ota.example", "http://192.0.2.10", "https://ota.example:8443"])
def test_an_address_without_a_port_or_with_tls_needs_no_port_of_ours(
    url: str, free: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTA_PUBLIC_URL", url)
    settings.OTA_PUBLIC_URL = url
    assert Installation(print).download_port == 0
