"""What the harness starts: a PostgreSQL of its own, and the platform on one machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = {
    "gateway": "manage.py gateway",
    "web": "uvicorn",
    "worker": "otaplatform worker",
    "beat": "otaplatform beat",
    "redis": "redis.sock",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until it holds; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def _program(name: str) -> str:
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(packaged[-1]) if packaged else None)
    if found is None:
        sys.exit(f"{name} is not installed; on Debian and Ubuntu: sudo apt-get install postgresql")
    return found


class Postgres:
    """A server in a folder of its own. It refuses to run as root, so it runs as postgres or nobody there."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ota-faults-pg-"))
        self.port = free_port()
        self.user: str | None = None
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        data = str(self.folder / "data")
        initdb = [_program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=self.user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self.user, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, 30, "PostgreSQL starts")

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url.replace("postgres:", "postgresql:", 1), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop_immediately(self) -> None:
        """As if its machine had lost power: no checkpoint, sessions cut."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def end(self) -> None:
        self.stop_immediately()
        shutil.rmtree(self.folder, ignore_errors=True)


class Platform:
    """`manage.py up` on ports of its own, over that PostgreSQL, with its own Redis server and broker."""

    def __init__(self, database_url: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ota-faults-"))
        self.http_port, self.mqtt_port = free_port(), free_port()
        self.environ = {
            "OTA_DATA_DIR": str(self.folder / "var"),
            "OTA_HTTP_PORT": str(self.http_port),
            "OTA_MQTT_PORT": str(self.mqtt_port),
            "OTA_PUBLIC_URL": f"http://127.0.0.1:{self.http_port}",
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "otaplatform.settings",
            "OTA_DEMO": "0",
        }
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTA_", "REDIS_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up"],
                cwd=ROOT,
                env=kept | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pid(self, part: str) -> int | None:
        """The process of a part, by what its command line says; None while there is none."""
        assert self.process is not None
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and WORDS[part] in line:
                return int(entry.name)
        return None

    def send(self, part: str, number: signal.Signals) -> int | None:
        """Signal a part if it is there; its process id."""
        pid = self.pid(part)
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return None
        return pid

    def kill_all(self) -> None:
        """Every part and the supervisor at one moment, as a power cut does."""
        assert self.process is not None
        pids = [pid for part in WORDS if (pid := self.pid(part)) is not None]
        self.process.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        wait_for(lambda: not any(self.pid(part) for part in WORDS), 10, "the parts are gone")

    def kill_supervisor(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)
