"""The topics devices and platform meet on, and who may use which. Pure functions; no Django, no network.

The names are Alibaba Cloud IoT's, because the SDKs carry them inside. `$ota/...` is this platform's own
corner: only the broker, the gateway and the workers use it.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple

MAX_LENGTH = 128  # bytes, as in Alibaba Cloud IoT
MAX_LEVELS = 16
MAX_REPORT = 4 * 1024
"""Bytes of a report's payload. The longest that a device has reason to send is far below a kilobyte."""


class Kind(StrEnum):
    """What a device topic is for."""

    INFORM = "inform"  # up: the version a module runs
    PROGRESS = "progress"  # up: percent, or a step below 0 for a failure
    REQUEST = "request"  # up and down on one topic: "is there an update for me?"
    UPGRADE = "upgrade"  # down: here is a package
    FIRMWARE_GET = "firmware_get"  # up: the newer form of REQUEST
    FIRMWARE_GET_REPLY = "firmware_get_reply"  # down
    FILE_DOWNLOAD = "file_download"  # up: a block of a package over MQTT
    FILE_DOWNLOAD_REPLY = "file_download_reply"  # down
    PRESENCE = "presence"  # broker -> gateway
    KICK = "kick"  # platform -> broker: disconnect this device


class Action(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class DeviceTopic(NamedTuple):
    kind: Kind
    product_key: str
    device_name: str


_PATTERNS: Final = {
    Kind.INFORM: "/ota/device/inform/{}/{}",
    Kind.PROGRESS: "/ota/device/progress/{}/{}",
    Kind.REQUEST: "/ota/device/request/{}/{}",
    Kind.UPGRADE: "/ota/device/upgrade/{}/{}",
    Kind.FIRMWARE_GET: "/sys/{}/{}/thing/ota/firmware/get",
    Kind.FIRMWARE_GET_REPLY: "/sys/{}/{}/thing/ota/firmware/get_reply",
    Kind.FILE_DOWNLOAD: "/sys/{}/{}/thing/file/download",
    Kind.FILE_DOWNLOAD_REPLY: "/sys/{}/{}/thing/file/download_reply",
    Kind.PRESENCE: "$ota/presence/{}/{}",
    Kind.KICK: "$ota/kick/{}/{}",
}

UPLINK: Final = frozenset({Kind.INFORM, Kind.PROGRESS, Kind.REQUEST, Kind.FIRMWARE_GET, Kind.FILE_DOWNLOAD})
"""What devices tell the platform: the gateway's reports."""

DOWNLINK: Final = frozenset({Kind.UPGRADE, Kind.REQUEST, Kind.FIRMWARE_GET_REPLY, Kind.FILE_DOWNLOAD_REPLY})
"""What a device receives without ever subscribing (most SDKs never do)."""

REGISTER_REPLY = "/ext/register"
REGISTER_WITHOUT_LIST_REPLY = "/ext/regnwl"
EPOCH = "$ota/epoch"

_OWN_SUBTREES: Final = (
    "/sys/{}/{}/",
    "/ext/session/{}/{}/",
    "/ext/ntp/{}/{}/",
    "/ext/error/{}/{}",
    "/shadow/update/{}/{}",
    "/shadow/get/{}/{}",
    "/{}/{}/user/",
)


def build(kind: Kind, product_key: str, device_name: str) -> str:
    """The topic of this kind for a device; with "+" for both names, the filter of all devices."""
    return _PATTERNS[kind].format(product_key, device_name)


def upgrade(product_key: str, device_name: str) -> str:
    """Where a device is told of a package."""
    return build(Kind.UPGRADE, product_key, device_name)


REPORT_FILTERS: Final = tuple(sorted(build(kind, "+", "+") for kind in UPLINK))
GATEWAY_FILTERS: Final = (*REPORT_FILTERS, build(Kind.PRESENCE, "+", "+"), EPOCH)
"""Everything the gateway subscribes to on the embedded broker."""


def _shape(pattern: str) -> tuple[int, tuple[str, ...]]:
    """Where the ProductKey stands among the levels, and the levels that are left without both names."""
    levels = pattern.split("/")
    at = levels.index("{}")
    return at, (*levels[:at], *levels[at + 2 :])


_KINDS: Final = {_shape(pattern): kind for kind, pattern in _PATTERNS.items()}
_NAME_POSITIONS: Final = tuple(sorted({at for at, _ in _KINDS}, reverse=True))


def parse(topic: str) -> DeviceTopic | None:
    """What a topic is for and whose it is; None for any other topic."""
    levels = topic.split("/")
    for at in _NAME_POSITIONS:
        kind = _KINDS.get((at, (*levels[:at], *levels[at + 2 :])))
        if kind is not None and len(levels) > at + 1 and levels[at] and levels[at + 1]:
            return DeviceTopic(kind, levels[at], levels[at + 1])
    return None


def is_valid(topic: str) -> bool:
    """Whether the text can be a topic name or filter here: not empty, not too long, not too deep, no NUL."""
    return 0 < len(topic.encode(errors="replace")) <= MAX_LENGTH and (
        topic.count("/") < MAX_LEVELS and "\0" not in topic
    )


def is_valid_filter(topic: str) -> bool:
    """Also: wildcards stand alone in their level, and # only at the end."""
    *path, last = topic.split("/")
    return is_valid(topic) and all(
        level == "+" or not ("+" in level or "#" in level)
        for level in chain(path, () if last == "#" else (last,))
    )


def allowed(product_key: str, device_name: str, action: Action, topic: str) -> bool:
    """Whether this device may publish to the topic, or subscribe to the filter: its own ones only.

    Wildcards are allowed below the device's own prefix. The SDKs subscribe a dozen `/sys` and `/ext` topics
    of features beyond firmware updates; those are granted too, and stay silent.
    """
    if not (is_valid_filter(topic) if action is Action.SUBSCRIBE else is_valid(topic)):
        return False
    if (known := parse(topic)) is not None:
        if known[1:] != (product_key, device_name) or known.kind in (Kind.PRESENCE, Kind.KICK):
            return False
        return action is Action.SUBSCRIBE or known.kind not in DOWNLINK - UPLINK
    if any(_below(topic, subtree.format(product_key, device_name)) for subtree in _OWN_SUBTREES):
        return True
    if topic.startswith("/ext/rrpc/"):
        _, _, called = topic.removeprefix("/ext/rrpc/").partition("/")  # /ext/rrpc/{message id}/{topic}
        called = "/" + called.lstrip("/")
        return any(_below(called, subtree.format(product_key, device_name)) for subtree in _OWN_SUBTREES)
    return action is Action.SUBSCRIBE and topic in (REGISTER_REPLY, REGISTER_WITHOUT_LIST_REPLY)


def _below(topic: str, prefix: str) -> bool:
    return topic.startswith(prefix) if prefix.endswith("/") else topic == prefix
