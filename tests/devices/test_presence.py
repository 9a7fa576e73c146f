"""Devices without a connection: online by their requests, offline by their silence."""

from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices import presence
from devices.models import Channel, Device, DevicePresence
from devices.presence import Down, Heard, Up
from tests.factories import EPOCH, DeviceFactory

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def device() -> Device:
    return DeviceFactory.create()


def row_of(device: Device) -> DevicePresence:
    return DevicePresence.objects.get(device=device)


def hear(device: Device, at: datetime, *, is_login: bool = False) -> presence.Changes:
    with transaction.atomic():
        return presence.record([Heard(device.pk, Channel.HTTPS, at, is_login)])


def test_requests_keep_a_device_online_without_beginning_anew(device: Device, now: datetime) -> None:
    assert hear(device, now).up == {device.pk}
    assert hear(device, now + 9 * MINUTE).counted == set()
    row = row_of(device)
    assert (row.channel, row.connected_at, row.changed_at) == (Channel.HTTPS, now, now + 9 * MINUTE)
    assert row.is_online(now + 19 * MINUTE)
    assert not row.is_online(now + 20 * MINUTE)


@pytest.mark.parametrize(("later", "is_login"), [(11 * MINUTE, False), (MINUTE, True)])
def test_a_silence_or_a_login_begins_anew_and_tells_when_the_device_was_online(
    device: Device, now: datetime, later: timedelta, is_login: bool
) -> None:
    hear(device, now)
    changes = hear(device, now + later, is_login=is_login)
    assert list(changes.before.values()) == [(now, now + 10 * MINUTE)]
    assert row_of(device).connected_at == now + later


def test_a_connection_outweighs_requests_and_replaces_them(now: datetime) -> None:
    connected = DeviceFactory.create(online=True)
    assert hear(connected, now).counted == set()
    assert row_of(connected).channel == Channel.MQTT
    asking = DeviceFactory.create()
    hear(asking, now)
    with transaction.atomic():
        presence.record([Up(asking.pk, "c7", EPOCH, now)])
    assert (row_of(asking).channel, row_of(asking).connection_id) == (Channel.MQTT, "c7")
    with transaction.atomic():
        presence.record([Down(asking.pk, "c7", EPOCH, now)])
    hear(asking, now)
    assert (row_of(asking).channel, row_of(asking).is_up) == (Channel.HTTPS, True)


def test_the_end_of_an_old_connection_does_not_end_the_requests(now: datetime) -> None:
    device = DeviceFactory.create(online=True)
    DevicePresence.objects.update(is_up=False)
    hear(device, now)
    with transaction.atomic():
        assert presence.record([Down(device.pk, f"c{device.pk}", EPOCH, now)]).counted == set()
    assert row_of(device).is_up


def test_only_silent_devices_without_a_connection_expire(now: datetime) -> None:
    silent, heard, connected = [DeviceFactory.create() for _ in range(2)] + [
        DeviceFactory.create(online=True)
    ]
    hear(silent, now)
    hear(heard, now + MINUTE)
    DevicePresence.objects.filter(device=connected).update(changed_at=now - timedelta(days=1))
    assert presence.expire(now + 10 * MINUTE) == []
    assert presence.expire(now + 11 * MINUTE) == [silent.pk]
    assert not row_of(silent).is_up
    assert row_of(heard).is_up
    assert row_of(connected).is_up


def test_expiry_reads_an_index_of_nothing_but_devices_that_ask(now: datetime) -> None:
    DeviceFactory.create_batch(3, online=True)
    for device in DeviceFactory.create_batch(3):
        hear(device, now)
    seen: list[str] = []

    def explained(execute, sql, parameters, many, context):  # type: ignore[no-untyped-def]
        if "UPDATE devices_devicepresence" in sql and not seen:
            with connection.cursor() as cursor:
                plan = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
                if connection.vendor == "postgresql":
                    cursor.execute("SET LOCAL enable_seqscan = off")
                seen.append("")
                cursor.execute(plan + sql, parameters)
                seen.append(str(cursor.fetchall()))
        return execute(sql, parameters, many, context)

    with transaction.atomic(), connection.execute_wrapper(explained):
        assert len(presence.expire(now + 11 * MINUTE)) == 3
    assert "presence_heard" in seen[1]
