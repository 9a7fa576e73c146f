"""Where a command gets its passphrase: never from its arguments, which other users of the machine can see."""

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

VARIABLE = "OTA_BACKUP_PASSPHRASE"


def add_passphrase(parser: CommandParser) -> None:
    """The option --passphrase-file."""
    parser.add_argument(
        "--passphrase-file", type=Path, help=f"a file that holds it; otherwise {VARIABLE}, or it is asked for"
    )


def read_passphrase(options: dict[str, Any]) -> str:
    """From the file, the environment or the terminal. Raises CommandError where there is none."""
    if options["passphrase_file"]:
        try:
            return str(options["passphrase_file"].read_text().strip())
        except OSError as error:
            raise CommandError(f"The passphrase cannot be read: {error}") from None
    if given := os.environ.get(VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise CommandError(f"Give a passphrase: set {VARIABLE}, or name a file with --passphrase-file.")
    return getpass.getpass("Passphrase: ")
