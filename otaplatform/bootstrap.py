"""What a start does before the parts run: the database brought up to date, the first people, the sample."""

import os
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from devices import services
from devices.models import Product
from otaplatform.accounts.models import Account, AuditEntry, User
from otaplatform.core.private_files import close_tree
from otaplatform.health import PARTS
from otaplatform.models import Heartbeat

DEFAULT_ACCOUNT = "Default"
SAMPLE_NAME = "Sample_product"
KEPT_COPIES = 5


@dataclass(frozen=True)
class Login:
    """The administrator of a first start. `password` is empty if its owner chose it."""

    username: str
    password: str


def migrate(now: datetime | None = None) -> Path | None:
    """Apply what is not applied yet. An SQLite file with data is copied first; returns the copy's path."""
    connection.ensure_connection()
    executor = MigrationExecutor(connection)
    pending = bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    is_new = not executor.loader.applied_migrations
    copy = copy_sqlite(now) if pending and not is_new else None
    # Also without pending migrations: an upgrade may bring new roles and ticks.
    call_command("migrate", interactive=False, verbosity=1 if pending and not is_new else 0)
    return copy


def copy_sqlite(now: datetime | None = None) -> Path | None:
    """A consistent copy of the SQLite database under `backups`; the newest five are kept."""
    if connection.vendor != "sqlite":
        return None
    source = Path(connection.settings_dict["NAME"])
    directory: Path = settings.OTA_DATA_DIR / "backups"
    directory.mkdir(mode=0o700, exist_ok=True)
    copy = directory / f"{source.stem}-{now or timezone.now():%Y%m%dT%H%M%S}.sqlite3"
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    copy.chmod(0o600)
    for outdated in sorted(directory.glob(f"{source.stem}-*.sqlite3"))[:-KEPT_COPIES]:
        outdated.unlink()
    return copy


@transaction.atomic
def first_administrator() -> Login | None:
    """On a database without people: the account "Default" and its administrator; otherwise None.

    Name and password come from DJANGO_SUPERUSER_USERNAME and _PASSWORD; without a password, a random one
    is made, which must be changed at the first login. The password leaves this process's environment here, so
    that no part inherits it.
    """
    chosen = os.environ.pop("DJANGO_SUPERUSER_PASSWORD", "")
    if User.objects.exists():
        return None
    account, _ = Account.objects.get_or_create(name=DEFAULT_ACCOUNT)
    username = os.environ.get("DJANGO_SUPERUSER_USERNAME") or "admin"
    password = chosen or secrets.token_urlsafe(12)
    User.objects.create_superuser(
        username,
        os.environ.get("DJANGO_SUPERUSER_EMAIL", ""),
        password,
        account=account,
        must_change_password=not chosen,
    )
    return Login(username, "" if chosen else password)


def sample_product() -> Product | None:
    """The sample product, made if there has never been any product; once removed, it stays away."""
    existing = Product.objects.filter(is_sample=True).first()
    if existing is not None:
        return existing
    ever = AuditEntry.objects.filter(object_type=Product._meta.label_lower).exists()
    if ever or Product.objects.exists():
        return None
    account = Account.objects.get(name=DEFAULT_ACCOUNT)
    return services.create_product(account, SAMPLE_NAME, is_sample=True)


def make_way() -> None:
    """Before the parts start: their directories exist and are closed to other users of the machine, and signs
    of life of an earlier run are gone."""
    Path(settings.STATIC_ROOT).mkdir(exist_ok=True)
    close_tree(settings.OTA_DATA_DIR)
    Heartbeat.objects.filter(name__in=PARTS).delete()
