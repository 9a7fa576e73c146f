"""Lists of chosen devices: read from a text or a CSV file, and kept between the preview and the launch."""

import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import IO

from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from campaigns.services import MAX_CHOSEN
from otaplatform.core.csv_files import device_names

FOLDER = "chosen"
# A name has up to 32 characters; other columns of a file are read over.
MAX_BYTES = 64 * 1024 * 1024
KEEP = timedelta(days=1)
_SEPARATORS = re.compile(r"[\s,;，；、]+")
_KEY = re.compile(r"[0-9a-f]{32}")


def from_text(text: str) -> list[str]:
    """DeviceNames of a pasted list, separated by white space, commas or semicolons; each once, in order."""
    return _checked(iter(_SEPARATORS.split(text)))


def from_csv(file: IO[bytes]) -> list[str]:
    """DeviceNames of a file as `core.csv_files.device_names` reads it; each once, in order."""
    return _checked(device_names(file))


def _checked(names: Iterator[str]) -> list[str]:
    unique: dict[str, None] = {}
    for name in names:
        if name:
            unique[name] = None
            if len(unique) > MAX_CHOSEN:
                raise ValidationError(_("At most 1,000,000 devices can be chosen."), code="too_many")
    return list(unique)


def keep(names: list[str]) -> str:
    """Store a list until its launch, for a day at most (`forget_old`); the key that `kept` takes."""
    key = secrets.token_hex(16)
    default_storage.save(f"{FOLDER}/{key}", ContentFile("\n".join(names).encode()))
    return key


def kept(key: str) -> list[str] | None:
    """A stored list, or None if it is gone (or never was one)."""
    if not _KEY.fullmatch(key):
        return None
    try:
        with default_storage.open(f"{FOLDER}/{key}", "rb") as file:
            return list(file.read().decode().split("\n"))
    except FileNotFoundError:
        return None


def forget(key: str) -> None:
    if _KEY.fullmatch(key):
        default_storage.delete(f"{FOLDER}/{key}")


def forget_old() -> None:
    """Remove lists whose preview was never launched."""
    try:
        _folders, files = default_storage.listdir(FOLDER)
    except FileNotFoundError:
        return
    oldest = timezone.now() - KEEP
    for name in files:
        path = f"{FOLDER}/{name}"
        try:
            if default_storage.get_modified_time(path) < oldest:
                default_storage.delete(path)
        except FileNotFoundError:
            continue
