"""Environments for clients that must never be installed beside ours. Kept between runs, outside the tree."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NoReturn

import pytest


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "otaplatform-tests"


def missing(what: str) -> NoReturn:
    """A real client that cannot be had: a failure in CI, elsewhere a reason to skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def python_with(*requirements: str) -> Path:
    """The Python of an environment that holds these packages."""
    key = hashlib.sha256(repr((sys.version, requirements)).encode()).hexdigest()[:16]
    home = cache_dir() / f"venv-{key}"
    python, finished = home / "bin" / "python", home / "installed"
    if not finished.exists():
        venv.create(home, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"{', '.join(requirements)} cannot be installed:\n{done.stdout}\n{done.stderr}")
        finished.touch()
    return python
