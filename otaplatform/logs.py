"""What stays out of the log: the same trouble again and again, and what /healthz answers itself."""

import logging
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from django.db import InterfaceError, OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

MINUTE = 60.0
# Kinds of trouble remembered at once; what is more is written every time.
MOST_KINDS = 1000
# A service that is away: its traceback tells nothing that its message does not.
_AWAY = (OperationalError, InterfaceError, RedisConnectionError, ConnectionError, TimeoutError)

_Kind = tuple[str, int, str, str]


class NotHealth(logging.Filter):
    """Drops the record that Django writes for each 503 of /healthz: the answer itself says it."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = getattr(getattr(record, "request", None), "path", "")
        return path != "/healthz" or bool(record.exc_info)


class Console(logging.StreamHandler[TextIO]):
    """The log's stream: warnings and errors of one kind once a minute, with the number of those left out.

    A kind is a logger, a level, a text before its values are filled in, and the place an exception came from.
    An exception of a service that is away is one line; any other keeps its traceback.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._clock = clock
        self._kinds: dict[_Kind, tuple[float, int, logging.LogRecord]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._tell_left_out(self._clock() - MINUTE)
        if record.levelno >= logging.WARNING and self._is_known(record):
            return
        super().emit(_in_one_line(record))

    def close(self) -> None:
        """Tell what was left out since the last line of each kind."""
        self._tell_left_out(self._clock())
        super().close()

    def _is_known(self, record: logging.LogRecord) -> bool:
        """Whether the kind was written within the last minute; counts it."""
        kind = _kind(record)
        if kind in self._kinds:
            since, count, first = self._kinds[kind]
            self._kinds[kind] = since, count + 1, first
            return True
        if len(self._kinds) < MOST_KINDS:
            self._kinds[kind] = self._clock(), 0, record
        return False

    def _tell_left_out(self, before: float) -> None:
        for kind, (since, count, first) in list(self._kinds.items()):
            if since > before:
                continue
            del self._kinds[kind]
            if count:
                text = f"{first.getMessage()} (and {count} more of this kind)"
                more = logging.makeLogRecord(first.__dict__ | {"msg": text, "args": (), "exc_info": None})
                more.exc_text = more.stack_info = None
                more.created = time.time()
                super().emit(more)


def _kind(record: logging.LogRecord) -> _Kind:
    error = record.exc_info[1] if record.exc_info else None
    where = ""
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return record.name, record.levelno, str(record.msg), where


def _in_one_line(record: logging.LogRecord) -> logging.LogRecord:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, _AWAY):
        return record
    reason = " ".join(str(error).split())[:500]
    text = f"{record.getMessage()}: {type(error).__name__}: {reason}"
    changed = logging.makeLogRecord(record.__dict__ | {"msg": text, "args": (), "exc_info": None})
    changed.exc_text = None
    return changed
