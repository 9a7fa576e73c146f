"""One machine's installation: its lock, its ports, the commands of its parts, and where everything is."""

import fcntl
import http.client
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from django.conf import settings

from otaplatform import bootstrap, redis_server
from otaplatform.checks import is_loopback
from otaplatform.ports import PortError, choose_port, is_free
from otaplatform.supervisor import Part

# The other parts need it to end well.
LAST = ("redis",)


class AlreadyRunsError(Exception):
    """Another start holds the lock of the data directory."""


def take_lock(data_dir: Path) -> TextIO:
    """The lock of a data directory, held while the file is open, so also a kill -9 gives it back."""
    lock = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise AlreadyRunsError(
            f"The platform already runs from {data_dir} (process {owner}). Stop it first (Ctrl-C there), "
            "or give this one a directory of its own with OTA_DATA_DIR."
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def login_line(login: bootstrap.Login | None) -> str:
    """How to log in: a password that was made is shown by this line only."""
    if login is None:
        return "Login:    as before (forgotten? .venv/bin/python manage.py changepassword NAME)"
    if not login.password:
        return f"Login:    {login.username}, with the password of DJANGO_SUPERUSER_PASSWORD"
    return f"Login:    {login.username} / {login.password}   (shown once; to be changed at the first login)"


class Installation:
    """What was chosen for this run: the ports, and the commands that follow from them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        bind = settings.OTA_BIND
        self.embedded_broker = not settings.MQTT_URL
        self.http_port = choose_port(bind, settings.OTA_HTTP_PORT, "HTTP_PORT", set(), say)
        taken = {self.http_port}
        self.mqtt_port = settings.OTA_MQTT_PORT
        if self.embedded_broker:
            self.mqtt_port = choose_port(bind, settings.OTA_MQTT_PORT, "MQTT_PORT", taken, say)
            if settings.OTA_MQTT_TLS_PORT:
                choose_port(bind, settings.OTA_MQTT_TLS_PORT, "MQTT_TLS_PORT", taken | {self.mqtt_port}, say)
        self.public_url = settings.OTA_PUBLIC_URL
        if not os.environ.get("OTA_PUBLIC_URL"):
            self.public_url = f"http://127.0.0.1:{self.http_port}"
        self.download_port = self._find_download_port(bind)
        self.download_url = os.environ.get("OTA_DOWNLOAD_URL", "") or self.public_url
        if self.download_port:
            self.download_url = f"http://{_without_port(self.public_url)}"

    def _find_download_port(self, bind: str) -> int:
        """Port 80 (or what stands for it), if links would name a port without it and it may be had; else 0.

        Raises `PortError` for one that was set and is not to be had.
        """
        url, wanted = urlsplit(self.public_url), settings.OTA_DOWNLOAD_PORT
        if url.scheme != "http" or url.port is None or os.environ.get("OTA_DOWNLOAD_URL") or not wanted:
            return 0
        is_set = bool(os.environ.get("OTA_DOWNLOAD_PORT"))
        try:
            if is_free(bind, wanted):
                return wanted
        except PortError:
            if is_set:
                raise
        if is_set:
            raise PortError(f"OTA_DOWNLOAD_PORT={wanted} is in use. Choose another, or stop what uses it.")
        return 0

    def environ(self) -> dict[str, str]:
        """The environment of the parts: ours, and the ports that were chosen."""
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "otaplatform.settings"),
            "OTA_HTTP_PORT": str(self.http_port),
            "OTA_MQTT_PORT": str(self.mqtt_port),
            "OTA_DOWNLOAD_URL": self.download_url,
        }

    def parts(self, simulated: int) -> list[Part]:
        """The processes, in the order in which they start."""
        python, manage = sys.executable, str(settings.BASE_DIR / "manage.py")
        celery = [python, "-m", "celery", "--quiet", "-A", "otaplatform"]
        parts = []
        if not os.environ.get("REDIS_URL"):
            path = redis_server.socket_path(settings.OTA_DATA_DIR)
            command = redis_server.command(settings.OTA_DATA_DIR)
            parts.append(Part("redis", command, usable=lambda: _listens(path)))
        parts += [
            Part("gateway", [python, manage, "gateway"]),
            Part(
                "web",
                [
                    *(python, manage, "web", "--port", str(self.http_port)),
                    *("--download-port", str(self.download_port)),
                ],
            ),
            # Threads: a third of the memory of processes. Four: expansion leaves some to dispatch.
            Part(
                "worker",
                [
                    *(*celery, "worker", "--pool", "threads", "--concurrency", "4"),
                    *("--queues", "default,dispatch,expand", "--without-gossip", "--without-mingle"),
                    *("--loglevel", "WARNING"),
                ],
            ),
            Part("beat", [*celery, "beat", "--pidfile=", "--loglevel", "WARNING"]),
        ]
        if simulated:
            command = [python, manage, "simulate", "--count", str(simulated)]
            parts.append(Part("simulator", command, may_end=True))
        return parts

    def is_ready(self) -> bool:
        """Whether /healthz says that everything is well."""
        host = settings.OTA_BIND
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (a comparison)
        client = http.client.HTTPConnection(here, self.http_port, timeout=2)
        try:
            client.request("GET", "/healthz", headers={"Host": "localhost"})
            return client.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    def summary(self, is_ready: bool, login: bootstrap.Login | None, simulated: int) -> list[str]:
        """The last words of a start: where everything is."""
        lines = ["", f"OTA Platform {settings.OTA_VERSION} is ready."]
        if not is_ready:
            lines = ["", "Not everything is ready yet. The lines above say which part has trouble;"]
            lines.append("`.venv/bin/python manage.py doctor` says what to do.")
        lines += [f"Console:  {self.public_url}/", login_line(login), f"Devices:  {self._devices()}"]
        lines.append(f"Firmware: {self._downloads()}")
        if simulated:
            lines.append(f'Demo:     {simulated} simulated devices of the product "{bootstrap.SAMPLE_NAME}"')
        return [*lines, f"Data:     {settings.OTA_DATA_DIR}", "Ctrl-C ends everything.", ""]

    def _downloads(self) -> str:
        if urlsplit(self.download_url).port is None:
            return f"downloaded from {self.download_url}/f/"
        return (
            f"downloaded from {self.download_url}/f/; C SDKs cannot use an address with a port. "
            "For them, let this user listen on port 80 (sysctl net.ipv4.ip_unprivileged_port_start=80), "
            "or put a proxy on 80 or 443 and set OTA_PUBLIC_URL without a port."
        )

    def _devices(self) -> str:
        if not self.embedded_broker:
            url = urlsplit(settings.MQTT_URL)
            return f"connect to the MQTT broker at {url.hostname}, port {url.port or 1883}"
        host = "127.0.0.1" if is_loopback(settings.OTA_BIND) else urlsplit(self.public_url).hostname
        tls = f" (TLS: {settings.OTA_MQTT_TLS_PORT})" if settings.OTA_MQTT_TLS_PORT else ""
        return f"connect by MQTT to host {host}, port {self.mqtt_port}{tls}"


def _without_port(url: str) -> str:
    """The host of an address, in brackets if it is one of IPv6."""
    host = urlsplit(url).hostname or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
