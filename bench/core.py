"""The three hot paths through the real code, beside a plain-script ceiling in the same run.

    DATABASE_URL=postgres://postgres@127.0.0.1/bench python bench/core.py --devices 100000

Creates its own rows in the database it is given, which should be an empty one. Quote the ratios: absolute
numbers are the machine's.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "otaplatform.settings")

import django

django.setup()

from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from campaigns import dispatch, expand, reports
from campaigns.models import Campaign, UpdateTask
from campaigns.reports import Step
from campaigns.states import CampaignKind, CampaignStatus
from devices.models import BrokerEpoch, Product
from firmware.models import Firmware, FirmwareStatus
from otaplatform.accounts.models import Account

BATCH = 500


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sql(statement: str, *parameters: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def fill(devices: int) -> Campaign:
    account = Account.objects.create(name=f"bench {time.time()}")
    product = Product.objects.create(
        account=account, name="bench_product", product_key=f"b{time.time_ns() % 10**9}"
    )
    firmware = Firmware.objects.create(
        account=account, product=product, name="bench_fw", version="2.0.0", status=FirmwareStatus.VERIFIED
    )
    BrokerEpoch.objects.update_or_create(pk=1, defaults={"epoch": "bench"})
    with transaction.atomic():
        sql(
            "INSERT INTO devices_device (product_id, name, secret_encrypted, is_disabled, activated_at, "
            "created_at) "
            "SELECT %s, 'bench-' || i, '', false, now(), now() FROM generate_series(1, %s) AS i",
            product.pk,
            devices,
        )
        sql(
            "INSERT INTO devices_devicepresence (device_id, channel, is_up, connection_id, epoch) "
            "SELECT id, 'mqtt', true, 'c', 'bench' FROM devices_device WHERE product_id = %s",
            product.pk,
        )
        sql(
            "INSERT INTO devices_deviceversion (device_id, product_id, module, version, reported_at) "
            "SELECT id, product_id, 'default', '1.0.0', now() FROM devices_device WHERE product_id = %s",
            product.pk,
        )
    sql("ANALYZE")
    return Campaign.objects.create(
        account=account,
        product=product,
        firmware=firmware,
        kind=CampaignKind.UPGRADE,
        status=CampaignStatus.IN_PROGRESS,
        file_checked_at=timezone.now(),
    )


def ceiling_expand(devices: int) -> float:
    """One INSERT … SELECT into a table with the same columns and indexes, without the questions asked."""
    sql("CREATE TABLE bench_task (LIKE campaigns_updatetask INCLUDING ALL)")
    seconds = timed(lambda: sql("INSERT INTO bench_task SELECT * FROM campaigns_updatetask"))
    sql("DROP TABLE bench_task")
    return devices / seconds


def ceiling_apply(ids: list[int]) -> float:
    """UPDATE … FROM unnest of status and progress alone."""
    rates = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        seconds = timed(
            lambda part=part: sql(
                "UPDATE campaigns_updatetask SET progress = v.p FROM unnest(%s::bigint[], %s::smallint[]) "
                "AS v(i, p) WHERE id = v.i AND status = 'IN_PROGRESS'",
                part,
                [5] * len(part),
            )
        )
        rates.append(len(part) / seconds)
    return statistics.median(rates)


def show(path: str, rate: float, ceiling: float | None = None) -> None:
    """One line: rows a second, and what share of the ceiling that is."""
    print(f"{path:<12}{rate:>10,.0f}/s", end="")
    print(f"   ceiling {ceiling:>10,.0f}/s   ratio {rate / ceiling:.2f}" if ceiling else "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=100_000)
    devices = parser.parse_args().devices
    call_command("migrate", verbosity=0)
    campaign = fill(devices)

    expanded = devices / timed(lambda: expand.expand(campaign.pk))
    ceiling = ceiling_expand(devices)
    show("expand", expanded, ceiling)

    now = timezone.now() + timedelta(seconds=1)
    rates = []
    claimed = 0
    while claimed < devices:
        start = time.perf_counter()
        got = len(dispatch.claim(campaign, now, 1000) or [])
        rates.append(got / (time.perf_counter() - start))
        if not got:
            break
        claimed += got
    show("claim", statistics.median(rates))

    targets = list(UpdateTask.objects.filter(campaign=campaign).values_list("device_id", flat=True)[:20_000])
    for name, step in (("first step", 10), ("progress", 50)):
        rates = []
        for start_at in range(0, len(targets), BATCH):
            part = [Step(device, None, step, "", now) for device in targets[start_at : start_at + BATCH]]
            rates.append(len(part) / timed(lambda part=part: reports.apply(part, now)))
        measured = statistics.median(rates)
        if name == "progress":
            ids = list(
                UpdateTask.objects.filter(campaign=campaign, device__in=targets).values_list("id", flat=True)
            )
            ceiling = ceiling_apply(ids)
            show(name, measured, ceiling)
        else:
            show(name, measured)


if __name__ == "__main__":
    main()
