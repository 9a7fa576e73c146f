"""Limits of PostgreSQL sessions and of the pool, as they are shipped."""

import threading
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.db import OperationalError, connection, connections

from otaplatform.database import IDLE_IN_TRANSACTION, postgresql_options


def test_every_wait_has_an_end() -> None:
    options = postgresql_options(7, 60)
    pool = options.pop("pool")
    assert pool["max_size"] == 7
    assert 0 < pool["timeout"] <= 10
    assert {"connect_timeout", "keepalives_idle", "tcp_user_timeout"} <= options.keys()
    assert "statement_timeout=60000" in options["options"]
    assert "idle_in_transaction_session_timeout=30000" in options["options"]
    # The names are libpq's own.
    psycopg.conninfo.make_conninfo(**options)


def test_without_a_limit_of_statements_nothing_is_asked_of_the_server() -> None:
    assert "options" not in postgresql_options(7, 0)


def setting(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
class TestOnPostgresql:
    def test_a_session_has_the_limits(self) -> None:
        assert setting("statement_timeout") == "1min"
        assert setting("idle_in_transaction_session_timeout") == f"{IDLE_IN_TRANSACTION}s"

    def test_the_suite_runs_with_the_pool_that_is_shipped(self) -> None:
        assert connection.settings_dict["CONN_MAX_AGE"] == 0
        assert connection.settings_dict["OPTIONS"]["pool"]["max_size"] == 20
        assert connection.pool is not None

    def test_a_migrate_has_no_limit_and_leaves_it_as_it_was(self) -> None:
        seen = []

        def look(**kwargs: Any) -> None:
            seen.append(setting("statement_timeout"))

        from django.db.models.signals import pre_migrate

        pre_migrate.connect(look)
        try:
            call_command("migrate", verbosity=0)
        finally:
            pre_migrate.disconnect(look)
        assert seen[-1] == "0"
        assert setting("statement_timeout") == "1min"

    def test_threads_never_hold_more_connections_than_the_pool_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection.close()
        connection.close_pool()
        options = settings.DATABASES["default"]["OPTIONS"]
        monkeypatch.setitem(options, "pool", options["pool"] | {"max_size": 3, "timeout": 0.2})
        holding, refused, done = threading.Barrier(4), [], threading.Event()

        def hold() -> None:
            try:
                connection.ensure_connection()
                holding.wait(10)
                done.wait(10)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=hold) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            holding.wait(10)
            with pytest.raises(OperationalError):
                connection.ensure_connection()
            refused.append(True)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        connection.ensure_connection()
        assert refused
        connection.close()
        connection.close_pool()

    @pytest.mark.parametrize(("size", "warned"), [(2, False), (1000, True)])
    def test_pools_that_do_not_fit_into_the_server_are_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, size: int, warned: bool
    ) -> None:
        options = settings.DATABASES["default"]["OPTIONS"]
        monkeypatch.setitem(options, "pool", options["pool"] | {"max_size": size})
        found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
        assert ([message.id for message in found] == ["otaplatform.W011"]) is warned
