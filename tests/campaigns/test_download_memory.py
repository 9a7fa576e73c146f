"""Three hundred slow devices download at once from a real server process."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import Settings

from campaigns.states import TaskStatus
from firmware.links import make_link
from tests.factories import CampaignFactory, FirmwareFactory, TaskFactory
from tests.running import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

CLIENTS = 300
CONTENT = os.urandom(10 * 1024 * 1024)
ALLOWED_GROWTH = 150 * 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]


def database_url() -> str:
    """The test database, as another process names it."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return f"postgres://{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT']}/{found['NAME']}"


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[int, int]]:
    """(port, process id) of a web process over the test's database and files."""
    settings.MEDIA_ROOT = str(django_settings.OTA_DATA_DIR / "files")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DATABASE_URL": database_url(), "OTA_LOG_LEVEL": "WARNING"}
    environment["DJANGO_SETTINGS_MODULE"] = "otaplatform.settings"
    environment["OTA_DATA_DIR"] = str(django_settings.OTA_DATA_DIR)
    command = [sys.executable, "manage.py", "web", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), "the web process starts")
        yield port, process.pid
    finally:
        process.kill()
        process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def health(port: int) -> bytes:
    """What /healthz says of the database while everybody downloads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


def backends() -> int:
    """Connections of PostgreSQL to the test's database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def resident(process_id: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def begin(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a file and read no further than the headers; the small buffers make the server wait."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: ota.example\r\nRange: bytes=0-\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 206")
    assert f"content-length: {len(CONTENT)}".encode() in head.lower()
    return reader, writer


async def fetch(port: int, path: str) -> bytes:
    reader, writer = await begin(port, path)
    body = await asyncio.wait_for(reader.readexactly(len(CONTENT)), 60)
    writer.close()
    return body


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures through Linux's /proc")
def test_slow_devices_do_not_fill_the_memory_of_the_web_process(server: tuple[int, int]) -> None:
    port, process_id = server
    campaign = CampaignFactory.create(firmware=FirmwareFactory.create(file=CONTENT))
    task = TaskFactory.create(campaign=campaign, status=TaskStatus.NOTIFIED)
    path = make_link(task.pk, task.firmware.files.get()).removeprefix("http://ota.example")

    async def story() -> int:
        assert await fetch(port, path) == CONTENT
        before = resident(process_id)
        clients = [await begin(port, path) for _ in range(CLIENTS)]
        # Somebody who is quick is not held up; and by then the server has filled the slow ones' buffers.
        assert await fetch(port, path) == CONTENT
        assert b'"database":{"ok":true' in (await health(port)).replace(b" ", b"")
        if connection.vendor == "postgresql":
            # max_connections is 100 by default: nothing is held while bytes flow.
            assert await asyncio.to_thread(backends) < 50
        grown = resident(process_id) - before
        reader, _ = clients[0]
        assert await asyncio.wait_for(reader.readexactly(len(CONTENT)), 60) == CONTENT
        for _, writer in clients:
            writer.close()
        return grown

    assert asyncio.run(story()) < ALLOWED_GROWTH
    task.refresh_from_db()
    assert task.downloads == CLIENTS + 2
