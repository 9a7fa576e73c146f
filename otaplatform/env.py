"""Numbers and truth values from the environment, strictly: a sentence refuses what cannot be meant."""

import os

from django.core.exceptions import ImproperlyConfigured

_TRUTH = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def truth(name: str, default: bool = False) -> bool:
    """1/true/yes/on or 0/false/no/off; unset or empty is the default, else `ImproperlyConfigured`."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ImproperlyConfigured(f"{name}={text!r} is neither true nor false: use 1 or 0.") from None


def whole_number(name: str, default: int, *, most: int | None = None) -> int:
    """A number from 0 (to `most`); unset or empty is the default, else `ImproperlyConfigured`."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise ImproperlyConfigured(f"{name}={text!r} is not a whole number.")
    if most is not None and int(text) > most:
        raise ImproperlyConfigured(f"{name}={text} is too large: at most {most}.")
    return int(text)


def port(name: str, default: int) -> int:
    """A TCP port."""
    return whole_number(name, default, most=65535)
