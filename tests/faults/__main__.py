"""Rounds of faults over a fleet that is being updated, and what must be true after each.

    .venv/bin/python -m tests.faults [--rounds 2] [--devices 12] [--only gateway,worker] [--long]

In each round a batch update is launched and the fault strikes, in odd rounds when the first device has its
push, in even rounds before that; nobody lends a hand. Then: each device has one task, SUCCEEDED, and runs the
target; every report that was acknowledged is in the database; no push was repeated more often than
at-least-once explains; the counters equal a recount; no message was buried.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.faults.services import WORDS, Platform, Postgres, wait_for

# A push is repeated after a claim without an acknowledgement and after a reconnect, 30 s apart at least.
MOST_PUSHES = 4
DONE_WITHIN = 240


def faults(platform: Platform, postgres: Postgres, long: bool) -> dict[str, Callable[[], None]]:
    """The strikes by name. `long`: part and Redis stand still as long as a hand-run asks for."""

    def kill(part: str) -> Callable[[], None]:
        return lambda: void(platform.send(part, signal.SIGKILL))

    def freeze(part: str, seconds: float) -> Callable[[], None]:
        def strike() -> None:
            pid = platform.send(part, signal.SIGSTOP)
            time.sleep(seconds)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)

        return strike

    def supervisor() -> None:
        platform.kill_supervisor()
        platform.start()

    def everything() -> None:
        platform.kill_all()
        platform.start()

    def database() -> None:
        postgres.stop_immediately()
        time.sleep(3)
        postgres.start()

    def no_redis() -> None:
        end = time.monotonic() + (60 if long else 8)
        while time.monotonic() < end:
            platform.send("redis", signal.SIGKILL)
            time.sleep(0.2)

    return {
        **{f"kill {part}": kill(part) for part in WORDS},
        "kill supervisor": supervisor,
        "kill all at once": everything,
        "PostgreSQL stopped": database,
        "worker stands still": freeze("worker", 60 if long else 5),
        "gateway stands still": freeze("gateway", 30 if long else 5),
        "no Redis": no_redis,
    }


def void(_: object) -> None:
    return


class Rounds:
    """A product with its fleet; each round updates it to the next version."""

    def __init__(self, platform: Platform, devices: int) -> None:
        import django

        django.setup()
        from tests.factories import DeviceFactory, ProductFactory
        from tests.faults.fleet import FaultDevice

        self.platform = platform
        self.product = ProductFactory.create()
        self.number = 0
        rows = DeviceFactory.create_batch(devices, product=self.product)
        key = self.product.product_key
        self.devices = [FaultDevice(key, row.name, row.secret, "1.0.0", platform.mqtt_port) for row in rows]
        for device in self.devices:
            device.start()
        self._ending = threading.Event()
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while not self._ending.wait(3):
            for device in self.devices:
                device.count()

    def end(self) -> None:
        self._ending.set()
        for device in self.devices:
            device.stop()

    def play(self, strike: Callable[[], None]) -> dict[str, Any]:
        """One round; what it came to. AssertionError if something is not as it must be."""
        from django.core.exceptions import ValidationError

        from campaigns import services
        from campaigns.models import UpdateTask
        from tests.factories import FirmwareFactory

        self.number += 1
        target = f"2.0.{self.number}"
        firmware = FirmwareFactory.create(product=self.product, version=target)
        try:
            campaign = services.launch_batch(firmware, services.Plan(accept_unproven=True))
        except ValidationError as error:
            raise AssertionError(f"the batch was refused: {error}") from None
        before = sum(device.acknowledgements for device in self.devices)

        def pushed() -> int:
            return sum(device.pushes[target] > 0 for device in self.devices)

        if self.number % 2:
            wait_for(pushed, DONE_WITHIN, "the first pushes")
        struck_at = time.monotonic()
        strike()

        def is_done() -> bool:
            return all(target in device.informed for device in self.devices) and query(
                lambda: UpdateTask.objects.filter(campaign=campaign, status="SUCCEEDED").count()
            ) == len(self.devices)

        try:
            wait_for(is_done, DONE_WITHIN, "every device is updated")
        except AssertionError as error:
            states = query(
                lambda: list(
                    UpdateTask.objects.filter(campaign=campaign).values_list(
                        "device__name",
                        "status",
                        "reason",
                        "progress",
                        "attempt",
                        "returns",
                        "ready_at",
                        "pushed_at",
                    )
                )
            )
            raise AssertionError(f"{error}: {states}") from None
        seconds = time.monotonic() - struck_at
        self._judge(campaign.pk, target)
        return {
            "seconds": round(seconds, 1),
            "acknowledged": sum(device.acknowledgements for device in self.devices) - before,
            "pushes": sum(device.pushes[target] for device in self.devices),
            "most": max(device.pushes[target] for device in self.devices),
        }

    def _judge(self, campaign: int, target: str) -> None:
        from campaigns import moves
        from campaigns.models import UpdateTask
        from devices import versions
        from devices.models import DeviceVersion
        from otaplatform.models import DeadLetter

        tasks = query(
            lambda: list(UpdateTask.objects.filter(campaign=campaign).values_list("device__name", "status"))
        )
        assert sorted(tasks) == sorted((device.name, "SUCCEEDED") for device in self.devices), tasks
        promised = {device.name: device.acknowledged for device in self.devices}
        stored = query(
            lambda: {
                (name, module): version
                for name, module, version in DeviceVersion.objects.values_list(
                    "device__name", "module", "version"
                )
            }
        )
        lost = {
            name: (number, stored.get((name, "counter")))
            for name, number in promised.items()
            if number and int(stored.get((name, "counter"), 0)) < number
        }
        assert not lost, f"acknowledged and not stored: {lost}"
        assert all(stored[device.name, "default"] == device.version == target for device in self.devices)
        repeated = {
            d.name: d.pushes[target] for d in self.devices if not 1 <= d.pushes[target] <= MOST_PUSHES
        }
        assert not repeated, f"pushes: {repeated}"
        assert query(lambda: moves.recount([campaign])) == {}
        wait_for(lambda: query(versions.recount) == {}, 10, "the counters of versions equal a recount")
        assert query(DeadLetter.objects.count) == 0


def query(ask: Callable[[], Any]) -> Any:
    """Ask the database, and again if it was just away."""
    from django.db import InterfaceError, OperationalError, connection

    for _ in range(100):
        try:
            return ask()
        except (OperationalError, InterfaceError):
            connection.close()
            time.sleep(0.3)
    return ask()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--devices", type=int, default=12)
    parser.add_argument("--only", default="", help="some of the faults, separated by commas")
    parser.add_argument("--long", action="store_true", help="stand still for 60 and 30 s instead of 5")
    options = parser.parse_args()
    postgres = Postgres()
    platform = Platform(postgres.url)
    os.environ.pop("REDIS_URL", None)
    os.environ.update(platform.environ)
    began, table, failed = time.monotonic(), {}, False
    try:
        platform.start()
        wait_for(lambda: "is ready." in platform.log.read_text(), 120, "the platform is ready")
        rounds = Rounds(platform, options.devices)
        every = faults(platform, postgres, options.long)
        chosen = [name.strip() for name in options.only.split(",") if name.strip()] or list(every)
        for name in chosen:
            for number in range(1, options.rounds + 1):
                result = rounds.play(every[name])
                table.setdefault(name, []).append(result)
                print(f"{time.monotonic() - began:6.1f} s  {name} {number}: {result}", flush=True)
        rounds.end()
    except AssertionError as error:
        failed = True
        print(f"FAILED: {error}", file=sys.stderr)
        print(platform.log.read_text()[-6000:], file=sys.stderr)
    finally:
        platform.end()
        postgres.end()
    print(json.dumps({"ok": not failed, "seconds": round(time.monotonic() - began, 1), "faults": table}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
