"""The data directory is for its owner alone: directories 0700, files 0600, whatever umask a shell had."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

# No bit for group and others.
UMASK = 0o077
# What a data directory of ours has in it. Without one of these a directory may be anybody's (a mistyped
# OTA_DATA_DIR=/srv), and is left as it is.
_MARKS = ("keys", "up.lock", "db.sqlite3")


def close_data_directory(path: Path) -> None:
    """Make the directory for its owner alone, or take it from the others if it is ours and open to them.

    Costs one `stat` where all is well: every process calls it at its start. A directory of another user, or
    one that cannot be changed, is left alone; `open_paths` names it.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        return
    except FileExistsError:
        pass
    except OSError:
        return  # Whoever needs the directory says what is wrong with it.
    if _is_open(path) and is_ours(path):
        _close(path)


def is_ours(path: Path) -> bool:
    """Whether an existing directory is this platform's: owned by us, not shared, with our files or empty."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & stat.S_ISVTX:
            return False
        return any((path / name).exists() for name in _MARKS) or not any(path.iterdir())
    except OSError:
        return False


def close_tree(path: Path) -> int:
    """Take every file and directory below from group and others; returns how many were open to them."""
    if not is_ours(path):
        return 0
    return sum(_close(entry) for entry in open_paths(path))


def open_paths(path: Path) -> Iterator[Path]:
    """The directory and everything below it that group or others may read, write or enter."""
    if _is_open(path):
        yield path
    for folder, directories, files in os.walk(path):
        for name in (*directories, *files):
            entry = Path(folder, name)
            if _is_open(entry):
                yield entry


def _is_open(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not stat.S_ISLNK(mode) and bool(mode & UMASK)


def _close(path: Path) -> bool:
    try:
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~UMASK)
    except OSError:
        return False
    return True
