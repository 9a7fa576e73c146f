"""What is told to devices: packages as the bytes of a push or an answer. Nothing of Django in here.

Devices read these bytes with anything from a JSON parser to a text search (Link SDK takes what follows the
first `"key":` and counts braces even inside texts), so the order of keys, the absence of blanks and the
spelling of values are part of the protocol.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from firmware.wire_keys import KEY_NAMES

SignMethod = Literal["Md5", "SHA256"]

DEFAULT_MODULE = "default"
MAX_URL = 254
MAX_FILES = 20

_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGESTSIGN = re.compile(r"[A-Za-z0-9+/]{342}==")
_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\])?[!#-Z_a-z~]+")
_FILE_NAME = re.compile(r'[^\x00-\x1f"\\{}\[\]\x7f\ud800-\udfff]{1,32}')


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of a package; `size` in bytes, digests in lower-case hex."""

    size: int
    md5: str
    sha256: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """What a device is to install: the same for every device of a campaign, apart from the link.

    A package of one file has `size`, `md5` and `sha256`; one of several has `files` instead.
    `sha256` may be empty while `sign_method` is Md5. `digestsign` is the Secure Update signature in base64,
    or None. `ext_data` holds the campaign's tags and `_package_udi`.
    """

    version: str
    size: int = 0
    md5: str = ""
    sha256: str = ""
    sign_method: SignMethod = "Md5"
    module: str = DEFAULT_MODULE
    is_diff: bool = False
    digestsign: str | None = None
    ext_data: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[PackageFile] = ()


def push_payload(package: Package, *, url: str = "", file_urls: Sequence[str] = (), now_ms: int) -> bytes:
    """The message on `/ota/device/upgrade/{pk}/{dn}`; `now_ms` is milliseconds since the epoch.

    A single file is downloaded from `url`; several, each from its own of `file_urls`.
    Raises ValueError where a device could not read the result.
    """
    data = _data(package, url, file_urls)
    return f'{{"code":"1000","data":{data},"id":{now_ms:d},"message":"success"}}'.encode()


def request_reply(package: Package, *, url: str = "", file_urls: Sequence[str] = (), now_ms: int) -> bytes:
    """The answer on `/ota/device/request/{pk}/{dn}`, the topic of the question: the same as a push."""
    return push_payload(package, url=url, file_urls=file_urls, now_ms=now_ms)


def firmware_get_reply(
    message_id: int | str | None,
    package: Package | None,
    *,
    url: str = "",
    file_urls: Sequence[str] = (),
) -> bytes:
    """The answer on `…/thing/ota/firmware/get_reply`; without a package: there is nothing to do."""
    echoed = _hide_key_names(_dumps("0" if message_id is None else message_id))
    data = "{}" if package is None else _data(package, url, file_urls)
    return f'{{"id":{echoed},"code":200,"data":{data}}}'.encode()


def url_fits(url: str) -> bool:
    """Whether the buffers of the C SDKs hold the link: 254 characters in all."""
    return len(url) <= MAX_URL


def _data(package: Package, url: str, file_urls: Sequence[str]) -> str:
    """The `data` object, its keys in the order Alibaba's cloud sends them, extData last."""
    _require(package.sign_method in ("Md5", "SHA256"), "sign_method")
    _require(_is_word(package.version), "version")
    _require(_is_word(package.module), "module")
    data = _several_files(package, file_urls) if len(package.files) > 1 else _single_file(package, url)
    if package.digestsign:
        _require(_DIGESTSIGN.fullmatch(package.digestsign), "digestsign")
        data["digestsign"] = package.digestsign
    text = _dumps(data)
    if package.ext_data:
        text = f'{text[:-1]},"extData":{_ext_data(package.ext_data)}}}'
    return text


def _single_file(package: Package, url: str) -> dict[str, object]:
    file = package.files[0] if package.files else PackageFile(package.size, package.md5, package.sha256)
    sign = _checked_sign(file, package.sign_method)
    _check_url(url)
    data: dict[str, object] = {
        "size": file.size,
        "version": package.version,
        "url": url,
        "md5": file.md5,
        "sign": sign,
        "signMethod": package.sign_method,
    }
    return data | _diff_and_module(package)


def _several_files(package: Package, urls: Sequence[str]) -> dict[str, object]:
    """Link SDK splits the list at the first `}` of each item, so items are flat."""
    _require(len(package.files) <= MAX_FILES, "files")
    _require(len(urls) == len(package.files), "file_urls")
    _require(not package.digestsign, "digestsign: no signature is defined for several files")
    items: list[dict[str, object]] = []
    for file, url in zip(package.files, urls, strict=True):
        _require(_FILE_NAME.fullmatch(file.name) and file.name not in KEY_NAMES, "file name")
        sign = _checked_sign(file, package.sign_method)
        _check_url(url)
        items.append(
            {
                "fileSize": file.size,
                "fileName": file.name,
                "fileUrl": url,
                "fileMd5": file.md5,
                "fileSign": sign,
            }
        )
    head: dict[str, object] = {"version": package.version, "signMethod": package.sign_method}
    return head | _diff_and_module(package) | {"files": items}


def _diff_and_module(package: Package) -> dict[str, object]:
    data: dict[str, object] = {}
    if package.is_diff:
        data["isDiff"] = 1
    if package.module != DEFAULT_MODULE:
        data["module"] = package.module
    return data


def _checked_sign(file: PackageFile, method: SignMethod) -> str:
    """The digest that `sign` carries. The md5 always goes along: iotkit-embedded reads nothing else."""
    _require(0 < file.size < 10**16, "size")
    _require(_MD5.fullmatch(file.md5), "md5")
    if method == "Md5":
        return file.md5
    _require(_SHA256.fullmatch(file.sha256), "sha256")
    return file.sha256


def _check_url(url: str) -> None:
    _require(_URL.fullmatch(url), "url")


def _is_word(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None and text not in KEY_NAMES


def _require(met: object, what: str) -> None:
    if not met:
        raise ValueError(f"no device could read this {what}")


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_KEY_NAME_IN_QUOTES = re.compile(f'(?<=")({"|".join(sorted(KEY_NAMES))})(?=")')


def _hide_key_names(text: str) -> str:
    """The same JSON, but a text search for a key does not find it: `"url"` becomes `"\\u0075rl"`."""
    return _KEY_NAME_IN_QUOTES.sub(lambda found: f"\\u{ord(found[0][0]):04x}{found[0][1:]}", text)


def _ext_data(ext_data: Mapping[str, str]) -> str:
    """An operator's own texts, harmless to a reader that searches for keys and counts braces.

    Braces that pair up, as those of `_package_udi` do, stay: applications get this as raw text.
    """
    _require(all(isinstance(item, str) for pair in ext_data.items() for item in pair), "extData")
    text = _dumps(dict(ext_data))[1:-1]
    if not _braces_pair(text):
        text = text.replace("{", "\\u007b").replace("}", "\\u007d")
    return f"{{{_hide_key_names(text)}}}"


def _braces_pair(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if not 0 <= depth < 200:  # Link SDK counts in eight bits
            return False
    return depth == 0
