"""Which TCP ports a start on one machine takes."""

import errno
import os
import socket
from collections.abc import Callable

PORTS_TRIED = 50


class PortError(Exception):
    """A port cannot be had; the text says why."""


def is_free(host: str, port: int) -> bool:
    """Whether we could listen there; `PortError` where the system forbids it or knows no such host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except PermissionError:
            raise PortError(f"The system does not allow this user to listen on port {port}.") from None
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise PortError(f"OTA_BIND={host!r} is not an address of this machine.") from None
            return False
    return True


def choose_port(host: str, wanted: int, variable: str, taken: set[int], say: Callable[[str], None]) -> int:
    """The port to use. One that was set must be free; a default gives way to the next free one, and says so.

    `variable` is make's name of it: the environment's has OTA_ in front. Raises `PortError`.
    """
    given = bool(os.environ.get(f"OTA_{variable}"))
    if given:
        if wanted in taken or not is_free(host, wanted):
            raise PortError(f"{variable}={wanted} is in use. Choose another, or stop what uses it.")
        return wanted
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        if port not in taken and is_free(host, port):
            if port != wanted:
                say(f"Port {wanted} is in use; {variable} is {port} this time.")
            return port
    raise PortError(f"No free port from {wanted} on. Set {variable}.")
