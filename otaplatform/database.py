"""How long PostgreSQL may keep us waiting, and how many connections a process may hold."""

from typing import Any

# Seconds. A server that does not answer the first packet, and one whose machine went away without a word.
CONNECT_TIMEOUT = 5
SILENCE = 15
# Nothing is waited for inside a transaction: one that is idle this long belongs to a process that stands
# still, and its locks hold up everybody.
IDLE_IN_TRANSACTION = 30
# How long somebody waits for a connection of the pool, and for how long the pool tries to make one: after
# that the next one who asks begins a new try, so the pool is back at once when the database is.
POOL_TIMEOUT = 5
POOL_RECONNECT = 1


def postgresql_options(pool_size: int, statement_seconds: int) -> dict[str, Any]:
    """The OPTIONS of Django's PostgreSQL backend.

    A pool of at most `pool_size` connections for each process: under ASGI each request may run in a thread
    of its own, so connections that are kept by threads (CONN_MAX_AGE) pile up. `statement_seconds`: after
    which the server ends a statement; 0 leaves that and the other limits of a session to the server's
    configuration (PgBouncer refuses them at the start of a session unless told to ignore them).
    """
    limits = {
        "statement_timeout": statement_seconds * 1000,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION * 1000,
        # The server's side of a client whose machine went away.
        "tcp_keepalives_idle": SILENCE,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives": 1,
        "keepalives_idle": SILENCE,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENCE * 1000,
        "pool": {
            "min_size": 1,
            "max_size": pool_size,
            "timeout": POOL_TIMEOUT,
            "reconnect_timeout": POOL_RECONNECT,
        },
    }
    if statement_seconds:
        options["options"] = " ".join(f"-c {name}={value}" for name, value in limits.items())
    return options


def without_statement_limit(using: str = "default", **kwargs: Any) -> None:
    """Before a migrate: an index over a large table takes as long as it takes."""
    _set("SET statement_timeout = 0", using)


def with_statement_limit(using: str = "default", **kwargs: Any) -> None:
    """After a migrate: what the session began with."""
    _set("RESET statement_timeout", using)


def _set(statement: str, using: str) -> None:
    from django.db import connections

    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(statement)
