"""Every encrypted column brought under the newest key, so that an older key can be retired."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.fernet import InvalidToken
from django.apps import apps
from django.db import connection, models, transaction

from devices import sql
from otaplatform.accounts.secret import Secret, is_under_newest_key, rotate

CHUNK = 500


@dataclass
class Rotated:
    """What became of one column: secrets under the newest key now, and rows that no key reads."""

    model: type[models.Model]
    column: str
    changed: int
    unreadable: list[object]


def encrypted_columns() -> Iterator[tuple[type[models.Model], str]]:
    """Every column that a `Secret` of a model stands for."""
    for model in apps.get_models():
        for attribute in vars(model).values():
            if isinstance(attribute, Secret):
                yield model, attribute.column


def rotate_all(after_chunk: Callable[[], None] = lambda: None) -> list[Rotated]:
    """Re-encrypt whatever is not under the newest key.

    Each chunk is a transaction of its own, and what is done is recognised, so a run that was cut off is
    simply started again. A secret that is replaced meanwhile keeps its replacement.
    """
    return [_rotate_column(model, column, after_chunk) for model, column in encrypted_columns()]


def _rotate_column(model: type[models.Model], column: str, after_chunk: Callable[[], None]) -> Rotated:
    done = Rotated(model, column, 0, [])
    last: object = None
    while True:
        rows = model._default_manager.exclude(**{column: ""}).exclude(**{column: None}).order_by("pk")
        if last is not None:
            rows = rows.filter(pk__gt=last)
        found = list(rows.values_list("pk", column)[:CHUNK])
        if not found:
            return done
        last = found[-1][0]
        changes = []
        for pk, token in found:
            if is_under_newest_key(token):
                continue
            try:
                changes.append((pk, token, rotate(token)))
            except InvalidToken:
                done.unreadable.append(pk)
        done.changed += _store(model, column, changes)
        after_chunk()


def _store(model: type[models.Model], column: str, changes: list[tuple[object, str, str]]) -> int:
    """One conditional statement: only where the column still holds what was read."""
    if not changes:
        return 0
    quote = connection.ops.quote_name
    table, name = quote(model._meta.db_table), quote(column)
    key = quote(str(model._meta.pk.column))
    source, parameters = sql.rows("new", {"pk": "bigint", "old": "text", "token": "text"}, changes)
    with transaction.atomic():
        returned = sql.execute(
            f"UPDATE {table} SET {name} = new.token FROM {source} "  # noqa: S608  (names of our own models)
            f"WHERE {table}.{key} = new.pk AND {table}.{name} = new.old RETURNING 1",
            parameters,
        )
    return len(returned)
