"""A text column that sorts alike on both databases."""

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class CodePointField(models.CharField[str, str]):
    """Text ordered by code point: SQLite's own order, and the "C" collation on PostgreSQL.

    Name prefixes are looked up as ranges over such a column, so both databases must agree on its order.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters: Any = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters
