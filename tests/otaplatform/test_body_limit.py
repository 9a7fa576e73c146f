"""Bodies larger than any upload are refused before Django puts them on disk."""

from collections.abc import Iterable
from typing import Any

from otaplatform.asgi import limit_of_devices
from otaplatform.body_limit import BodyLimit, Message, Receive, Send

LIMIT = 100


async def ask(chunks: Iterable[bytes], **headers: str) -> tuple[int, int, int]:
    """(status, bytes that the application received, chunks that were asked for) of one request."""
    received = 0
    read = 0
    answered: list[Message] = []
    waiting = iter(chunks)

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal received
        more = True
        while more:
            message = await receive()
            received += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        nonlocal read
        read += 1
        chunk = next(waiting, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        answered.append(message)

    named: list[Any] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await BodyLimit(application, LIMIT)({"type": "http", "headers": named}, receive, send)
    return answered[0]["status"], received, read


async def test_a_body_up_to_the_limit_passes() -> None:
    assert await ask([b"x" * 60, b"x" * 40], content_length="100") == (200, 100, 3)


async def test_a_body_that_says_it_is_larger_is_not_read_at_all() -> None:
    assert await ask([b"x" * 200], content_length="101") == (413, 0, 0)


async def test_a_body_that_does_not_say_its_size_is_stopped_at_the_limit() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield b"x" * 40

    assert await ask(endless()) == (413, 80, 3)


async def test_a_length_that_is_no_number_is_left_to_the_server_behind() -> None:
    assert (await ask([b"x"], content_length="١"))[0] == 200


async def test_devices_are_stopped_at_far_less_than_a_firmware_upload() -> None:
    assert limit_of_devices("/auth") == limit_of_devices("/topic/ota/device/inform/a/b") == 256 * 1024
    assert limit_of_devices("/auth/user/") is limit_of_devices("/firmware/upload/") is None

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

    answered: list[Message] = []

    async def send(message: Message) -> None:
        answered.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    scope = {"type": "http", "path": "/auth", "headers": []}
    await BodyLimit(application, LIMIT, lambda path: 59 if path == "/auth" else None)(scope, receive, send)
    assert answered[0]["status"] == 413
