"""Keys that an installation makes for itself."""

import multiprocessing
from pathlib import Path
from secrets import token_hex

from otaplatform.keys import read_or_create


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secret"
    first = read_or_create(path, token_hex)
    assert read_or_create(path, token_hex) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_starters_at_the_same_moment_agree_on_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, keys = context.Barrier(4), context.SimpleQueue()

    def start() -> None:
        barrier.wait()
        keys.put(read_or_create(tmp_path / "key", token_hex))

    starters = [context.Process(target=start) for _ in range(4)]
    for starter in starters:
        starter.start()
    assert len({keys.get() for _ in starters}) == 1
    for starter in starters:
        starter.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
