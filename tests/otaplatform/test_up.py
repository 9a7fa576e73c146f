"""`manage.py up` for real: all processes, in a data directory of their own."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otaplatform.core.private_files import open_paths

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 90
# The promise is five seconds for the parts; the rest is for a busy machine.
STOP_WITHIN = 10

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """A running `manage.py up`, what it has said, and its processes."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.data_dir = data_dir
        self.http_port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTA_", "DJANGO_"))}
        for name in ("REDIS_URL", "DATABASE_URL", "MQTT_URL"):
            kept.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up"],
            cwd=ROOT,
            env={
                **kept,
                "OTA_DATA_DIR": str(data_dir),
                "OTA_HTTP_PORT": str(self.http_port),
                "OTA_MQTT_PORT": str(free_port()),
                "OTA_DOWNLOAD_PORT": "0",
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self.ended = False
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.said.append(line.rstrip())
                self._more.notify_all()
        with self._more:
            self.ended = True
            self._more.notify_all()

    def wait_for(self, pattern: str) -> str:
        """The first line that matches; AssertionError with everything said if none comes in time."""

        def hit() -> str | None:
            return next((line for line in self.said if re.search(pattern, line)), None)

        with self._more:
            self._more.wait_for(lambda: hit() is not None or self.ended, READY_WITHIN)
            line = hit()
            assert line is not None, "\n".join(self.said)
        return line

    def health(self) -> tuple[int, dict[str, dict[str, object]]]:
        client = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        try:
            client.request("GET", "/healthz")
            response = client.getresponse()
            return response.status, json.loads(response.read())
        finally:
            client.close()

    def children(self) -> dict[str, int]:
        """Part -> process id, by what their command lines say."""
        words = {
            "gateway": "manage.py gateway",
            "web": "manage.py web",
            "worker": "otaplatform worker",
            "beat": "otaplatform beat",
            "redis": "redis.sock",
            "simulator": "simulate",
        }
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and parent_of(int(entry.name)) == self.process.pid:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found |= {part: int(entry.name) for part, word in words.items() if word in line}
        return found


def parent_of(pid: int) -> int | None:
    """The parent of a living process; None for one that is gone or waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[1])


def wait_until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + READY_WITHIN
    while not holds():
        assert time.monotonic() < end, what
        threading.Event().wait(0.1)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(**environ: str) -> Up:
        started.append(Up(tmp_path / "var", **environ))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(STOP_WITHIN)


def test_it_starts_heals_and_ends_with_nothing_left_behind(up: Callable[..., Up]) -> None:
    running = up(OTA_DEMO="2", DJANGO_SUPERUSER_PASSWORD="the-start-password-of-up")
    running.wait_for(r"^OTA Platform .* is ready\.$")
    running.wait_for(r"Ctrl-C ends everything")
    assert running.wait_for(r"^Console:").endswith(f"http://127.0.0.1:{running.http_port}/")
    assert "with the password of DJANGO_SUPERUSER_PASSWORD" in running.wait_for(r"^Login:")
    assert running.health()[0] == 200
    parts = running.children()
    assert set(parts) == {"gateway", "web", "worker", "beat", "redis", "simulator"}
    inherited = {part: Path(f"/proc/{pid}/environ").read_bytes() for part, pid in parts.items()}
    assert [part for part, environ in inherited.items() if b"the-start-password" in environ] == []
    running.wait_for(r"simulator \| .*2 of 2 devices online|simulator \| 2 simulated devices")

    os.kill(parts["worker"], signal.SIGKILL)
    running.wait_for(r"^worker ended unexpectedly \(signal SIGKILL\); starting it again")
    wait_until(lambda: running.children().get("worker", parts["worker"]) != parts["worker"], "no new worker")

    second = up()
    second.wait_for(r"The platform already runs from .* \(process \d+\)")
    assert second.process.wait(STOP_WITHIN) != 0

    parts = running.children()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(STOP_WITHIN) == 0
    assert [pid for pid in parts.values() if parent_of(pid) is not None] == []
    keys = list((running.data_dir / "keys").iterdir())
    assert keys
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert list(open_paths(running.data_dir)) == []


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works(up: Callable[..., Up]) -> None:
    first = up(OTA_DEMO="0")
    assert re.search(r"admin / \S{16} ", first.wait_for(r"^Login:"))
    parts = first.children()
    first.process.kill()
    first.process.wait(STOP_WITHIN)
    wait_until(lambda: all(parent_of(pid) is None for pid in parts.values()), "an orphan lives on")

    again = up(OTA_DEMO="0")
    again.wait_for(r"is ready\.$")
    assert "as before" in again.wait_for(r"^Login:")
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(STOP_WITHIN) == 0
