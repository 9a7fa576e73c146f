"""One file that holds a whole platform: its rows, its firmware files, and its keys under a passphrase.

The file is a zip, written and read as a stream: `manifest.json` (last), `rows/<table>.jsonl`, `files/<name>`,
and `keys`. Rows are written by the names and values of the models' columns, so a backup of SQLite can be
restored into PostgreSQL and the other way round.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from django.apps import apps
from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.core.management.color import no_style
from django.db import connection, models, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from devices import sql
from otaplatform import health
from otaplatform.accounts.models import User

FORMAT = 1
BATCH = 500
BLOCK = 1024 * 1024
LEAST_PASSPHRASE = 12
HEARTBEAT = "backup"
# People log in again.
LEFT_OUT = {"sessions.session"}
_KEYS = ("SECRET_KEY", "OTA_ENCRYPTION_KEYS", "OTA_MQTT_PASSWORD")


class BackupError(Exception):
    """It cannot be written or restored; the text says why and what to do."""


# ---- writing -----------------------------------------------------------------------------------------


def write(path: Path, passphrase: str, *, with_files: bool, now: datetime | None = None) -> dict[str, Any]:
    """Write a backup to a new file (mode 0600) and return its manifest.

    `with_files` False keeps only the list of the firmware files, for a store that is backed up by itself.
    Everybody may go on working: the rows are those of one moment.
    """
    if len(passphrase) < LEAST_PASSPHRASE:
        raise BackupError(f"The passphrase needs at least {LEAST_PASSPHRASE} characters.")
    if path.exists():
        raise BackupError(f"{path} exists. Give the name of a new file.")
    now = now or timezone.now()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
                manifest = _write_all(archive, passphrase, with_files, now)
            raw.flush()
            os.fsync(raw.fileno())
        os.link(draft, path)  # never over another file
    except FileExistsError:
        raise BackupError(f"{path} exists. Give the name of a new file.") from None
    except OSError as error:
        raise BackupError(f"The backup could not be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    health.beat(HEARTBEAT, now, bytes=path.stat().st_size)
    return manifest


def _write_all(archive: zipfile.ZipFile, passphrase: str, with_files: bool, now: datetime) -> dict[str, Any]:
    with _one_moment():
        tables = {model._meta.db_table: _write_rows(archive, model) for model in _models()}
        from firmware.models import FirmwareFile

        files = list(FirmwareFile.objects.order_by("pk").values("file", "size", "sha256"))
        migrations = sorted(map(list, MigrationRecorder(connection).applied_migrations()))
    missing = [row["file"] for row in files if with_files and not _write_file(archive, row["file"])]
    keys = json.dumps({name: getattr(settings, name) for name in _KEYS}).encode()
    archive.writestr("keys", json.dumps(_seal(keys, passphrase)))
    manifest = {
        "format": FORMAT,
        "version": settings.OTA_VERSION,
        "at": now.isoformat(),
        "migrations": migrations,
        "tables": tables,
        "with_files": with_files,
        "files": files,
        "missing": missing,
    }
    archive.writestr("manifest.json", json.dumps(manifest))
    return manifest


@contextmanager
def _one_moment() -> Iterator[None]:
    """A snapshot that stops no writer: on SQLite a transaction that only reads, not an IMMEDIATE one."""
    connection.ensure_connection()  # which sets the mode of the settings
    before = getattr(connection, "transaction_mode", None)
    if connection.vendor == "sqlite":
        connection.transaction_mode = "DEFERRED"  # type: ignore[attr-defined]
    try:
        with sql.snapshot():
            yield
    finally:
        if connection.vendor == "sqlite":
            connection.transaction_mode = before  # type: ignore[attr-defined]


def _models() -> list[type[models.Model]]:
    """Every table of the platform, also those between two models."""
    found = apps.get_models(include_auto_created=True)
    return [
        model
        for model in found
        if model._meta.managed and not model._meta.proxy and model._meta.label_lower not in LEFT_OUT
    ]


def _write_rows(archive: zipfile.ZipFile, model: type[models.Model]) -> int:
    fields = model._meta.concrete_fields
    rows = model._base_manager.order_by("pk").values_list(*[field.attname for field in fields])
    count = 0
    with archive.open(f"rows/{model._meta.db_table}.jsonl", "w", force_zip64=True) as out:
        out.write(_line([field.column for field in fields]))
        for row in rows.iterator(chunk_size=BATCH):
            out.write(_line(list(row)))
            count += 1
    return count


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, default=_as_json, ensure_ascii=False).encode() + b"\n"


def _as_json(value: object) -> object:
    """What JSON has no word for, marked so that it reads back the same."""
    if isinstance(value, bytes | memoryview):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return str(value)


def _write_file(archive: zipfile.ZipFile, name: str) -> bool:
    """False if the store has it no more: that is told, and stops no backup."""
    try:
        source = default_storage.open(name)
    except OSError:
        return False
    entry = zipfile.ZipInfo(f"files/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    with source, archive.open(entry, "w", force_zip64=True) as out:
        shutil.copyfileobj(source, out, BLOCK)
    return True


def _seal(content: bytes, passphrase: str) -> dict[str, Any]:
    salt = secrets.token_bytes(16)
    cost = {"n": 2**15, "r": 8, "p": 1}
    sealed = Fernet(_derive(passphrase, salt, cost)).encrypt(content)
    return {"kdf": "scrypt", **cost, "salt": base64.b64encode(salt).decode(), "sealed": sealed.decode()}


def _derive(passphrase: str, salt: bytes, cost: dict[str, int]) -> bytes:
    return base64.urlsafe_b64encode(Scrypt(salt=salt, length=32, **cost).derive(passphrase.encode()))


# ---- restoring ---------------------------------------------------------------------------------------


def restore(path: Path, passphrase: str) -> dict[str, Any]:
    """Fill an empty, migrated instance from a backup, all or nothing; returns the manifest.

    BackupError: this instance has people already; the backup is of another version's tables; the passphrase
    is wrong; a file differs from its digest.
    """
    try:
        archive = zipfile.ZipFile(path)
        manifest = json.loads(archive.read("manifest.json"))
        sealed = json.loads(archive.read("keys"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BackupError(f"{path} is no complete backup: {error}") from error
    with archive:
        keys = _unseal(sealed, passphrase)
        _check(manifest)
        try:
            _check_files(archive, manifest)
            with transaction.atomic():
                _empty()
                for model in _models():
                    _read_rows(archive, model, manifest["tables"])
                _restart_sequences()
                _read_files(archive, manifest)
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise BackupError(f"{path} is damaged: {error}") from error
    _keep_keys(keys)
    return dict(manifest)


def _unseal(sealed: dict[str, Any], passphrase: str) -> dict[str, Any]:
    # The cost is ours and no backup's: a forged one cannot ask for more memory.
    cost = {"n": 2**15, "r": 8, "p": 1}
    try:
        content = Fernet(_derive(passphrase, base64.b64decode(sealed["salt"]), cost)).decrypt(
            sealed["sealed"]
        )
    except (InvalidToken, KeyError, ValueError):
        raise BackupError("The passphrase is not the one of this backup.") from None
    return dict(json.loads(content))


def _check(manifest: dict[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise BackupError("The backup was written by another version that this one cannot read.")
    if User.objects.exists():
        raise BackupError(
            "This instance is not empty. Restore into a new OTA_DATA_DIR and an empty database."
        )
    applied = sorted(map(list, MigrationRecorder(connection).applied_migrations()))
    if applied != manifest["migrations"]:
        raise BackupError(
            f"The backup is of version {manifest['version']} and has other tables. "
            "Restore it with that version, then upgrade."
        )


def _empty() -> None:
    """What a migrate has put there gives way to what the backup has."""
    for model in reversed(_models()):
        model._base_manager.all()._raw_delete(connection.alias)


def _read_rows(archive: zipfile.ZipFile, model: type[models.Model], tables: dict[str, int]) -> None:
    name = model._meta.db_table
    by_column = {field.column: field for field in model._meta.concrete_fields}
    count = 0
    with archive.open(f"rows/{name}.jsonl") as lines:
        fields = [by_column[column] for column in json.loads(lines.readline())]
        for batch in _batches(lines):
            _insert(model, [model(**_values(fields, row)) for row in batch])
            count += len(batch)
    if count != tables[name]:
        raise ValueError(f"{name} has {count} rows instead of {tables[name]}")


def _insert(model: type[models.Model], rows: list[models.Model]) -> None:
    """As they are: `bulk_create` would set the fields that are set at each save."""
    fields = model._meta.concrete_fields
    most = connection.ops.bulk_batch_size([field.name for field in fields], rows)
    for start in range(0, len(rows), most):
        model._base_manager.all()._insert(  # type: ignore[attr-defined]
            rows[start : start + most], fields=fields, using=connection.alias, raw=True
        )


def _batches(lines: IO[bytes]) -> Iterator[list[list[Any]]]:
    batch: list[list[Any]] = []
    for line in lines:
        batch.append(json.loads(line))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _values(fields: Iterable[Any], row: list[Any]) -> dict[str, Any]:
    return {field.attname: _value(field, value) for field, value in zip(fields, row, strict=True)}


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"$bytes"}:
        return base64.b64decode(value["$bytes"])
    if value is None or isinstance(field, models.JSONField | models.FileField):
        return value
    return field.to_python(value)


def _restart_sequences() -> None:
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), _models()):
            cursor.execute(statement)


def _files_inside(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    rows = manifest["files"] if manifest["with_files"] else []
    return [row for row in rows if row["file"] not in manifest["missing"]]


def _check_files(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    """Each is what was uploaded; ValueError if not, before anything is written."""
    for row in _files_inside(manifest):
        digest = hashlib.sha256()
        with archive.open(f"files/{row['file']}") as source:
            while block := source.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != row["sha256"]:
            raise ValueError(f"{row['file']} differs from its digest")


def _read_files(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    for row in _files_inside(manifest):
        with archive.open(f"files/{row['file']}") as source:
            stored = default_storage.save(row["file"], File(source))
        if stored != row["file"]:
            raise ValueError(f"the store already has a file {row['file']}")


def _keep_keys(keys: dict[str, Any]) -> None:
    """Where a start looks for them; what the environment sets wins there and must be set to the same."""
    folder: Path = settings.KEYS_DIR
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = {
        "secret_key": keys["SECRET_KEY"],
        "encryption_key": ",".join(keys["OTA_ENCRYPTION_KEYS"]),
        "mqtt_password": keys["OTA_MQTT_PASSWORD"],
    }
    for name, value in values.items():
        draft = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
        draft.replace(folder / name)
