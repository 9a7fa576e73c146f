"""A storage folder of its own for each test."""

from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def stored(settings: Settings, tmp_path: Path) -> Path:
    """The folder that firmware files are stored in."""
    settings.MEDIA_ROOT = str(tmp_path)
    folder = tmp_path / "firmware"
    folder.mkdir()
    return folder
