"""`manage.py backup FILE`: rows, firmware files and keys in one file."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from otaplatform import backup
from otaplatform.management.passphrase import add_passphrase, read_passphrase


class Command(BaseCommand):
    help = (
        "Write everything to one new file while the platform runs; the keys are encrypted with a passphrase."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--without-files",
            action="store_true",
            help="keep only the list of the firmware files; always so with OTA_STORAGE=s3",
        )
        add_passphrase(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with_files = not options["without_files"] and settings.OTA_STORAGE != "s3"
        try:
            manifest = backup.write(options["file"], read_passphrase(options), with_files=with_files)
        except backup.BackupError as error:
            raise CommandError(str(error)) from None
        for name in manifest["missing"]:
            self.stderr.write(f"The store no longer has {name}; the backup goes without it.")
        rows, files = sum(manifest["tables"].values()), len(manifest["files"]) - len(manifest["missing"])
        what = f"{files} files" if with_files else f"the list of {files} files, which stay in their store"
        self.stdout.write(f"{options['file']}: {rows} rows, {what}, and the keys under your passphrase.")
