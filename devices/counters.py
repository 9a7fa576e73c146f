"""Stored counts, moved by difference in the transaction of what they count.

Writers add to one of several slots of a key and readers sum the slots, so that two writers of the same key
seldom wait for each other. Keys are written last in a transaction and in order, so they cannot deadlock.
"""

import os
from collections.abc import Mapping
from typing import Any

from django.db import models

from devices import sql
from devices.models import ProductCounter, VersionCounter

SLOTS = 8


def add(model: type[models.Model], columns: dict[str, str], deltas: Mapping[tuple[Any, ...], int]) -> None:
    """Add each difference to its counter; `columns` are the key's columns and PostgreSQL types."""
    slot = os.getpid() % SLOTS
    values = [(*key, slot, delta) for key, delta in sorted(deltas.items()) if delta]
    if not values:
        return
    source, parameters = sql.rows("v", {**columns, "slot": "smallint", "delta": "bigint"}, values)
    table, keys = model._meta.db_table, ", ".join([*columns, "slot"])
    order = ", ".join(f"v.{name}" for name in columns)
    # "WHERE true" tells SQLite that ON CONFLICT does not belong to the SELECT's join.
    sql.execute(
        f"INSERT INTO {table} ({keys}, count) "  # noqa: S608  (names are ours)
        f"SELECT {', '.join(f'v.{name}' for name in [*columns, 'slot'])}, v.delta FROM {source} WHERE true "
        f"ORDER BY {order} ON CONFLICT ({keys}) DO UPDATE SET count = {table}.count + excluded.count",
        parameters,
    )


def add_products(deltas: Mapping[tuple[int, str], int]) -> None:
    """{(product id, ProductCounter.Kind): difference}."""
    add(ProductCounter, {"product_id": "bigint", "kind": "text"}, deltas)


def add_versions(deltas: Mapping[tuple[int, str, str], int]) -> None:
    """{(product id, module, version): difference}."""
    add(VersionCounter, {"product_id": "bigint", "module": "text", "version": "text"}, deltas)
