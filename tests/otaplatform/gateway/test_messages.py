"""Reports as devices really send them, and reports no device should send."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.topics import MAX_REPORT, UPLINK, Kind
from otaplatform.gateway.messages import (
    BadMessage,
    FileDownload,
    Inform,
    Message,
    Progress,
    Request,
    parse,
)


def refusal(kind: Kind, payload: bytes) -> str:
    with pytest.raises(BadMessage) as caught:
        parse(kind, payload)
    return caught.value.code


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        # documented
        (
            b'{"id":"123","params":{"version":"1.0.1","module":"MCU"}}',
            Inform("1.0.1", "MCU", "123"),
        ),
        # Link SDK
        (b'{"id":1, "params":{"version":"1.0.0"}}', Inform("1.0.0", "default", 1)),
        # iotkit, by itself after CONNECT
        (
            b'{"id":"1","params":{"version":"app-1.0.0-20180101.1000"}}',
            Inform("app-1.0.0-20180101.1000", "default", "1"),
        ),
        # AliOS Things: the buffer's terminator, a mode nobody asked for
        (
            b'{"id":1,"params":{"mode":"coap","version":"2.1"}}\0',
            Inform("2.1", "default", 1),
        ),
        (b'\xef\xbb\xbf \r\n{"params":{"version":" 1.0 ",},}\n\0\0', Inform("1.0")),
        (b'{"id":null,"params":{"version":7,"module":null}}', Inform("7")),
        (b'{"params":{"version":"1","module":""},"id":4294967296}', Inform("1", id=4294967296)),
        (b'{"params":{"version":"1"},"id":1764000000123}', Inform("1", id=1764000000123)),
        # a number keeps its spelling
        (b'{"params":{"version":1.10}}', Inform("1.10")),
        (b'{"params":{"version":1.10,}}', Inform("1.10")),
        (b'{"params":{"version":2.0,"module":1}}', Inform("2.0", "1")),
        # the rest of a C buffer
        (b'{"params":{"version":"1.0\0\0\0\0","module":"MCU\0\0"}}', Inform("1.0", "MCU")),
        (rb'{"params":{"version":"1.0\u0000\u0000x"}}', Inform("1.0")),
        (b'{"params":{"version":"1.0"}}\0\0rest of the buffer', Inform("1.0")),
        # a field that nobody reads
        (b'{"params":{"version":"1.0","rssi":NaN,"load":-Infinity}}', Inform("1.0")),
        (rb'{"params":{"version":"1.0","note":"\ud800 \u0000"}}', Inform("1.0")),
        (b'{"note":"\xff\xfe\xfd","params":{"version":"1.0"}}', Inform("1.0")),
        ('{"params":{"version":"测试 1.0"}}'.encode("gb18030"), Inform("测试 1.0")),
        ('{"params":{"version":"测试 1.0 (beta)"}}'.encode(), Inform("测试 1.0 (beta)")),
    ],
)
def test_version_reports_of_every_sdk_are_understood(payload: bytes, expected: Inform) -> None:
    assert parse(Kind.INFORM, payload) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ('"5"', 5),
        ('" 5 "', 5),
        ("5", 5),
        ("33.7", 33),
        ('"100"', 100),
        ("0", 0),
        ('"-3"', -3),
        ("-12", -12),
        ("-1" + "0" * 40, -32768),
    ],
)
def test_a_step_is_read_as_number_or_text(step: str, expected: int) -> None:
    message = parse(Kind.PROGRESS, b'{"id":"9","params":{"step":%s,"desc":"x"}}' % step.encode())
    assert message == Progress(expected, "x", "default", "9")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (100, None),
        (0, None),
        (-1, "UPDATE"),
        (-2, "DOWNLOAD"),
        (-3, "VERIFICATION"),
        (-4, "BURN"),
        (-12, "UPDATE"),
    ],
)
def test_a_negative_step_names_its_failure(step: int, reason: str | None) -> None:
    assert Progress(step).failure == reason


@pytest.mark.parametrize(
    "step",
    ["101", "null", "true", "[]", '"five"', '""', "1e400", "1e999999", "9" * 4000, '"٣"', "NaN", "Infinity"],
)
def test_a_step_that_is_no_step_is_refused(step: str) -> None:
    assert refusal(Kind.PROGRESS, b'{"params":{"step":%s}}' % step.encode()) in {"step", "json"}


def test_a_missing_step_is_refused() -> None:
    assert refusal(Kind.PROGRESS, b'{"params":{}}') == "step"


def test_a_long_description_is_clipped_and_an_odd_one_does_not_lose_the_report() -> None:
    long = parse(Kind.PROGRESS, json.dumps({"params": {"step": 1, "desc": "é" * 300}}).encode())
    assert long == Progress(1, "é" * 256)
    assert parse(Kind.PROGRESS, b'{"params":{"step":-1,"desc":{"a":[]}}}') == Progress(-1)


def test_a_description_cut_in_a_character_or_holding_raw_newlines_keeps_its_report() -> None:
    message = parse(Kind.PROGRESS, '{"params":{"step":"-2","desc":"下'.encode()[:-1] + b'\n,}"}}')
    assert isinstance(message, Progress)
    assert (message.step, message.failure) == (-2, "DOWNLOAD")
    assert message.desc.endswith("\n,}")


@pytest.mark.parametrize(
    ("payload", "desc"),
    [
        (rb'{"params":{"step":"-1","desc":"a\u0000b"}}', "a\ufffdb"),
        (b'{"params":{"step":"-1","desc":"a\0b"}}', "a\ufffdb"),
        (rb'{"params":{"step":"-1","desc":"half \udfff"}}', "half \ufffd"),
        (rb'{"params":{"step":"-1","desc":"\ud83d\ude00"}}', "\U0001f600"),
        ('{"params":{"step":"-1","desc":"下载失败"}}'.encode("gbk"), "下载失败"),
        # the second byte of these is a backslash
        ('{"params":{"step":"-1","desc":"運乗"}}'.encode("gb18030"), "運乗"),
        (b'{"params":{"step":"-1","desc":"\x81\x5c"}}', b"\x81\x5c".decode("gb18030")),
        (b'{"params":{"step":"-1","desc":"\xff\xff"}}', "\ufffd\ufffd"),
        ('{"params":{"step":"-1","desc":"下载失'.encode()[:-1] + b'"}}', "下载\ufffd"),
        (b'{"params":{"step":"-1","desc":1.50}}', "1.50"),
    ],
)
def test_what_is_odd_in_a_description_never_loses_its_failure(payload: bytes, desc: str) -> None:
    assert parse(Kind.PROGRESS, payload) == Progress(-1, desc)


@given(st.text() | st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)), st.integers(-4, 100))
def test_no_text_decides_whether_a_step_counts(text: str, step: int) -> None:
    escaped = json.dumps({"params": {"step": step, "desc": text, "more": {"text": text}}})
    bodies = [escaped.encode()]
    raw = text.replace("\\", "").replace('"', "")
    plain = f'{{"params":{{"step":"{step}","desc":"{raw}"}}}}'
    for encoding in ("utf-8", "gb18030"):
        try:
            bodies.append(plain.encode(encoding))
        except UnicodeEncodeError:
            continue
    for body in bodies:
        if len(body) <= MAX_REPORT:
            message = parse(Kind.PROGRESS, body)
            assert isinstance(message, Progress)
            assert message.step == step
            assert storable(message.desc)


def test_a_stray_comma_inside_a_text_is_left_alone() -> None:
    message = parse(Kind.PROGRESS, rb'{"params":{"step":1,"desc":"a\",}",},}')
    assert message == Progress(1, 'a",}')


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        (Kind.INFORM, b"", "json"),
        (Kind.INFORM, b"\0{}", "json"),
        (Kind.INFORM, b"hello", "json"),
        (Kind.INFORM, b"[]", "shape"),
        (Kind.INFORM, b'"text"', "shape"),
        (Kind.INFORM, b'{"params":[]}', "shape"),
        (Kind.INFORM, b'{"params":{}}', "version"),
        (Kind.INFORM, b'{"params":{"version":"  "}}', "version"),
        (Kind.INFORM, b'{"params":{"version":["1"]}}', "version"),
        (Kind.INFORM, b'{"params":{"version":"1\\n2"}}', "version"),
        (Kind.INFORM, b'{"params":{"version":"\xff"}}', "version"),
        (Kind.INFORM, b'{"params":{"version":"%s"}}' % (b"1" * 65), "version"),
        (Kind.INFORM, b'{"params":{"version":"1","module":"a b"}}', "module"),
        (Kind.INFORM, b'{"params":{"version":"1","module":"%s"}}' % (b"m" * 65), "module"),
        (Kind.INFORM, rb'{"params":{"version":"\u00001"}}', "version"),
        (Kind.INFORM, rb'{"params":{"version":"\ud800"}}', "version"),
        (Kind.INFORM, b'{"params":{"version":true}}', "version"),
        (Kind.INFORM, b'{"params":{"version":NaN}}', "version"),
        (Kind.FILE_DOWNLOAD, b"{}", "file"),
        (Kind.REQUEST, b'{"params":{"version":""}}', "version"),
        (Kind.FIRMWARE_GET, b'{"params":{"module":"/"}}', "module"),
    ],
)
def test_what_cannot_be_meant_or_stored_is_refused_with_its_reason(
    kind: Kind, payload: bytes, code: str
) -> None:
    assert refusal(kind, payload) == code


@pytest.mark.parametrize("kind", sorted(UPLINK))
def test_a_payload_over_4_kib_is_refused_unread(kind: Kind) -> None:
    body = b'{"id":1,"params":{"version":"1","step":1}}'
    assert refusal(kind, body.ljust(MAX_REPORT + 1)) == "size"


@pytest.mark.parametrize(
    "piece", [b"[", b'{"a":', b'"', b'\\"', b",", b", ", b'",', b'{"params":', b"9", b"\xff"]
)
def test_hostile_repetition_is_refused(piece: bytes) -> None:
    payload = (piece * MAX_REPORT)[:MAX_REPORT]
    # A reading whose cost grows with the square of the length would hang here for minutes.
    assert refusal(Kind.INFORM, payload) in {"json", "shape", "version"}
    assert refusal(Kind.INFORM, b'{"a":' + payload[:-5]) == "json"


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Kind.REQUEST, b'{"id":"0","params":{"version":"1.0"}}', ("1.0", None, "0")),
        (Kind.REQUEST, b'{"id":1,"params":{"version":"1.0","module":"MCU"}}', ("1.0", "MCU", 1)),
        (Kind.REQUEST, b"", (None, None, None)),
        # its own "version" is the protocol's, not the firmware's
        (
            Kind.FIRMWARE_GET,
            b'{"id":"123","version":"1.0","params":{"module":"MCU"},"method":"thing.ota.firmware.get"}',
            (None, "MCU", "123"),
        ),
        (Kind.FIRMWARE_GET, b'{"id":2, "params":{}}', (None, None, 2)),
    ],
)
def test_a_pull_says_where_its_answer_is_awaited(
    kind: Kind, payload: bytes, expected: tuple[str | None, str | None, int | str | None]
) -> None:
    reply_kind = {Kind.REQUEST: Kind.REQUEST, Kind.FIRMWARE_GET: Kind.FIRMWARE_GET_REPLY}[kind]
    assert parse(kind, payload) == Request(*expected, reply_kind=reply_kind)


@pytest.mark.parametrize("body", [b'{"code":"1000","id":"1"}', b'{"id":1,"data":{"version":"2.0.0"}}'])
def test_an_answer_on_the_topic_of_the_question_is_not_taken_for_one(body: bytes) -> None:
    assert refusal(Kind.REQUEST, body) == "shape"


def test_the_block_request_of_link_sdk_is_read_in_spite_of_its_comma() -> None:
    payload = (
        b'{"id":"1","version":"1.0","params":{"fileToken":"default",'
        b'"fileInfo":{"streamId":12332,"fileId":1,},"fileBlock":{"size":5120,"offset":0}}}'
    )
    assert parse(Kind.FILE_DOWNLOAD, payload) == FileDownload(12332, 1, 5120, 0, "default", "1")


def storable(text: str | int | None) -> bool:
    return not isinstance(text, str) or ("\0" not in text and text.encode().decode() == text)


def check(message: Message) -> None:
    assert storable(message.id)
    match message:
        case Inform(version=version, module=module):
            assert 1 <= len(version) <= 64
            assert 1 <= len(module) <= 64
            assert storable(version)
        case Progress(step=step, desc=desc, module=module):
            assert -32768 <= step <= 100
            assert len(desc) <= 256
            assert storable(desc)
        case Request(version=version_or_none):
            assert storable(version_or_none)
        case FileDownload(size=size, offset=offset):
            assert size >= 1
            assert offset >= 0


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["\ud800", "\0", "1.0", "default", "5", " -1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
params = st.dictionaries(
    st.sampled_from(["version", "module", "step", "desc", "fileInfo", "fileBlock", "fileToken"]), anything
)
reports = st.builds(
    lambda body, tail: json.dumps(body).encode() + tail,
    st.fixed_dictionaries({}, optional={"id": anything, "params": params | anything}),
    st.sampled_from([b"", b"\0", b" ", b",", b"}"]),
)


@settings(deadline=None)
@given(st.sampled_from(sorted(UPLINK)), st.binary() | reports)
def test_any_bytes_give_a_storable_message_or_a_refusal(kind: Kind, payload: bytes) -> None:
    try:
        message = parse(kind, payload)
    except BadMessage:
        return
    check(message)


@settings(deadline=None)
@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=64).filter(
        lambda version: version == version.strip()
    ),
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    st.integers(0, 0xFFFF_FFFF),
)
def test_a_well_formed_report_survives_every_mended_slip(version: str, module: str, number: int) -> None:
    strict = json.dumps({"id": number, "params": {"version": version, "module": module}})
    sloppy = "\ufeff " + strict[:-2] + " , } ,\n}" + "\0"
    expected = Inform(version, module, number)
    assert parse(Kind.INFORM, strict.encode()) == expected
    assert parse(Kind.INFORM, sloppy.encode()) == expected
