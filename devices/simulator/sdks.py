"""How the device SDKs differ on the wire: what they connect with, how they report, how they download."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devices import topics
from devices.brokers.embedded import codec
from devices.credentials import sign


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The three texts burnt into a device."""

    product_key: str
    device_name: str
    device_secret: str

    def __repr__(self) -> str:
        return f"DeviceKeys({self.product_key}/{self.device_name})"


# The year 2050 in milliseconds, constant in the C SDKs.
_C_TIMESTAMP = 2_524_608_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """One SDK's habits. Times are seconds.

    `client_id` has {pk}, {dn} and {ts}; only its part before the bar is signed. `envelope` makes a report of
    a running number and the JSON of its parameters. `firmware_pieces`: in how many ranges it asks for a file;
    None asks for all at once.
    """

    name: str
    client_id: str
    sign_method: str
    timestamp: Callable[[float], int]
    envelope: str
    keep_alive: int = 60
    ping_every: float = 60
    is_clean: bool = True
    report_qos: int = 0
    informs: int = 1
    subscribes: tuple[topics.Kind, ...] = ()
    firmware_pieces: int | None = None
    is_c: bool = False
    reads_md5_only: bool = False

    def connect(self, keys: DeviceKeys, now: float | None = None) -> codec.Connect:
        """The CONNECT of a device; `now` is seconds since the epoch."""
        timestamp = self.timestamp(time.time() if now is None else now)
        names = {"pk": keys.product_key, "dn": keys.device_name, "ts": timestamp}
        client_id = self.client_id.format(**names)
        head = client_id.partition("|")[0]
        text = "clientId{}deviceName{dn}productKey{pk}timestamp{ts}".format(head, **names)
        password = sign(keys.device_secret, text, self.sign_method)
        return codec.Connect(
            client_id=client_id,
            username=f"{keys.device_name}&{keys.product_key}",
            password=(password.upper() if self.is_c else password).encode(),
            keep_alive=self.keep_alive,
            clean=self.is_clean,
        )

    def report(self, number: int, params: Mapping[str, str]) -> bytes:
        """The payload of an inform or a progress report, with the SDK's own blanks."""
        inner = json.dumps(params, separators=(",", ":"), ensure_ascii=False)
        return self.envelope.replace("#id", str(number)).replace("#params", inner).encode()


PYTHON = Sdk(
    name="python",
    client_id="{pk}&{dn}|securemode=3,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,timestamp={ts}|",
    sign_method="hmacsha1",
    timestamp=int,
    envelope='{"id": #id, "params": #params}',
    firmware_pieces=8,
)
NODE = Sdk(
    name="node",
    client_id="{pk}&{dn}|securemode=3,signmethod=hmacsha1,timestamp={ts},lan=NodeJS,_v=1.2.8|",
    sign_method="hmacsha1",
    timestamp=lambda now: int(now * 1000),
    envelope='{"id":"#id","params":#params}',
    is_clean=False,
    subscribes=(topics.Kind.UPGRADE,),
    firmware_pieces=5,
)
LINK_SDK = Sdk(
    name="link-sdk-c",
    client_id="{pk}.{dn}|timestamp={ts},_ss=1,_v=sdk-c-4.1.0,securemode=3,signmethod=hmacsha256,ext=3,|",
    sign_method="hmacsha256",
    timestamp=lambda now: _C_TIMESTAMP,
    envelope='{"id":#id, "params":#params}',
    keep_alive=1200,
    ping_every=25,
    is_c=True,
)
IOTKIT = Sdk(
    name="iotkit",
    client_id=(
        "{pk}.{dn}|timestamp={ts},_v=sdk-c-3.2.0,securemode=3,signmethod=hmacsha256,lan=C,_ss=1,gw=0,ext=0|"
    ),
    sign_method="hmacsha256",
    timestamp=lambda now: _C_TIMESTAMP,
    envelope='{"id":"#id","params":#params}',
    keep_alive=120,
    is_clean=False,
    report_qos=1,
    informs=2,
    subscribes=(topics.Kind.REQUEST, topics.Kind.UPGRADE),
    is_c=True,
    reads_md5_only=True,
)
SDKS = (PYTHON, NODE, LINK_SDK, IOTKIT)
