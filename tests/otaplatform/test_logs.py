"""The log's stream: what is written, and what is only counted."""

import io
import logging
from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError

from otaplatform import settings
from otaplatform.logs import MINUTE, MOST_KINDS, Console


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(clock: Clock, stream: io.StringIO) -> Iterator[logging.Logger]:
    handler = Console(clock, stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("of the test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def fail(logger: logging.Logger, make: Callable[[], Exception]) -> None:
    try:
        raise make()
    except Exception:
        logger.exception("%s: no verdict on its CONNECT", "192.0.2.1")


def test_a_database_that_is_away_is_one_line_however_many_ask(
    logger: logging.Logger, clock: Clock, stream: io.StringIO
) -> None:
    for _ in range(1413):
        fail(logger, lambda: OperationalError("refused\n\tIs the server up?"))
    assert stream.getvalue() == (
        "ERROR 192.0.2.1: no verdict on its CONNECT: OperationalError: refused Is the server up?\n"
    )
    clock.now += MINUTE
    logger.info("something else")
    assert stream.getvalue().splitlines()[1:] == [
        "ERROR 192.0.2.1: no verdict on its CONNECT (and 1412 more of this kind)",
        "INFO something else",
    ]


def test_our_own_fault_keeps_its_traceback_and_comes_again_after_a_minute(
    logger: logging.Logger, clock: Clock, stream: io.StringIO
) -> None:
    for _ in range(3):
        fail(logger, lambda: RuntimeError("our fault"))
    assert stream.getvalue().count("Traceback") == 1
    clock.now += MINUTE
    fail(logger, lambda: RuntimeError("our fault"))
    assert stream.getvalue().count("Traceback") == 2
    assert "(and 2 more of this kind)" in stream.getvalue()


def test_faults_of_different_places_are_different_kinds(logger: logging.Logger, stream: io.StringIO) -> None:
    fail(logger, lambda: RuntimeError("one"))
    fail(logger, lambda: KeyError("two"))
    logger.warning("three")
    logger.warning("four")
    assert [text in stream.getvalue() for text in ("one", "two", "three", "four")] == [True] * 4


def test_what_is_no_trouble_is_never_left_out(logger: logging.Logger, stream: io.StringIO) -> None:
    for _ in range(5):
        logger.info("device %s", "one")
    assert stream.getvalue().count("device one") == 5


def test_the_end_tells_what_was_left_out(logger: logging.Logger, stream: io.StringIO) -> None:
    for _ in range(5):
        logger.warning("no heartbeat")
    logger.handlers[0].close()
    assert stream.getvalue().splitlines()[-1] == "WARNING no heartbeat (and 4 more of this kind)"


def test_kinds_that_are_remembered_are_bounded(logger: logging.Logger, stream: io.StringIO) -> None:
    for number in range(MOST_KINDS + 5):
        logger.warning(f"kind {number}")  # noqa: G004  (each a kind of its own)
    logger.warning("kind 1")
    assert len(stream.getvalue().splitlines()) == MOST_KINDS + 5


def test_every_part_writes_through_it() -> None:
    assert settings.LOGGING["handlers"]["console"]["class"] == "otaplatform.logs.Console"
    assert settings.LOGGING["loggers"]["uvicorn"] == {"handlers": [], "propagate": True}
