"""The text side of a device's identity: what it connects with, what of it is signed, and the signature.

Nothing of Django and no database in here. The rules are those of Alibaba Cloud IoT: a device proves that it
has its secret by an HMAC over names and values in name order; sign methods are hmacmd5 (the default),
hmacsha1 and hmacsha256, and the hex digits may be of either case.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_CLIENT_ID = 1024
MAX_FIELD = 256
MAX_PASSWORD = 512
AUTH_WINDOW_MS = 15 * 60 * 1000
DEFAULT_METHOD = "hmacmd5"

_DIGESTS = {"hmacmd5": "md5", "hmacsha1": "sha1", "hmacsha256": "sha256"}
_PRODUCT_KEY = re.compile(r"[A-Za-z0-9]{1,20}")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,32}")


class BadCredentials(Exception):  # noqa: N818 - named by meaning
    """Not the shape of any credentials; says nothing about whether the device exists."""


class Kind(StrEnum):
    """What a device asks for, and thereby which secret it has to know."""

    SECRET = "secret"  # noqa: S105 - to connect, by its DeviceSecret
    REGISTER = "register"  # its DeviceSecret, by the ProductSecret; the name is known beforehand
    REGNWL = "regnwl"  # a token, by the ProductSecret; the name need not be known
    CONNWL = "connwl"  # to connect, by the token that regnwl gave


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who says to be here, and the text whose signature proves it (empty where a token is the proof)."""

    kind: Kind
    product_key: str
    device_name: str
    method: str = DEFAULT_METHOD
    client_id: str = ""
    timestamp: str | None = None
    signed_text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """The three texts of an MQTT CONNECT."""

    client_id: str
    username: str
    password: str = field(repr=False)


def parse(client_id: str, username: str) -> Credentials:
    """The credentials of an MQTT CONNECT: `{cid}|k=v,k=v,…|` and `{DeviceName}&{ProductKey}`.

    Blanks and line ends around keys and values are not part of them (Node SDK 1.0.1 sends some); unknown keys
    are ignored. The timestamp is signed but means nothing: C SDKs send the year 2050. Raises BadCredentials.
    """
    if len(client_id) > MAX_CLIENT_ID:
        raise BadCredentials("client id too long")
    device_name, _, product_key = username.partition("&")
    head, _, tail = client_id.partition("|")
    pairs = (item.partition("=") for item in tail.rstrip().removesuffix("|").split(",") if "=" in item)
    params = {key.strip(): value.strip() for key, _, value in pairs}
    kind = _kind(params.get("authType", ""))
    if kind in (Kind.REGISTER, Kind.REGNWL):
        signed = {"random": _present(params, "random")}
    else:
        signed = {"clientId": head}
        if "timestamp" in params:
            signed["timestamp"] = params["timestamp"]
    return _credentials(kind, product_key, device_name, params.get("signmethod"), signed)


def parse_auth(body: Mapping[str, object]) -> tuple[Credentials, str]:
    """The credentials and the sign of a `POST /auth` (HTTPS, CoAP).

    All fields are signed but version, sign and signmethod. Raises BadCredentials. Whether the timestamp is
    fresh is a question of its own: `is_fresh`.
    """
    fields = _texts(body)
    unsigned = ("version", "sign", "signmethod", "productKey", "deviceName")
    signed = {key: value for key, value in fields.items() if key not in unsigned}
    _present(fields, "clientId")
    credentials = _credentials(
        Kind.SECRET,
        fields.get("productKey", ""),
        fields.get("deviceName", ""),
        fields.get("signmethod"),
        signed,
    )
    return credentials, _present(fields, "sign")


def parse_registration(form: Mapping[str, object]) -> tuple[Credentials, str]:
    """The credentials and the sign of a `POST /auth/register/device`. Raises BadCredentials."""
    fields = _texts(form)
    credentials = _credentials(
        Kind.REGISTER,
        fields.get("productKey", ""),
        fields.get("deviceName", ""),
        fields.get("signMethod"),
        {"random": _present(fields, "random")},
    )
    return credentials, _present(fields, "sign")


def password_matches(secret: str, credentials: Credentials, password: str | bytes) -> bool:
    """Whether the password proves knowledge of the secret, found out in constant time.

    `secret` is the DeviceSecret, the ProductSecret or the token, as `credentials.kind` says. An empty one
    proves nothing.
    """
    given = password.encode(errors="replace") if isinstance(password, str) else password
    if not secret or len(given) > MAX_PASSWORD:
        return False
    if credentials.kind is Kind.CONNWL:
        return hmac.compare_digest(secret.encode(), given)
    expected = sign(secret, credentials.signed_text, credentials.method)
    return hmac.compare_digest(expected.encode(), given.lower())


