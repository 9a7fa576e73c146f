"""Set-based SQL written once for PostgreSQL and SQLite.

Django's bulk_update is an order of magnitude slower than one `UPDATE … FROM`; this is the small piece that
lets such a statement read a list of rows on either database.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from django.db import connection, connections, transaction

T = TypeVar("T")


def adapt(value: Any) -> Any:
    """A parameter as the database stores it; only SQLite's times differ from Python's."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def rows(alias: str, columns: dict[str, str], values: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """A FROM item `alias(columns…)` holding `values`, with its parameters.

    `columns` maps names to PostgreSQL types (bigint, smallint, text, boolean, timestamptz). A thousand rows
    are one parameter per column there, and one JSON text on SQLite.
    """
    if connection.vendor == "postgresql":
        arrays = ", ".join(f"%s::{kind}[]" for kind in columns.values())
        columns_of_values = [[row[index] for row in values] for index in range(len(columns))]
        names = ", ".join(f'"{name}"' for name in columns)
        return f"unnest({arrays}) AS {alias}({names})", columns_of_values
    picks = ", ".join(
        f"json_extract(value, '$[{index}]') AS \"{name}\"" for index, name in enumerate(columns)
    )
    text = json.dumps([[adapt(value) for value in row] for row in values])
    return f"(SELECT {picks} FROM json_each(%s)) AS {alias}", [text]  # noqa: S608  (names are ours)


def execute(sql: str, parameters: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Run one statement; the rows it returns, or none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, [adapt(parameter) for parameter in parameters])
        return cursor.fetchall() if cursor.description else []


@contextmanager
def snapshot() -> Iterator[None]:
    """Several queries that see the database at one moment, whatever is written meanwhile."""
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        # SQLite's transactions are snapshots; PostgreSQL's only when told so before their first query.
        if is_outermost and connection.vendor == "postgresql":
            execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", [])
        yield


def release_connections() -> None:
    """Give back this thread's connections that are in no transaction, before something slow."""
    for used in connections.all(initialized_only=True):
        if not used.in_atomic_block:
            used.close_if_unusable_or_obsolete()


def chunks(values: Sequence[T], size: int = 1000) -> Iterable[Sequence[T]]:
    """Slices small enough for every database's limit on parameters."""
    return (values[start : start + size] for start in range(0, len(values), size))
