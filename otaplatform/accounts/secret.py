"""Secrets at rest: encrypted in their column, readable as a plain attribute, never part of a query or log."""

from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


@lru_cache(maxsize=2)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def encrypt(text: str) -> str:
    """Ciphertext under the newest key of OTA_ENCRYPTION_KEYS."""
    return _box(tuple(settings.OTA_ENCRYPTION_KEYS)).encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """The text again; `cryptography.fernet.InvalidToken` if no configured key made it."""
    return _box(tuple(settings.OTA_ENCRYPTION_KEYS)).decrypt(token.encode()).decode()


def rotate(token: str) -> str:
    """The same text under the newest key; `cryptography.fernet.InvalidToken` if no configured key made it."""
    return _box(tuple(settings.OTA_ENCRYPTION_KEYS)).rotate(token.encode()).decode()


def is_under_newest_key(token: str) -> bool:
    """Whether the first of OTA_ENCRYPTION_KEYS alone reads it."""
    try:
        _box((settings.OTA_ENCRYPTION_KEYS[0],)).decrypt(token.encode())
    except InvalidToken:
        return False
    return True


class Secret(property):
    """A property over a column of ciphertext: `secret = Secret("secret_encrypted")`.

    Being a property, it can also be given to the model's constructor.
    """

    def __init__(self, column: str) -> None:
        self.column = column

        def read(row: Any) -> str:
            token: str = getattr(row, column)
            return decrypt(token) if token else ""

        def write(row: Any, value: str) -> None:
            setattr(row, column, encrypt(value) if value else "")

        super().__init__(read, write)
