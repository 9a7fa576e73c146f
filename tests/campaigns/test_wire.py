"""The bytes devices get, read back the way their SDKs read them."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.wire import (
    KEY_NAMES,
    Package,
    PackageFile,
    firmware_get_reply,
    push_payload,
    request_reply,
    url_fits,
)

MD5 = "93230c3bde425a9d7984a594ac55ea1e"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
URL = "https://ota.example/f/3fQ-x_7"
NOW = 1507707025000
SIGNATURE = base64.b64encode(bytes(range(256))).decode()


def package(**changes: Any) -> Package:
    return Package(**{"version": "2.0.0", "size": 432945, "md5": MD5, "sha256": SHA256, **changes})


def scan(text: bytes, key: str) -> bytes | None:
    """What a device finds that searches the text: the first `"key"`, with `:` and a value right behind it.

    A text ends at the next quote, a number at the next of `,]}`, an object where its braces are even, and no
    quote, escape or blank is understood on the way.
    """
    at = text.find(b'"%s"' % key.encode())
    if at < 0:
        return None
    rest = text[at + len(key) + 2 :]
    if rest[:1] != b":" or len(rest) < 3:
        return None
    rest = rest[1:]
    if rest[:1] == b'"':
        return rest[1:].partition(b'"')[0]
    if rest[:1] in (b"{", b"["):
        closing = b"}" if rest[:1] == b"{" else b"]"
        depth = 0
        for index in range(len(rest)):
            depth += (rest[index : index + 1] == rest[:1]) - (rest[index : index + 1] == closing)
            if depth == 0:
                return rest[: index + 1]
        return None
    return rest[: min(index for index in (rest.find(c) for c in (b",", b"]", b"}")) if index >= 0)]


def test_a_push_is_letter_by_letter_what_the_protocol_says() -> None:
    full = package(
        module="MCU",
        is_diff=True,
        digestsign=SIGNATURE,
        ext_data={"key1": "value1", "_package_udi": '{"a":1}'},
    )
    assert push_payload(full, url=URL, now_ms=NOW).decode() == (
        '{"code":"1000","data":{"size":432945,"version":"2.0.0","url":"https://ota.example/f/3fQ-x_7",'
        f'"md5":"{MD5}","sign":"{MD5}","signMethod":"Md5","isDiff":1,"module":"MCU",'
        f'"digestsign":"{SIGNATURE}",'
        '"extData":{"key1":"value1","_package_udi":"{\\"a\\":1}"}},"id":1507707025000,"message":"success"}'
    )


def test_what_is_not_there_is_left_out() -> None:
    data = json.loads(push_payload(package(), url=URL, now_ms=NOW))["data"]
    assert list(data) == ["size", "version", "url", "md5", "sign", "signMethod"]


def test_sha256_signs_and_the_md5_goes_along() -> None:
    data = json.loads(push_payload(package(sign_method="SHA256"), url=URL, now_ms=NOW))["data"]
    assert (data["sign"], data["signMethod"], data["md5"]) == (SHA256, "SHA256", MD5)


def test_an_old_pull_is_answered_like_a_push() -> None:
    assert request_reply(package(), url=URL, now_ms=NOW) == push_payload(package(), url=URL, now_ms=NOW)


@pytest.mark.parametrize(("message_id", "echo"), [("123", '"123"'), (2, "2"), (None, '"0"')])
def test_firmware_get_echoes_the_id_and_says_200(message_id: int | str | None, echo: str) -> None:
    push = json.loads(push_payload(package(), url=URL, now_ms=NOW))
    reply = firmware_get_reply(message_id, package(), url=URL)
    assert reply.startswith(f'{{"id":{echo},"code":200,"data":{{"size":'.encode())
    assert json.loads(reply)["data"] == push["data"]
    assert firmware_get_reply(message_id, None) == f'{{"id":{echo},"code":200,"data":{{}}}}'.encode()


def test_an_id_spelled_like_a_key_does_not_lead_a_text_search_astray() -> None:
    reply = firmware_get_reply("url", package(), url=URL)
    assert json.loads(reply)["id"] == "url"
    assert scan(reply, "url") == URL.encode()


def test_several_files_are_a_flat_list_before_the_ext_data() -> None:
    files = (PackageFile(3, MD5, SHA256, "a.bin"), PackageFile(4, MD5, SHA256, "文件"))
    several = package(files=files, sign_method="SHA256", is_diff=True, module="MCU", ext_data={"k": "v"})
    urls = (URL + "1", URL + "2")
    assert push_payload(several, file_urls=urls, now_ms=NOW).decode() == (
        '{"code":"1000","data":{"version":"2.0.0","signMethod":"SHA256","isDiff":1,"module":"MCU","files":['
        f'{{"fileSize":3,"fileName":"a.bin","fileUrl":"{URL}1","fileMd5":"{MD5}","fileSign":"{SHA256}"}},'
        f'{{"fileSize":4,"fileName":"文件","fileUrl":"{URL}2","fileMd5":"{MD5}","fileSign":"{SHA256}"}}'
        '],"extData":{"k":"v"}},"id":1507707025000,"message":"success"}'
    )


def test_a_list_of_one_file_takes_the_single_form() -> None:
    alone = Package("2.0.0", files=(PackageFile(432945, MD5, SHA256, "a.bin"),))
    assert push_payload(alone, url=URL, now_ms=NOW) == push_payload(package(), url=URL, now_ms=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": ""},
        {"version": "1 0"},
        {"version": "1.0\n"},
        {"version": "版本"},
        {"version": "v" * 65},
        {"version": "size"},
        {"module": "url"},
        {"module": 'a"b'},
        {"size": 0},
        {"size": 10**16},
        {"md5": ""},
        {"md5": MD5.upper()},
        {"sign_method": "MD5"},
        {"sign_method": "md5"},
        {"sign_method": "SHA256", "sha256": ""},
        {"sign_method": "SHA256", "sha256": MD5},
        {"digestsign": "Base64=="},
        {"digestsign": SIGNATURE[:172] + "\n" + SIGNATURE[173:]},
        {"ext_data": {"k": "\ud800"}},
        {"ext_data": {"k": None}},
    ],
)
def test_a_package_no_device_could_read_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        push_payload(package(**changes), url=URL, now_ms=NOW)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h/f",
        "https://h/a b",
        'https://h/"',
        "https://h/\\",
        "https://h/固件",
        "https://h/{}",
        "https://",
        "https://h/]",
    ],
)
def test_a_link_no_device_could_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        push_payload(package(), url=url, now_ms=NOW)


@pytest.mark.parametrize(
    ("changes", "urls"),
    [
        ({}, (URL,)),
        ({"digestsign": SIGNATURE}, (URL, URL)),
        ({"files": (PackageFile(1, MD5, "", "a}"), PackageFile(1, MD5, "", "b"))}, (URL, URL)),
        ({"files": (PackageFile(1, MD5, "", "fileUrl"), PackageFile(1, MD5, "", "b"))}, (URL, URL)),
        ({"files": (PackageFile(1, MD5, "", "a"),) * 21}, (URL,) * 21),
    ],
)
def test_several_files_no_device_could_read_are_refused(
    changes: dict[str, Any], urls: tuple[str, ...]
) -> None:
    pair = (PackageFile(1, MD5, "", "a"), PackageFile(2, MD5, "", "b"))
    with pytest.raises(ValueError):
        push_payload(package(**{"files": pair, **changes}), file_urls=urls, now_ms=NOW)


def test_a_link_of_254_characters_is_the_longest_that_fits() -> None:
    assert url_fits(URL.ljust(254, "x"))
    assert not url_fits(URL.ljust(255, "x"))


names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda name: name not in KEY_NAMES)
links = st.from_regex(r"https?://[a-z0-9.-]{1,60}/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,150}", fullmatch=True)
free_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
treacherous = st.one_of(
    free_texts,
    st.sampled_from(sorted(KEY_NAMES)),
    st.lists(st.sampled_from([*'{}"\\[],:', "url", "size", '"url":', "module"]), max_size=8).map("".join),
)


@settings(deadline=None)
@given(
    package=st.builds(
        Package,
        version=names,
        size=st.integers(1, 10**16 - 1),
        md5=st.just(MD5),
        sha256=st.just(SHA256),
        sign_method=st.sampled_from(["Md5", "SHA256"]),
        module=names | st.just("default"),
        is_diff=st.booleans(),
        digestsign=st.sampled_from([None, SIGNATURE]),
        ext_data=st.dictionaries(treacherous, treacherous, max_size=4),
    ),
    url=links,
)
def test_a_text_search_and_a_json_parser_read_the_same(package: Package, url: str) -> None:
    for payload in (push_payload(package, url=url, now_ms=NOW), firmware_get_reply(7, package, url=url)):
        parsed = json.loads(payload)
        data = scan(payload, "data")
        assert data is not None
        assert json.loads(data) == parsed["data"]
        expected = {
            "size": str(package.size),
            "version": package.version,
            "url": url,
            "md5": MD5,
            "sign": SHA256 if package.sign_method == "SHA256" else MD5,
            "signMethod": package.sign_method,
            "isDiff": "1" if package.is_diff else None,
            "module": package.module if package.module != "default" else None,
            "digestsign": package.digestsign,
            "dProtocol": None,
            "streamId": None,
            "files": None,
        }
        found = {key: scan(data, key) for key in expected}
        assert {key: None if text is None else text.decode() for key, text in found.items()} == expected
        assert parsed["data"].get("extData", {}) == package.ext_data
        ext_data = scan(data, "extData")
        assert json.loads(ext_data or b"{}") == package.ext_data


@pytest.mark.parametrize("tag", ["}{", "}}{{", "}", "{", "{" * 300 + "}" * 300])
def test_braces_that_do_not_pair_up_cannot_end_the_data_early(tag: str) -> None:
    payload = push_payload(package(ext_data={"tag": tag}), url=URL, now_ms=NOW)
    assert json.loads(scan(payload, "data") or b"{}")["extData"] == {"tag": tag}


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_any_link_is_sent_unescaped_or_refused(tail: str) -> None:
    url = "http://h/" + tail
    try:
        payload = push_payload(package(), url=url, now_ms=NOW)
    except ValueError:
        return
    assert scan(payload, "url") == url.encode("ascii")
