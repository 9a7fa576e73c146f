"""The web server against clients that keep it waiting, over real sockets and with short deadlines."""

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from otaplatform import web_server
from otaplatform.web_server import DownloadsOnly, Gate, Limits
from tests import c_reader
from tests.running import TIMEOUT, wait_until

PATIENCE = 10
FILE = os.urandom(3 * 1024 * 1024)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with its length; /file is sent from a file, /hold waits for ever."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"].startswith("/file"):
        with open(scope["query_string"], "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            declared = size + (100 if scope["path"] == "/file/short" else 0)
            head = {"headers": [(b"Content-Length", b"%d" % declared)]}
            await send({"type": "http.response.start", "status": 200, **head})
            await send({"type": web_server.ZERO_COPY, "file": file, "offset": 0, "count": declared})
            await send({"type": "http.response.body", "body": b""})
        return
    body = b"%d" % length
    headers = [(b"Content-Length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limits: Limits, download_port: bool = False) -> Iterator[tuple[int, web_server.Config]]:
    listeners = [web_server.listen("127.0.0.1", 0) for _ in range(2 if download_port else 1)]
    ports = [listener.getsockname()[1] for listener in listeners]
    server = web_server.server(application, limits, ports[1] if download_port else 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": listeners}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server starts")
        yield ports[-1] if download_port else ports[0], server.config  # type: ignore[misc]
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)


def connect(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    client.sendall(sent)
    return client


def rest(client: socket.socket) -> bytes:
    """Everything until the server closes; a server that never does fails by the socket's time-out."""
    try:
        return b"".join(iter(lambda: client.recv(65536), b""))
    except ConnectionResetError:
        return b""
    finally:
        client.close()


QUICK = Limits(header_seconds=0.3, body_seconds=0.3, body_rate=1000)
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: "


def test_half_a_header_is_given_up_and_everybody_else_is_answered() -> None:
    with serving(QUICK) as (port, config):
        slow = [connect(port, HALF) for _ in range(100)]
        assert c_reader.get(port, "/").body == b"0"
        assert {rest(client).split(b"\r\n")[0] for client in slow} == {b"HTTP/1.1 408 Request Timeout"}
        wait_until(lambda: not config.gate.of_address, "all have left")


def test_a_header_that_drips_does_not_win_time_by_dripping() -> None:
    stopping = threading.Event()
    with serving(QUICK) as (port, _config):
        client = connect(port, HALF)

        def drip() -> None:
            while not stopping.wait(0.05):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert client.recv(12) == b"HTTP/1.1 408"
        finally:
            stopping.set()
            dripping.join()
            client.close()


def test_a_connection_that_never_says_anything_is_closed() -> None:
    with serving(QUICK) as (port, _config):
        assert (
            rest(connect(port))
            == b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


def test_a_second_header_on_a_kept_connection_has_its_deadline_too() -> None:
    with serving(QUICK) as (port, _config):
        client = connect(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        client.sendall(HALF)
        assert b"HTTP/1.1 408" in rest(client)


@pytest.mark.parametrize("body", [b"", b"x" * 100])
def test_a_body_that_does_not_come_is_given_up(body: bytes) -> None:
    with serving(QUICK) as (port, _config):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        assert rest(connect(port, head + body)).startswith(b"HTTP/1.1 408")


def test_a_long_body_that_keeps_its_speed_is_read_whole() -> None:
    with serving(Limits(header_seconds=0.3, body_seconds=0.2, body_rate=1000)) as (port, _config):
        client = connect(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n")
        for _ in range(16):
            client.sendall(b"x" * 1000)
            threading.Event().wait(0.04)
        assert client.recv(12) == b"HTTP/1.1 200"
        client.close()


def test_one_address_has_so_many_connections_and_others_are_let_in() -> None:
    with serving(Limits(per_address=5)) as (port, config):
        first = [connect(port) for _ in range(5)]
        wait_until(lambda: config.gate.of_address["127.0.0.1"] == 5, "five are in")
        assert rest(connect(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == b""
        with socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
        first.pop().close()
        wait_until(lambda: config.gate.of_address["127.0.0.1"] == 4, "one has left")
        assert c_reader.get(port, "/").status == 200
        for client in first:
            client.close()


def test_all_addresses_together_leave_files_for_the_rest() -> None:
    gate = Gate(Limits(per_address=0, total=3))
    assert [gate.enter(str(number)) for number in range(4)] == [True, True, True, False]
    gate.leave("1")
    assert gate.enter("9")


def test_a_websocket_counts_until_it_is_closed_and_outlives_every_deadline() -> None:
    from websockets.sync.client import connect as open_websocket

    with serving(QUICK) as (port, config):
        with open_websocket(f"ws://127.0.0.1:{port}/") as live:
            threading.Event().wait(2 * QUICK.header_seconds)
            live.send("still here")
            assert live.recv(PATIENCE) == "still here"
            assert config.gate.of_address["127.0.0.1"] == 1
        wait_until(lambda: not config.gate.of_address, "it has left")


def test_a_file_is_sent_whole_and_the_connection_serves_the_next_request(tmp_path: Any) -> None:
    (tmp_path / "firmware").write_bytes(FILE)
    with serving(Limits()) as (port, _config):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        for _ in range(2):
            client.request("GET", f"/file?{tmp_path / 'firmware'}")
            assert client.getresponse().read() == FILE
        client.request("POST", "/", b"four")
        assert client.getresponse().read() == b"4"
        client.close()


def test_a_file_that_is_shorter_than_was_said_ends_the_connection(tmp_path: Any) -> None:
    (tmp_path / "firmware").write_bytes(FILE)
    with serving(Limits()) as (port, _config):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        client.request("GET", f"/file/short?{tmp_path / 'firmware'}")
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            client.getresponse().read()


def test_a_client_that_goes_away_in_the_middle_of_a_file_is_let_go(tmp_path: Any) -> None:
    (tmp_path / "firmware").write_bytes(FILE * 8)
    with serving(Limits()) as (port, config):
        client = connect(port, f"GET /file?{tmp_path / 'firmware'} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1000)
        client.close()
        wait_until(lambda: not config.gate.of_address, "it has left")


def test_the_port_of_downloads_answers_nothing_else() -> None:
    with serving(Limits(), download_port=True) as (port, _config):
        assert c_reader.get(port, "/f/token").status == 200
        assert c_reader.get(port, "http://ota.example/f/token").status == 200
        for path in ("/", "/login/", "/auth", "/healthz", "/firmware/", "/f"):
            assert c_reader.get(port, path).status == 404
        assert rest(connect(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(
            b"\r\n\r\n"
        )


async def test_the_port_of_downloads_opens_no_websocket() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/f/x", "server": ("127.0.0.1", 80)}
    await DownloadsOnly(application, 80)(scope, None, send)
    assert sent == [{"type": "websocket.close"}]


def test_this_process_may_open_as_many_files_as_the_system_allows() -> None:
    import resource

    allowed = web_server.raise_file_limit()
    assert allowed == min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], allowed)
    assert allowed >= 1024
