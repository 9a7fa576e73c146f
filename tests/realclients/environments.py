"""Environments for clients that must never be installed beside ours. Kept between runs, outside the tree."""

import hashlib
import os
import shutil
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


def node_with(*requirements: str) -> tuple[str, dict[str, str]]:
    """Node, and the environment variables with which it finds these packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("there is no node with npm on this machine")
    key = hashlib.sha256(repr(requirements).encode()).hexdigest()[:16]
    home = cache_dir() / f"node-{key}"
    finished = home / "installed"
    if not finished.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *requirements]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"{', '.join(requirements)} cannot be installed:\n{done.stdout}\n{done.stderr}")
        finished.touch()
    return node, {**os.environ, "NODE_PATH": str(home / "node_modules")}
