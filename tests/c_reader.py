"""An HTTP client as strict as the C SDKs: fixed buffers, header names compared byte by byte.

Link SDK C 4.x reads each header line into 128 bytes, line end included; AliOS Things 3.x finds Content-Length
only within its first block of 512 bytes.
"""

import socket
from dataclasses import dataclass

LINE = 128
BLOCK = 512
PATIENCE = 15


class TooLongError(AssertionError):
    """The answer does not fit into the buffers of a C SDK."""


@dataclass(frozen=True)
class CAnswer:
    status: int
    lines: list[bytes]
    body: bytes

    def value(self, name: bytes) -> bytes | None:
        """A header by its exact spelling, as `strncmp` finds it."""
        return next((line[len(name) + 2 :] for line in self.lines if line.startswith(name + b": ")), None)


def exchange(
    port: int, request: bytes, *, has_body: bool = True, host: str = "127.0.0.1", most: int | None = None
) -> CAnswer:
    """One request on a connection of its own; reads as many bytes as Content-Length says, or `most`."""
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.sendall(request)
        lines: list[bytes] = []
        line = b""
        taken = 0
        while True:
            byte = connection.recv(1)
            assert byte, f"the server closed the connection after {lines} {line!r}"
            line, taken = line + byte, taken + 1
            if len(line) > LINE:
                raise TooLongError(f"{line!r}… does not fit into {LINE} bytes")
            if taken > BLOCK:
                raise TooLongError(f"the header is longer than {BLOCK} bytes: {lines}")
            if line.endswith(b"\r\n"):
                if line == b"\r\n":
                    break
                lines.append(line[:-2])
                line = b""
        answer = CAnswer(int(lines[0].split()[1]), lines[1:], b"")
        assert not any(line.lower().startswith(b"transfer-encoding") for line in lines), lines
        if answer.status == 304:
            return answer
        length = answer.value(b"Content-Length")
        assert length is not None, f"no Content-Length: {lines}"
        wanted = int(length) if has_body else 0
        if most is not None:
            wanted = min(wanted, most)
        body = bytearray()
        while len(body) < wanted and (block := connection.recv(BLOCK)):
            body += block
    return CAnswer(answer.status, answer.lines, bytes(body[:wanted]))


def get(port: int, target: str, *headers: str, method: str = "GET", **options: object) -> CAnswer:
    """A request for an address, as the C SDKs write it."""
    lines = [f"{method} {target} HTTP/1.1", "Host: ota.example", *headers, "", ""]
    return exchange(port, "\r\n".join(lines).encode(), has_body=method != "HEAD", **options)  # type: ignore[arg-type]