def is_fresh(timestamp: str | None, now_ms: int) -> bool:
    """Whether the timestamp of a `POST /auth` is within 15 minutes of `now_ms`; none at all is fine."""
    if timestamp is None:
        return True
    if not re.fullmatch(r"[0-9]{1,15}", timestamp):
        return False
    return abs(int(timestamp) - now_ms) <= AUTH_WINDOW_MS


def sign(secret: str, text: str, method: str = DEFAULT_METHOD) -> str:
    """The signature in lower-case hex. Raises BadCredentials for an unknown method."""
    return hmac.digest(secret.encode(), text.encode(), _digest_name(method)).hex()


def mqtt_login(
    product_key: str,
    device_name: str,
    secret: str,
    *,
    client_id: str | None = None,
    method: str = "hmacsha256",
    timestamp: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Login:
    """What a device connects with; `client_id` is the part before the bar, `extra` goes behind it."""
    head = f"{product_key}.{device_name}" if client_id is None else client_id
    params = {"securemode": "3", "signmethod": method, **(extra or {})}
    signed = {"clientId": head, "productKey": product_key, "deviceName": device_name}
    if timestamp is not None:
        params["timestamp"] = signed["timestamp"] = timestamp
    return Login(
        client_id=f"{head}|{','.join(f'{key}={value}' for key, value in params.items())}|",
        username=f"{device_name}&{product_key}",
        password=sign(secret, _signed_text(signed), method),
    )


def mqtt_registration(product_key: str, device_name: str, product_secret: str, *, random: str) -> Login:
    """What a device connects with to be given its secret."""
    signed = {"deviceName": device_name, "productKey": product_key, "random": random}
    return Login(
        client_id=f"{product_key}.{device_name}|random={random},authType=register,securemode=2,signmethod=hmacsha256|",
        username=f"{device_name}&{product_key}",
        password=sign(product_secret, _signed_text(signed), "hmacsha256"),
    )


def http_auth(
    product_key: str,
    device_name: str,
    secret: str,
    *,
    client_id: str | None = None,
    method: str = "hmacsha256",
    timestamp: str | None = None,
) -> dict[str, str]:
    """The body of a device's `POST /auth`."""
    signed = {
        "clientId": f"{product_key}.{device_name}" if client_id is None else client_id,
        "deviceName": device_name,
        "productKey": product_key,
    }
    if timestamp is not None:
        signed["timestamp"] = timestamp
    return {
        "version": "default",
        **signed,
        "signmethod": method,
        "sign": sign(secret, _signed_text(signed), method),
    }


def _credentials(
    kind: Kind, product_key: str, device_name: str, method: str | None, signed: Mapping[str, str]
) -> Credentials:
    if not _PRODUCT_KEY.fullmatch(product_key):
        raise BadCredentials("product key")
    if not _DEVICE_NAME.fullmatch(device_name):
        raise BadCredentials("device name")
    for key, value in signed.items():
        _check_text(key)
        _check_text(value)
    method = (method or DEFAULT_METHOD).lower()
    _digest_name(method)
    named = {**signed, "productKey": product_key, "deviceName": device_name}
    return Credentials(
        kind=kind,
        product_key=product_key,
        device_name=device_name,
        method=method,
        client_id=signed.get("clientId", ""),
        timestamp=signed.get("timestamp"),
        signed_text="" if kind is Kind.CONNWL else _signed_text(named),
    )


def _signed_text(named: Mapping[str, str]) -> str:
    return "".join(f"{key}{named[key]}" for key in sorted(named))


def _kind(auth_type: str) -> Kind:
    if not auth_type:
        return Kind.SECRET
    if auth_type not in (Kind.REGISTER, Kind.REGNWL, Kind.CONNWL):
        raise BadCredentials("authType")
    return Kind(auth_type)


def _digest_name(method: str) -> str:
    name = _DIGESTS.get(method)
    if name is None:
        raise BadCredentials("sign method")
    return name


def _texts(body: Mapping[str, object]) -> dict[str, str]:
    """Fields as texts; some devices send the timestamp or the seq as a number."""
    if len(body) > 20:
        raise BadCredentials("too many fields")
    texts: dict[str, str] = {}
    for key, value in body.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadCredentials("field is neither text nor number")
        if isinstance(value, int) and abs(value) >= 10**18:
            raise BadCredentials("number")
        texts[key] = str(value)
    return texts


def _present(fields: Mapping[str, str], key: str) -> str:
    value = fields.get(key)
    if not value:
        raise BadCredentials(f"no {key}")
    _check_text(value)
    return value


def _check_text(text: str) -> None:
    if len(text) > MAX_FIELD or "\0" in text:
        raise BadCredentials("text too long or with a NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadCredentials("text with a lone surrogate") from None
