"""What devices say: the bytes of a report to a small value, or BadMessage. Nothing of Django in here.

The parsers forgive what real SDKs get wrong (a trailing NUL from AliOS Things, a stray comma from Link SDK,
ids and steps as numbers or as text) and refuse what the protocol does not mean.
Free text never decides whether a report counts: what cannot be stored of it is replaced by U+FFFD.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from devices.topics import MAX_REPORT, Kind

MAX_DESC = 256
MAX_ID = 0xFFFF_FFFF
# Documented are ids of 32 bits; milliseconds since 1970 are sent all the same.
MAX_ECHOED = 0xFFFF_FFFF_FFFF_FFFF
LOWEST_STEP = -32768
DEFAULT_MODULE = "default"

Code = Literal["size", "json", "shape", "version", "module", "step", "file"]
MessageId = int | str | None


class BadMessage(Exception):  # noqa: N818 - named by meaning
    """A report that means nothing to us; `code` is for counting, `text` for the log."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Inform:
    """The device runs this version of a module."""

    version: str
    module: str = DEFAULT_MODULE
    id: MessageId = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of an update: 0 to 100 percent, or a negative number for a failure."""

    step: int
    desc: str = ""
    module: str = DEFAULT_MODULE
    id: MessageId = None

    @property
    def failure(self) -> str | None:
        """The failure reason a negative step stands for; AliOS Things also sends raw status numbers."""
        if self.step >= 0:
            return None
        return {-2: "DOWNLOAD", -3: "VERIFICATION", -4: "BURN"}.get(self.step, "UPDATE")


@dataclass(frozen=True, slots=True)
class Request:
    """A device asks for its package and listens on the topic of `reply_kind`; `module` is None if unnamed."""

    version: str | None
    module: str | None
    id: MessageId
    reply_kind: Kind


@dataclass(frozen=True, slots=True)
class FileDownload:
    """A device asks for one block of a file: `size` bytes from `offset`."""

    stream_id: int
    file_id: int
    size: int
    offset: int
    file_token: str | None = None
    id: MessageId = None


Message = Inform | Progress | Request | FileDownload


def parse(kind: Kind, payload: bytes) -> Message:
    """The message in a payload on a topic of this kind, one of `devices.topics.UPLINK`.

    Raises BadMessage, and for any bytes nothing else.
    """
    return _PARSERS[kind](payload)


def _inform(payload: bytes) -> Inform:
    body = decode(payload)
    params = _object(body, "params")
    version = _version(params)
    if version is None:
        raise BadMessage("version", "no version")
    return Inform(version, _module(params) or DEFAULT_MODULE, _message_id(body))


def _progress(payload: bytes) -> Progress:
    body = decode(payload)
    params = _object(body, "params")
    step = _number(params.get("step"))
    if step is None or step > 100:
        raise BadMessage("step", "not a step from -1 down or from 0 to 100")
    desc = _text(params.get("desc"))[:MAX_DESC]
    return Progress(max(step, LOWEST_STEP), desc, _module(params) or DEFAULT_MODULE, _message_id(body))


def _request(payload: bytes) -> Request:
    """Question and answer share this topic: a broker may hand our own answer back to us."""
    body = decode(payload) if payload else {}
    if "code" in body or "data" in body:
        raise BadMessage("shape", "an answer, not a question")
    return _pull(body, Kind.REQUEST)


def _firmware_get(payload: bytes) -> Request:
    return _pull(decode(payload) if payload else {}, Kind.FIRMWARE_GET_REPLY)


def _pull(body: Mapping[str, Any], reply_kind: Kind) -> Request:
    params = _object(body, "params")
    return Request(_version(params), _module(params), _message_id(body), reply_kind)


def _file_download(payload: bytes) -> FileDownload:
    body = decode(payload)
    params = _object(body, "params")
    info, block = _object(params, "fileInfo"), _object(params, "fileBlock")
    return FileDownload(
        stream_id=_count(info, "streamId"),
        file_id=_count(info, "fileId"),
        size=_count(block, "size", lowest=1),
        offset=_count(block, "offset"),
        file_token=_text(params.get("fileToken"))[:64] or None,
        id=_message_id(body),
    )


_PARSERS: dict[Kind, Callable[[bytes], Message]] = {
    Kind.INFORM: _inform,
    Kind.PROGRESS: _progress,
    Kind.REQUEST: _request,
    Kind.FIRMWARE_GET: _firmware_get,
    Kind.FILE_DOWNLOAD: _file_download,
}


class Spelled(str):
    """A JSON number with its literal spelling: as a version, 1.10 is not 1.1."""

    __slots__ = ()


def _whole(literal: str) -> int | Spelled:
    return int(literal) if len(literal) <= 19 else Spelled(literal)


_strict = msgspec.json.Decoder(dict[str, Any], float_hook=Spelled)
_STRING_OR_TRAILING_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|,(?=\s*[}\]])', re.DOTALL)


def decode(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload; mended only after the plain reading has failed. Raises BadMessage."""
    if len(payload) > MAX_REPORT:
        raise BadMessage("size", f"more than {MAX_REPORT} bytes")
    try:
        return _strict.decode(payload)
    except (ValueError, RecursionError):
        pass
    text = _STRING_OR_TRAILING_COMMA.sub(r"\1", _as_text(payload)).rstrip("\0 \t\r\n")
    # C SDKs send the terminator of their buffer, and what is behind it; a NUL may also stand in a text.
    for candidate in (text.partition("\0")[0], text):
        try:
            body = json.loads(
                candidate, strict=False, parse_constant=_nothing, parse_float=Spelled, parse_int=_whole
            )
        except (ValueError, RecursionError):
            continue
        if not isinstance(body, dict):
            raise BadMessage("shape", "not an object")
        return body
    raise BadMessage("json", "not JSON")


