"""`manage.py restore FILE`: a backup into an empty instance."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from otaplatform import backup, bootstrap
from otaplatform.management.passphrase import add_passphrase, read_passphrase


class Command(BaseCommand):
    help = "Fill an empty instance (a new OTA_DATA_DIR, an empty database) from a backup, all or nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        add_passphrase(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        passphrase = read_passphrase(options)
        bootstrap.migrate()
        try:
            manifest = backup.restore(options["file"], passphrase)
        except backup.BackupError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"Restored what was backed up at {manifest['at']}. Start the platform with `make run`."
        )
        if not manifest["with_files"] and manifest["files"]:
            self.stdout.write(
                "The firmware files were not in it: let OTA_STORAGE name the store that has them."
            )
