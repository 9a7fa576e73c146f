"""What another user of this machine can read of a data directory: nothing."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from otaplatform.core.private_files import close_data_directory, close_tree, open_paths

ROOT = Path(__file__).resolve().parents[3]


def modes(path: Path) -> dict[str, int]:
    return {
        str(entry.relative_to(path)): entry.lstat().st_mode & 0o777
        for entry in (path, *path.rglob("*"))
        if not entry.is_socket()
    }


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory as an earlier version left it: readable by everybody."""
    path = tmp_path / "var"
    for folder in (path, path / "keys", path / "files"):
        folder.mkdir()
        folder.chmod(0o755)
    for name in ("db.sqlite3", "keys/secret_key", "files/firmware.bin"):
        (path / name).write_text("secret")
        (path / name).chmod(0o644)
    return path


def test_a_new_data_directory_is_its_owners_alone_and_so_are_its_parents_not(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        close_data_directory(tmp_path / "srv" / "var")
    finally:
        os.umask(old)
    assert (tmp_path / "srv" / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "srv").stat().st_mode & 0o777 == 0o755


def test_an_existing_data_directory_of_ours_is_closed(data_dir: Path) -> None:
    close_data_directory(data_dir)
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_everything_in_it_is_closed_and_named_before(data_dir: Path) -> None:
    (data_dir / "link").symlink_to("/etc")
    assert len(list(open_paths(data_dir))) == 6
    assert close_tree(data_dir) == 6
    assert list(open_paths(data_dir)) == []
    assert set(modes(data_dir).values()) - {0o777} == {0o700, 0o600}
    assert Path("/etc").stat().st_mode & 0o777 == 0o755


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    strange = tmp_path / "home"
    (strange / "papers").mkdir(parents=True)
    shared = tmp_path / "tmp"
    (shared / "keys").mkdir(parents=True)
    strange.chmod(0o755)
    shared.chmod(0o1777)
    for path in (strange, shared):
        close_data_directory(path)
        assert close_tree(path) == 0
    assert strange.stat().st_mode & 0o7777 == 0o755
    assert shared.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_reads_nothing_that_a_command_leaves(tmp_path: Path) -> None:
    """A real command, under an open umask, in a directory that another user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o055 != 0o055 and folder.stat().st_uid == os.getuid():
            folder.chmod(0o755)
    data_dir = tmp_path / "var"
    environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env={**environ, "DJANGO_SETTINGS_MODULE": "otaplatform.settings", "OTA_DATA_DIR": str(data_dir)},
        check=True,
        umask=0o022,
    )
    assert {mode & 0o077 for mode in modes(data_dir).values()} == {0}

    def reads(path: Path) -> bool:
        nobody = pwd.getpwnam("nobody")
        done = subprocess.run(
            ["cat", str(path)], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], capture_output=True
        )
        return done.returncode == 0

    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"db.sqlite3", "secret_key", "encryption_key"}
    assert [path for path in files if reads(path)] == []
    # The control: with the modes of before, the same user does read the database.
    for path in (data_dir, data_dir / "db.sqlite3"):
        path.chmod(0o755)
    assert reads(data_dir / "db.sqlite3")
