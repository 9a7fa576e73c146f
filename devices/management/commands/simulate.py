"""`manage.py simulate`: a fleet of simulated devices, for demonstrations and load."""

from __future__ import annotations

import argparse
import asyncio
import csv
import signal
import ssl
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from devices import services
from devices.brokers.embedded.limits import connection_bound
from devices.models import Product
from devices.simulator import (
    DEMO_FAULTS,
    Behaviour,
    DeviceKeys,
    Fault,
    Fleet,
    Surroundings,
    VersionMix,
    VersionStore,
)
from devices.simulator.behaviour import parse_fault

T = TypeVar("T")

DEFAULT_COUNT = 20
LINGER = 10.0
_COLUMNS = ("ProductKey", "DeviceName", "DeviceSecret")


class Command(BaseCommand):
    help = (
        "Simulate devices that connect, report their version, and download and install what they are pushed. "
        "Devices are those of a product in the database (missing ones are registered; without --product-key, "
        "the sample product) or, for a platform elsewhere, of a file with --credentials."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        who = parser.add_argument_group("which devices")
        source = who.add_mutually_exclusive_group()
        source.add_argument("--product-key", metavar="KEY", help="devices of this product in the database")
        source.add_argument(
            "--credentials", type=Path, metavar="FILE", help=f"CSV with the columns {', '.join(_COLUMNS)}"
        )
        who.add_argument("--count", type=_whole, metavar="N", help=f"how many (default: {DEFAULT_COUNT})")
        who.add_argument("--prefix", default="sim-", help="only names that begin so (default: %(default)s)")

        where = parser.add_argument_group("where they connect")
        where.add_argument("--host", help="default: this installation's broker")
        where.add_argument("--port", type=_whole)
        where.add_argument("--tls", action="store_true", help="MQTT over TLS")
        where.add_argument(
            "--ca", type=Path, metavar="FILE", help="trust these certificates (MQTT and HTTPS)"
        )
        where.add_argument("--connect-rate", type=float, default=50, metavar="N", help="connects per second")

        how = parser.add_argument_group("how they behave")
        how.add_argument(
            "--versions",
            type=_readable(VersionMix.parse),
            default=VersionMix.parse("1.0.0:70,1.1.0:30"),
            metavar="V:WEIGHT,…",
            help="versions of devices that are simulated for the first time (default: 1.0.0:70,1.1.0:30)",
        )
        how.add_argument(
            "--module",
            type=_readable(_parse_module),
            action="append",
            default=[],
            metavar="NAME=V:WEIGHT,…",
            help="a further module; may be repeated",
        )
        how.add_argument(
            "--fail",
            type=_readable(_parse_failure),
            action="append",
            metavar="STEP=RATE",
            help=f"share of updates that fail so: {', '.join(Fault)}; may be repeated, replaces the gentle "
            "defaults; 'none' for no failures",
        )
        how.add_argument("--offline", type=float, default=0.12, help="share of devices that are away")
        how.add_argument("--speed", type=float, default=1.0, help="2 is twice as fast (default: 1)")
        how.add_argument("--seed", type=int, help="the same fates again")
        how.add_argument(
            "--public-key", type=Path, metavar="PEM", help="install only packages signed for secure update"
        )
        how.add_argument(
            "--stray-inform", action="store_true", help="iotkit devices first report a stray version"
        )
        how.add_argument(
            "--once",
            action="store_true",
            help=f"each device leaves for good once it has been online for {LINGER:g} s without an update",
        )
        how.add_argument("--state-dir", type=Path, metavar="DIR", help="default: OTA_DATA_DIR/simulator")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["credentials"]:
            name, keys = options["credentials"].stem, read_credentials(options["credentials"])
            keys = keys[: options["count"]]
        else:
            product = self._product(options["product_key"])
            if product is None:
                self._say("There is no sample product to simulate.")
                return
            name = product.product_key
            keys = keys_of(product, options["count"] or DEFAULT_COUNT, options["prefix"])
            connections.close_all()
        if connection_bound(len(keys)) < len(keys):
            raise CommandError(f"The system's limit of open files does not allow {len(keys)} connections.")
        around = _surroundings(options)
        around.store = VersionStore(
            (options["state_dir"] or settings.OTA_DATA_DIR / "simulator") / f"{name}.json"
        )
        fleet = Fleet(keys, around, _behaviour(options), seed=options["seed"], say=self._say)
        self._say(f"{len(keys)} simulated devices connect to {around.host}:{around.port}.")
        asyncio.run(_run(fleet))
        self._say(fleet.status())

    def _product(self, product_key: str | None) -> Product | None:
        if product_key is None:
            return Product.objects.filter(is_sample=True).first()
        try:
            return Product.objects.get(product_key=product_key)
        except Product.DoesNotExist:
            raise CommandError(f"There is no product with the ProductKey {product_key}.") from None

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def keys_of(product: Product, wanted: int, prefix: str) -> list[DeviceKeys]:
    """The keys of `wanted` devices of the product; missing ones are registered. Raises CommandError."""
    mine = product.devices.named_from(prefix)
    missing = wanted - mine.usable().count()
    if missing > 0:
        taken = set(mine.present().values_list("name", flat=True))
        free = (name for number in count(1) if (name := f"{prefix}{number:04d}") not in taken)
        names = list(islice(free, missing))
        for start in range(0, missing, services.MAX_BATCH):
            for result in services.register_devices(product, names[start : start + services.MAX_BATCH]):
                if result.device is None:
                    raise CommandError(f"{result.name}: {result.error}")
    return [
        DeviceKeys(product.product_key, device.name, device.secret)
        for device in mine.usable().order_by("pk")[:wanted]
    ]


def read_credentials(path: Path) -> list[DeviceKeys]:
    """The devices of a CSV file. Raises CommandError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        keys = [DeviceKeys(*(row[column].strip() for column in _COLUMNS)) for row in rows]
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error):
        raise CommandError(f"{path} is not a CSV file with the columns {', '.join(_COLUMNS)}.") from None
    if not keys:
        raise CommandError(f"{path} names no devices.")
    return keys


async def _run(fleet: Fleet) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, fleet.stop)
    await fleet.run()


def _surroundings(options: dict[str, Any]) -> Surroundings:
    url = urlsplit(settings.MQTT_URL)
    try:
        tls = ssl.create_default_context(cafile=options["ca"])
    except OSError as error:
        raise CommandError(f"{options['ca']} cannot be used: {error}") from None
    here = "127.0.0.1" if settings.OTA_BIND in ("0.0.0.0", "::") else settings.OTA_BIND  # noqa: S104 - a test
    if options["connect_rate"] <= 0:
        raise CommandError("The connect rate must be above 0.")
    return Surroundings(
        host=options["host"] or url.hostname or here,
        port=options["port"] or url.port or settings.OTA_MQTT_PORT,
        mqtt_tls=tls if options["tls"] else None,
        http_tls=tls,
        connects_per_second=options["connect_rate"],
    )


def _behaviour(options: dict[str, Any]) -> Behaviour:
    chosen = options["fail"]
    faults = DEMO_FAULTS if chosen is None else dict(each for each in chosen if each is not None)
    try:
        return Behaviour(
            versions=options["versions"],
            modules=dict(options["module"]),
            faults=faults,
            offline=options["offline"],
            speed=options["speed"],
            linger=LINGER if options["once"] else None,
            stray_inform=options["stray_inform"],
            public_key=_read_public_key(options["public_key"]) if options["public_key"] else None,
        )
    except ValueError as error:
        raise CommandError(f"Impossible options: {error}.") from None


def _read_public_key(path: Path) -> RSAPublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except ValueError:
        key = None
    if not isinstance(key, RSAPublicKey):
        raise CommandError(f"{path} is not an RSA public key in PEM.")
    return key


def _readable(parse: Callable[[str], T]) -> Callable[[str], T]:
    """An argparse type that shows the ValueError's own words."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _whole(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parse_module(text: str) -> tuple[str, VersionMix]:
    name, _, versions = text.partition("=")
    if not name:
        raise ValueError("a module needs a name")
    return name, VersionMix.parse(versions)


def _parse_failure(text: str) -> tuple[Fault, float] | None:
    return None if text == "none" else parse_fault(text)
