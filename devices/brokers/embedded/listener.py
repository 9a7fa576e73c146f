"""An address of the embedded broker."""

from __future__ import annotations

from dataclasses import dataclass
from ssl import SSLContext


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on; port 0 takes a free one. With `ssl`, TLS from the first byte."""

    port: int
    host: str = "127.0.0.1"
    ssl: SSLContext | None = None