def _as_text(payload: bytes) -> str:
    """UTF-8, or where that fails GB18030, in which the second byte of a character may be a backslash.

    A UTF-8 text that a C buffer has cut within a character stays UTF-8.
    """
    text = payload.decode("utf-8-sig", errors="replace")
    if "\ufffd" not in text or (text.count("\ufffd") == 1 and not text.replace("\ufffd", "").isascii()):
        return text
    try:
        return payload.decode("gb18030")
    except UnicodeDecodeError:
        return text


def _nothing(_name: str) -> None:
    """NaN and Infinity, which C prints for a sensor that is not there, are no values."""


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadMessage("shape", f"{key} is not an object")
    return value


def _text(value: object) -> str:
    """Text the database can hold; of a number its spelling, of anything else nothing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return ""
    text = str(value).replace("\0", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _name(value: object) -> str:
    """As `_text`, up to the end of the C string that it was."""
    return _text(value.partition("\0")[0] if isinstance(value, str) else value).strip()


def _version(params: Mapping[str, Any]) -> str | None:
    """None when absent. Devices may run versions that no package could be named by: "app 1.0 (测试)"."""
    value = params.get("version")
    if value is None:
        return None
    version = _name(value)
    if not 1 <= len(version) <= 64 or not version.isprintable() or "\ufffd" in version:
        raise BadMessage("version", "not 1 to 64 printable characters")
    return version


_MODULE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _module(params: Mapping[str, Any]) -> str | None:
    value = params.get("module")
    if value is None or value == "":
        return None
    module = _name(value)
    if not _MODULE.fullmatch(module):
        raise BadMessage("module", "not 1 to 64 letters, digits, periods, hyphens or underscores")
    return module


_MESSAGE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _message_id(body: Mapping[str, Any]) -> MessageId:
    """The id as the device wrote it, so that an answer can echo it; None if it is no id at all."""
    value = body.get("id")
    if isinstance(value, str):
        value = value.strip()
        return value if _MESSAGE_ID.fullmatch(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ECHOED:
        return value
    return None


_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?")


def _number(value: object) -> int | None:
    """A whole number from a number or from text with blanks around it; fractions are rounded down."""
    if isinstance(value, Spelled):
        value = float(value)
    elif isinstance(value, str):
        text = value.strip()
        if not _DECIMAL.fullmatch(text):
            return None
        value = int(text) if "." not in text else float(text)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return math.floor(value)
    return None


def _count(params: Mapping[str, Any], key: str, lowest: int = 0) -> int:
    value = _number(params.get(key))
    if value is None or not lowest <= value <= MAX_ID:
        raise BadMessage("file", f"{key} is not a number from {lowest} to {MAX_ID}")
    return value
