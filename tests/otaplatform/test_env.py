"""Strict reading of the environment."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from otaplatform import env


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), ("", True)])
def test_a_truth_value_is_read(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("OTA_X", text)
    assert env.truth("OTA_X", default=True) is value


@pytest.mark.parametrize("text", ["maybe", "2", "ture"])
def test_what_is_neither_true_nor_false_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OTA_X", text)
    with pytest.raises(ImproperlyConfigured, match="OTA_X"):
        env.truth("OTA_X")


@pytest.mark.parametrize("text", ["8000x", "-1", "1.5", "٣"])
def test_what_is_no_whole_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OTA_X", text)
    with pytest.raises(ImproperlyConfigured, match="OTA_X"):
        env.whole_number("OTA_X", 1)


def test_a_port_above_65535_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTA_X", "65535")
    assert env.port("OTA_X", 1) == 65535
    monkeypatch.setenv("OTA_X", "65536")
    with pytest.raises(ImproperlyConfigured):
        env.port("OTA_X", 1)
