"""`manage.py import_firmware DIR|CSV`: bring in files from before firmware belonged to products."""

import csv
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.management.base import BaseCommand, CommandError

from firmware.content import suffix_of
from firmware.errors import FirmwareRefusedError
from firmware.models import SignMethod
from firmware.services import import_firmware
from otaplatform.accounts.models import Account

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_\u4e00-\u9fa5]")
_NAME_LENGTH = 32
_COLUMNS = {"file", "name", "version"}


@dataclass(frozen=True)
class Row:
    """A file to bring in."""

    path: Path
    name: str
    version: str
    sign_method: str


class Command(BaseCommand):
    help = (
        "Bring in firmware files that belong to no product yet; they are associated on the Associate page. "
        "From a folder, gateway-1.0.2.bin becomes the firmware gateway_1_0_2 of version 1.0.2. "
        "A CSV file names file (relative to itself), name, version and, if wanted, sign_method (MD5, SHA256)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="DIR|CSV", type=Path)
        parser.add_argument("--account", help="name of the account; may be left out if there is only one")
        parser.add_argument("--sign-method", choices=SignMethod.values, default=SignMethod.MD5.value)

    def handle(self, *args: Any, **options: Any) -> None:
        account = _account(options["account"])
        source: Path = options["source"]
        read = _folder if source.is_dir() else _table
        try:
            rows = list(read(source, options["sign_method"]))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{source} cannot be read: {error}") from error
        refused = 0
        for row in rows:
            try:
                with row.path.open("rb") as stream:
                    firmware = import_firmware(
                        account,
                        name=row.name,
                        version=row.version,
                        sign_method=row.sign_method,
                        upload=File(stream, name=row.path.name),
                        actor=None,
                    )
            except (FirmwareRefusedError, OSError) as error:
                refused += 1
                words = " ".join(error.messages) if isinstance(error, FirmwareRefusedError) else str(error)
                self.stderr.write(f"{row.path.name}: refused: {words}")
            else:
                self.stdout.write(f"{row.path.name}: {firmware.name} {firmware.version}")
        self.stdout.write(f"{len(rows) - refused} of {len(rows)} files brought in.")
        if refused:
            raise CommandError(f"{refused} of {len(rows)} files were refused.")


def _account(name: str | None) -> Account:
    accounts = list(Account.objects.filter(name=name) if name else Account.objects.all()[:2])
    if len(accounts) != 1:
        raise CommandError(f"There is no account {name!r}." if name else "Say which --account.")
    return accounts[0]


def _folder(folder: Path, sign_method: str) -> Iterator[Row]:
    """The firmware files of a folder, named NAME-VERSION.ENDING."""
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path.name)
        if not path.is_file() or suffix is None:
            continue
        stem = path.name[: -len(suffix)]
        name = _NOT_IN_A_NAME.sub("_", stem).lstrip("_")[:_NAME_LENGTH]
        yield Row(path, name, stem.partition("-")[2], sign_method)


def _table(table: Path, sign_method: str) -> Iterator[Row]:
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if missing := _COLUMNS - set(rows.fieldnames or ()):
            raise CommandError(f"{table} has no column {', '.join(sorted(missing))}.")
        for row in rows:
            method = (row.get("sign_method") or sign_method).upper()
            yield Row(table.parent / row["file"], row["name"] or "", row["version"] or "", method)
