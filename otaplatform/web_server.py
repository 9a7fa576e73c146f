"""The web server: uvicorn, with an end to what a client may keep open.

uvicorn waits for ever for the rest of a header or a body, so a stranger could take every file descriptor with
half requests. Here each has a deadline, connections are counted per address, and the kernel sends files.
"""

import asyncio
import contextlib
import logging
import resource
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import h11
import uvicorn
from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol

from firmware.links import PATH
from otaplatform.requests import ZERO_COPY

logger = logging.getLogger(__name__)

_MOST_FILES = 65536
# Files that connections leave to the database, the log and the firmware that is being sent.
_FILES_KEPT = 256
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_NOT_FOUND = [(b"Content-Length", b"0")]
# Nobody sends this server long messages over a WebSocket.
_WEBSOCKET_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """What a client may take: seconds, bytes a second, connections."""

    header_seconds: float = 20.0
    # A body brings this many bytes a second in each stretch of so many seconds.
    body_seconds: float = 30.0
    body_rate: int = 500
    # A client that takes nothing of what was sent for this long is gone.
    stall_seconds: int = 300
    # 0: no limit. Behind a proxy all have its address, and the proxy counts.
    per_address: int = 512
    total: int = 1024


@dataclass
class Gate:
    """Who is connected: at most so many per address, and together."""

    limits: Limits
    of_address: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> bool:
        most = self.limits.per_address
        if self.of_address.total() >= self.limits.total or (most and self.of_address[address] >= most):
            return False
        self.of_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.of_address[address] -= 1
        if self.of_address[address] <= 0:
            del self.of_address[address]


class Config(uvicorn.Config):
    """uvicorn's configuration, with our protocol and its limits."""

    def __init__(self, app: Any, limits: Limits, **options: Any) -> None:
        super().__init__(
            app,
            http=Protocol,
            lifespan="off",
            access_log=False,
            server_header=False,
            ws_max_size=_WEBSOCKET_BYTES,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=1,
            **options,
        )
        self.limits = limits
        self.gate = Gate(limits)


class Protocol(H11Protocol):
    """A connection that has to get on: its header in time, its body at a speed, its answers taken."""

    config: Config

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._address: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._body_bytes = 0
        self.app = _ZeroCopy(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.config.gate.enter(address):
            logger.warning("too many connections; one more of %s was refused", address or "a socket")
            transport.abort()
            return
        self._address = address
        _give_up_after(transport, self.config.limits.stall_seconds)
        self._await("header")

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._address is None:
            return
        self._body_bytes += len(data)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._await("")
        super().handle_websocket_upgrade(event)
        # From here on the transport knows the WebSocket's protocol only.
        protocol: Any = self.transport.get_protocol()
        lost = protocol.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            self._leave()
            lost(exc)

        protocol.connection_lost = connection_lost

    def _leave(self) -> None:
        if self._address is not None:
            self.config.gate.leave(self._address)
            self._address = None

    # ---- deadlines -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """See what the client owes us now: the rest of a header or of a body, or nothing."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._await("")
        elif self.conn.their_state is h11.SEND_BODY:
            self._await("body")
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await("header")
        else:
            self._await("")

    def _await(self, awaited: str) -> None:
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if awaited:
            limits = self.config.limits
            self._body_bytes = 0
            seconds = limits.header_seconds if awaited == "header" else limits.body_seconds
            self._deadline = self.loop.call_later(seconds, self._is_late)

    def _is_late(self) -> None:
        limits, awaited = self.config.limits, self._awaited
        if awaited == "body" and (
            self.flow.read_paused or self._body_bytes >= limits.body_rate * limits.body_seconds
        ):
            self._awaited = ""
            self._await("body")
            return
        self._await("")
        if not self.transport.is_closing():
            logger.info("a request of %s was given up: its %s did not come", self._address, awaited)
            cycle: Any = self.cycle
            if cycle is None or not cycle.response_started or cycle.response_complete:
                self.transport.write(_TIMED_OUT)
            self.transport.close()


class _ZeroCopy:
    """The application as one connection sees it: it may send a file without reading it (ASGI's zero copy)."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.application: Any = protocol.app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == ZERO_COPY:
                await self._send_file(message["file"], message["offset"], message["count"])
            else:
                await send(message)

        scope.setdefault("extensions", {})[ZERO_COPY] = {}
        await self.application(scope, receive, sending)

    async def _send_file(self, file: Any, offset: int, count: int) -> None:
        transport = self.protocol.transport
        if self.protocol.cycle.disconnected or transport.is_closing():
            return
        part: Any = _Placeholder(count)
        pieces = self.protocol.conn.send_with_data_passthrough(h11.Data(data=part))
        assert pieces == [part], "a file is sent with its Content-Length"
        sent = 0
        # RuntimeError: the transport was closed meanwhile.
        with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
            sent = await self.protocol.loop.sendfile(transport, file, offset, count)
        if sent < count:
            # Content-Length was promised: the device must see that the end is missing.
            transport.abort()


class _Placeholder:
    """Stands for bytes of a file in h11, which only counts them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def _give_up_after(transport: asyncio.Transport, seconds: int) -> None:
    """Let the kernel end a connection whose other end takes nothing any more."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    connection = transport.get_extra_info("socket")
    if option is not None and connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, seconds * 1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class DownloadsOnly:
    """An ASGI application in front of another: on one port, nothing but downloads is answered."""

    def __init__(self, application: Any, port: int) -> None:
        self.application = application
        self.port = port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        server = scope.get("server")
        if not server or server[1] != self.port or _is_download(scope):
            await self.application(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": _NOT_FOUND})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})


def _is_download(scope: Any) -> bool:
    path = str(scope.get("path", ""))
    if path.lower().startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[-1]
    return bool(scope["type"] == "http") and path.startswith(f"/{PATH}/")


def raise_file_limit() -> int:
    """Let this process open as many files as the system allows (up to 65,536); how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def limits_here() -> Limits:
    """The limits that the settings and this machine allow; a download takes two files."""
    behind_proxy = bool(settings.SECURE_PROXY_SSL_HEADER)
    return Limits(
        per_address=0 if behind_proxy else settings.OTA_HTTP_CONNECTIONS_PER_ADDRESS,
        total=max(64, (raise_file_limit() - _FILES_KEPT) // 2),
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; OSError if the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def server(application: Any, limits: Limits, download_port: int = 0) -> uvicorn.Server:
    """A server of the application; on `download_port` it answers downloads only."""
    if download_port:
        application = DownloadsOnly(application, download_port)
    return uvicorn.Server(
        Config(application, limits, proxy_headers=bool(settings.SECURE_PROXY_SSL_HEADER), backlog=1024)
    )


def run(host: str, port: int, download_port: int = 0) -> None:
    """Serve until a signal ends it. OSError if a port cannot be had."""
    listeners = [listen(host, each) for each in dict.fromkeys((port, download_port or port))]
    from otaplatform.asgi import application

    server(application, limits_here(), download_port).run(sockets=listeners)
