"""The first start, and the later ones."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django_celery_beat.models import PeriodicTask

from devices import services
from devices.models import Product
from otaplatform import bootstrap
from otaplatform.accounts.models import Account, User
from otaplatform.installation import AlreadyRunsError, Installation, login_line, take_lock
from otaplatform.models import Heartbeat
from otaplatform.ticks import TICKS, ensure_ticks, heartbeat_name
from tests.factories import ProductFactory

pytestmark = pytest.mark.django_db
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_first_start_makes_the_account_and_an_administrator_with_a_password_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DJANGO_SUPERUSER_PASSWORD", raising=False)
    login = bootstrap.first_administrator()
    assert login
    user = User.objects.get()
    assert (user.username, user.is_superuser, user.must_change_password) == ("admin", True, True)
    assert user.account == Account.objects.get(name="Default")
    assert user.check_password(login.password)
    assert f"admin / {login.password}" in login_line(login)


def test_a_password_is_made_and_shown_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SUPERUSER_PASSWORD", raising=False)
    assert bootstrap.first_administrator()
    assert bootstrap.first_administrator() is None
    assert User.objects.count() == 1
    assert "as before" in login_line(None)


def test_a_chosen_password_is_taken_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "lihua")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a-long-chosen-one")
    login = bootstrap.first_administrator()
    user = User.objects.get(username="lihua")
    assert user.check_password("a-long-chosen-one")
    assert not user.must_change_password
    assert "a-long-chosen-one" not in login_line(login)


def test_the_start_password_is_in_no_environment_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in ("the first start", "a later one"):
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a-long-chosen-one")
        bootstrap.first_administrator()
        assert "DJANGO_SUPERUSER_PASSWORD" not in os.environ
    assert "a-long-chosen-one" not in Installation(print).environ().values()


def test_an_empty_database_gets_one_sample_product() -> None:
    bootstrap.first_administrator()
    sample = bootstrap.sample_product()
    assert sample
    assert sample.is_sample
    assert bootstrap.sample_product() == sample


def test_a_removed_sample_product_stays_away() -> None:
    bootstrap.first_administrator()
    sample = bootstrap.sample_product()
    assert sample
    services.remove_product(sample)
    assert bootstrap.sample_product() is None
    assert not Product.objects.exists()


def test_somebody_elses_products_are_not_joined_by_a_sample() -> None:
    bootstrap.first_administrator()
    ProductFactory.create()
    assert bootstrap.sample_product() is None


def test_the_sqlite_copy_holds_the_data_and_only_the_newest_five_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE t (x)")
        made.execute("INSERT INTO t VALUES (42)")
        made.commit()
    monkeypatch.setattr(settings, "OTA_DATA_DIR", tmp_path)
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict, "NAME", str(database))
    copies = [bootstrap.copy_sqlite(NOW + timedelta(seconds=n)) for n in range(7)]
    assert copies[-1]
    assert copies[-1].name == "db-20300102T030411.sqlite3"
    assert copies[-1].stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copies[-1])) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(42,)]
    assert sorted((tmp_path / "backups").iterdir()) == copies[2:]


def test_a_database_that_is_up_to_date_is_not_copied() -> None:
    assert bootstrap.migrate() is None


def test_ticks_are_restored_but_stay_switched_off() -> None:
    name = next(iter(TICKS))
    PeriodicTask.objects.filter(name=name).update(enabled=False, expire_seconds=7)
    PeriodicTask.objects.create(name="stray", task="stray", interval=PeriodicTask.objects.first().interval)
    PeriodicTask.objects.exclude(name=name).exclude(name="stray").delete()
    ensure_ticks()
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == set(TICKS)
    tick = PeriodicTask.objects.get(name=name)
    assert (tick.enabled, tick.expire_seconds, tick.interval.every) == (False, TICKS[name], TICKS[name])
    assert Heartbeat.objects.filter(name=heartbeat_name(name)).exists()


def test_every_tick_is_a_task_that_a_worker_knows() -> None:
    from otaplatform.celery import app

    app.loader.import_default_modules()
    assert set(TICKS) <= set(app.tasks)


def test_a_second_start_from_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    with take_lock(tmp_path), pytest.raises(AlreadyRunsError, match="already runs"):
        take_lock(tmp_path)
    take_lock(tmp_path).close()
