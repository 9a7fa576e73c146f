"""A backup, and the instance that it makes: equal rows, equal files, the same keys."""

import json
import zipfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from campaigns.models import UpdateTask
from devices.models import Device
from firmware.models import FirmwareFile
from otaplatform import backup
from otaplatform.accounts.models import User
from otaplatform.accounts.roles import VIEWER
from otaplatform.models import DeadLetter, Heartbeat
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, TaskFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)
PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def folders(settings: Any, tmp_path: Path) -> Path:
    settings.KEYS_DIR = tmp_path / "keys"
    settings.MEDIA_ROOT = tmp_path / "files"
    return tmp_path


@pytest.fixture
def content() -> None:
    firmware = FirmwareFactory.create(version="2.0.0", file=b"\x00\xffimage" * 1000)
    device = DeviceFactory.create(
        product=firmware.product, name="m\u00e4\u8ba1-1", version="1.0", online=True
    )
    campaign = CampaignFactory.create(firmware=firmware, source_versions=["1.0", "1.1"])
    TaskFactory.create(campaign=campaign, device=device, detail='a "quote", a \n line and \u2028')
    DeadLetter.objects.create(topic="/a", payload=b"\x00\x01\xff", error="x", at=timezone.now())
    UserFactory.create(account=firmware.account).groups.add(Group.objects.get(name=VIEWER))


def rows() -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the tables, as Python has it; without the sign of life that a backup itself leaves."""
    found = {}
    for model in backup._models():
        names = [field.attname for field in model._meta.concrete_fields]
        every = model._base_manager.order_by("pk")
        if model is Heartbeat:
            every = every.exclude(name=backup.HEARTBEAT)
        found[model._meta.db_table] = [
            tuple(bytes(each) if isinstance(each, memoryview) else each for each in row)
            for row in every.values_list(*names)
        ]
    return found


def empty() -> None:
    call_command("flush", interactive=False, verbosity=0)
    for file in list(default_storage.listdir("")[1]):
        default_storage.delete(file)


def test_a_restored_instance_equals_the_one_that_was_backed_up(content: None, folders: Path) -> None:
    before, secret = rows(), Device.objects.get().secret
    path = folders / "backup.zip"
    backup.write(path, PASSPHRASE, with_files=True)
    assert path.stat().st_mode & 0o777 == 0o600
    image = default_storage.open(FirmwareFile.objects.get().file.name).read()
    default_storage.delete(FirmwareFile.objects.get().file.name)
    empty()
    backup.restore(path, PASSPHRASE)
    assert rows() == before
    assert Device.objects.get().secret == secret
    assert default_storage.open(FirmwareFile.objects.get().file.name).read() == image
    assert (settings.KEYS_DIR / "secret_key").read_text().strip() == settings.SECRET_KEY
    assert {key.stat().st_mode & 0o777 for key in settings.KEYS_DIR.iterdir()} == {0o600}
    # What comes next gets numbers of its own.
    assert DeviceFactory.create().pk not in {row[0] for row in before[Device._meta.db_table]}


def test_the_file_tells_no_key_without_its_passphrase(content: None, folders: Path) -> None:
    path = folders / "backup.zip"
    backup.write(path, PASSPHRASE, with_files=True)
    with zipfile.ZipFile(path) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    secrets = [settings.SECRET_KEY, *settings.OTA_ENCRYPTION_KEYS, settings.OTA_MQTT_PASSWORD]
    assert [
        secret for secret in (*secrets, Device.objects.get().secret) if secret.encode() in everything
    ] == []
    empty()
    with pytest.raises(backup.BackupError, match="passphrase"):
        backup.restore(path, "another passphrase")
    assert not Device.objects.exists()


def test_an_instance_with_people_is_never_overwritten(content: None, folders: Path) -> None:
    path = folders / "backup.zip"
    backup.write(path, PASSPHRASE, with_files=True)
    before = rows()
    with pytest.raises(backup.BackupError, match="not empty"):
        backup.restore(path, PASSPHRASE)
    assert rows() == before


@pytest.mark.parametrize("damaged", ["file", "rows", "cut"])
def test_a_damaged_backup_leaves_the_instance_as_it_was(content: None, folders: Path, damaged: str) -> None:
    path, broken = folders / "backup.zip", folders / "broken.zip"
    backup.write(path, PASSPHRASE, with_files=True)
    if damaged == "cut":
        broken.write_bytes(path.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
            for name in old.namelist():
                body = old.read(name)
                if damaged == "file" and name.startswith("files/"):
                    body = body[:-1] + b"?"
                if damaged == "rows" and name == f"rows/{UpdateTask._meta.db_table}.jsonl":
                    body = body.splitlines(keepends=True)[0]
                new.writestr(name, body)
    default_storage.delete(FirmwareFile.objects.get().file.name)
    empty()
    before = rows()
    with pytest.raises(backup.BackupError, match=r"damaged|complete"):
        backup.restore(broken, PASSPHRASE)
    assert rows() == before


def test_without_files_their_list_is_kept(content: None, folders: Path) -> None:
    path = folders / "backup.zip"
    backup.write(path, PASSPHRASE, with_files=False)
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.startswith("files/")]
        [listed] = json.loads(archive.read("manifest.json"))["files"]
    assert listed["sha256"] == FirmwareFile.objects.get().sha256


def test_a_short_passphrase_and_a_file_that_exists_are_refused(folders: Path) -> None:
    with pytest.raises(backup.BackupError, match="12 characters"):
        backup.write(folders / "one", "short", with_files=True)
    (folders / "two").touch()
    with pytest.raises(backup.BackupError, match="exists"):
        backup.write(folders / "two", PASSPHRASE, with_files=True)
    assert [path.name for path in folders.iterdir() if path.is_file()] == ["two"]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite's write lock")
def test_a_backup_holds_up_no_writer() -> None:
    with backup._one_moment(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM accounts_user")
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.rollback()


def test_the_commands_say_what_they_did(
    content: None, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, path = StringIO(), folders / "backup.zip"
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(CommandError, match="OTA_BACKUP_PASSPHRASE"):
        call_command("backup", str(path))
    monkeypatch.setenv("OTA_BACKUP_PASSPHRASE", PASSPHRASE)
    call_command("backup", str(path), stdout=said)
    assert "1 files, and the keys" in said.getvalue()
    default_storage.delete(FirmwareFile.objects.get().file.name)
    empty()
    call_command("restore", str(path), stdout=said)
    assert "Restored what was backed up at" in said.getvalue()
    assert User.objects.count() == 1
