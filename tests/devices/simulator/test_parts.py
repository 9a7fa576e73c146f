"""What simulated devices read from outside: options, pushes, HTTP answers, the broker's silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.brokers.embedded import codec
from devices.simulator import Behaviour, Fault, VersionMix, VersionStore
from devices.simulator.behaviour import parse_fault
from devices.simulator.download import Downloader, DownloadFailed
from devices.simulator.link import Link, Refused
from devices.simulator.package import read_push


def test_a_version_mix_is_drawn_by_its_weights() -> None:
    mix = VersionMix.parse("1.0.0:70, 1.1.0:30,2.0.0:0")
    chance = random.Random(1)  # noqa: S311
    drawn = [mix.draw(chance) for _ in range(1000)]
    assert 600 < drawn.count("1.0.0") < 800
    assert set(drawn) == {"1.0.0", "1.1.0"}


@pytest.mark.parametrize("text", ["", ":1", "1.0:x", "1.0:-1", "1.0:0", "1.0:inf0", "v" * 65])
def test_an_unreadable_version_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        VersionMix.parse(text)


def test_a_fault_has_a_rate_between_0_and_1() -> None:
    assert parse_fault("burn=0.25") == (Fault.BURN, 0.25)
    for text in ("burn", "burn=2", "burn=x", "burn=nan", "fire=0.1"):
        with pytest.raises(ValueError):
            parse_fault(text)


def test_faults_come_as_often_as_their_rates_say() -> None:
    behaviour = Behaviour(faults={Fault.BURN: 0.2, Fault.CRASH: 0.1})
    chance = random.Random(1)  # noqa: S311
    drawn = [behaviour.draw_fault(chance) for _ in range(2000)]
    assert 300 < drawn.count(Fault.BURN) < 500
    assert 130 < drawn.count(Fault.CRASH) < 270


@pytest.mark.parametrize(
    "wrong", [{"speed": 0}, {"offline": 1}, {"faults": {Fault.BURN: 0.6, Fault.CRASH: 0.6}}]
)
def test_impossible_behaviour_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Behaviour(**wrong)  # type: ignore[arg-type]


def test_a_broken_state_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "versions.json"
    path.write_text('{"a1/dev": "not versions"}')
    store = VersionStore(path)
    assert store.get("a1", "dev") == {}
    store.put("a1", "dev", {"default": "2"})
    store.save()
    assert VersionStore(path).get("a1", "dev") == {"default": "2"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "url", "size", "files"]), inner),
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("version", "url", "size", "sign", "md5", "module", "files", "digestsign"), _JSON)
    | {"signMethod": st.sampled_from(["Md5", "SHA256", "MD5", 1])},
)


@given(
    st.binary() | st.builds(lambda data: json.dumps({"data": data}).encode(), _FIELDS | _JSON), st.booleans()
)
def test_any_push_is_read_or_ignored(payload: bytes, md5_only: bool) -> None:
    package = read_push(payload, md5_only)
    assert package is None or package.size > 0


def download(answer: bytes, size: int = 4, *, exact_headers: bool = False) -> bytes:
    """What a downloader makes of a server that gives this answer to whatever it is asked."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def fetch() -> bytes:
        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/f"
            downloader = Downloader(exact_headers=exact_headers, pause=lambda seconds: asyncio.sleep(0))
            return b"".join([block async for block in downloader.blocks(url, size)])

    return asyncio.run(fetch())


PARTIAL = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/4\r\n"


def test_a_partial_and_a_whole_answer_are_both_a_download() -> None:
    assert download(PARTIAL + b"Content-Length: 4\r\n\r\nabcd") == b"abcd"
    assert download(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd") == b"abcd"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: /g\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-4/5\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nabcd",
        PARTIAL + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        PARTIAL + b"Content-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd",
        PARTIAL + b"\r\nabcd",
        PARTIAL + b"Content-Length: 0\r\n\r\n",
        PARTIAL + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabcd",
        b"",
        b"x" * 70_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_sdks_cannot_use_fails_the_download(answer: bytes) -> None:
    with pytest.raises(DownloadFailed):
        download(answer)


def test_the_c_sdk_wants_content_length_spelled_so() -> None:
    with pytest.raises(DownloadFailed):
        download(PARTIAL + b"content-length: 4\r\n\r\nabcd", exact_headers=True)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_answer_is_a_download_or_a_failure(answer: bytes, has_head: bool) -> None:
    with contextlib.suppress(DownloadFailed):
        download(PARTIAL + answer + b"\r\n\r\nabcd" if has_head else answer)


@pytest.mark.parametrize(
    "url", ["", "ftp://host/f", "http:///f", "http://host:port/f", "http://ho\u0161t/f", "http://[::1/f"]
)
async def test_an_address_that_cannot_be_used_fails_the_download(url: str) -> None:
    with pytest.raises(DownloadFailed):
        _ = [block async for block in Downloader().blocks(url, 1)]


async def test_an_idle_connection_is_kept_alive_by_pings_and_given_up_when_nobody_answers() -> None:
    pings: list[codec.Packet] = []

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = codec.Decoder()
        while data := await reader.read(1000):
            for packet in decoder.feed(data):
                if isinstance(packet, codec.Connect):
                    writer.write(codec.encode(codec.ConnAck()))
                elif isinstance(packet, codec.PingReq) and len(pings) < 3:
                    pings.append(packet)
                    writer.write(codec.encode(codec.PingResp()))
        writer.close()

    async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connect = codec.Connect("c", keep_alive=0)
        link = await Link.open("127.0.0.1", port, connect, ping_every=0.01, patience=0.5)
        async with asyncio.timeout(10):
            assert await link.receive() is None
    assert len(pings) == 3


async def test_a_refusal_carries_the_brokers_code() -> None:
    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(codec.encode(codec.ConnAck(codec.ConnectCode.NOT_AUTHORIZED)))
        writer.close()

    async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
        with pytest.raises(Refused) as refused:
            await Link.open("127.0.0.1", server.sockets[0].getsockname()[1], codec.Connect("c"), 60)
    assert refused.value.code is codec.ConnectCode.NOT_AUTHORIZED
