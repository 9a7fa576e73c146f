"""Claims, pushes and pulls."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
from django.core.files.storage import default_storage

from campaigns import dispatch, expand, moves, reports, services
from campaigns.models import Campaign, TaskEvent, UpdateTask
from campaigns.states import CampaignStatus, EventKind, Policy, TaskStatus
from devices.models import BrokerEpoch, Device, DevicePresence, DeviceVersion
from devices.mqtt import Delivery
from firmware.models import Firmware
from tests.campaigns.conftest import counts
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory

Fleet = Callable[..., list[Device]]


class Broker:
    """Where pushes land; it acknowledges what is not listed as lost."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.is_down = False

    def send(self, messages: Sequence[tuple[str, bytes]]) -> list[bool]:
        self.sent += [(topic, json.loads(payload)) for topic, payload in messages]
        return [not self.is_down for _ in messages]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def ready(campaign: Campaign, fleet: Fleet, now: datetime) -> tuple[Campaign, list[Device]]:
    devices = fleet(3)
    expand.expand(campaign.pk, now)
    return campaign, devices


def test_online_devices_are_pushed_to_on_their_own_topic_and_stamped(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    campaign, devices = ready
    assert dispatch.dispatch(broker.send, now) == {campaign.pk}
    key = campaign.product.product_key
    assert {topic for topic, _ in broker.sent} == {
        f"/ota/device/upgrade/{key}/{device.name}" for device in devices
    }
    assert counts(campaign) == {"NOTIFIED": 3}
    assert UpdateTask.objects.filter(acknowledged_at=now, pushed_at=now).count() == 3
    assert TaskEvent.objects.filter(kind=EventKind.PUSHED).count() == 3


def test_a_push_says_what_the_device_needs_to_download_and_check_the_file(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    dispatch.dispatch(broker.send, now)
    message = broker.sent[0][1]
    file = ready[0].firmware.files.get()
    data = message["data"]
    assert isinstance(data, dict)
    assert (message["code"], message["message"]) == ("1000", "success")
    assert (data["version"], data["size"], data["md5"], data["sign"]) == (
        "2.0.0",
        file.size,
        file.md5,
        file.md5,
    )
    assert data["signMethod"] == "Md5"
    assert len(data["url"]) <= 254


def test_nothing_is_pushed_twice(ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime) -> None:
    dispatch.dispatch(broker.send, now)
    dispatch.dispatch(broker.send, now + timedelta(seconds=5))
    assert len(broker.sent) == 3


def test_what_the_broker_did_not_confirm_stays_unstamped(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    broker.is_down = True
    dispatch.dispatch(broker.send, now)
    assert UpdateTask.objects.filter(status="NOTIFIED", acknowledged_at=None).count() == 3


def test_offline_devices_and_ghosts_of_an_earlier_broker_life_are_not_pushed_to(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    _, devices = ready
    DevicePresence.objects.filter(device=devices[0]).update(is_up=False)
    DevicePresence.objects.filter(device=devices[1]).update(epoch="an earlier one")
    dispatch.dispatch(broker.send, now)
    assert [topic.rsplit("/", 1)[1] for topic, _ in broker.sent] == [devices[2].name]


def test_just_before_the_push_the_version_is_looked_at_again(
    firmware: Firmware, fleet: Fleet, broker: Broker, now: datetime
) -> None:
    done, left, still = fleet(3)
    campaign = CampaignFactory.create(firmware=firmware, source_versions=["1.0.0"], expanded_at=None)
    expand.expand(campaign.pk, now)
    DeviceVersion.objects.filter(device=done).update(version="2.0.0")
    DeviceVersion.objects.filter(device=left).update(version="1.9.0")
    dispatch.dispatch(broker.send, now)
    outcome = dict(UpdateTask.objects.values_list("device_id", "status"))
    assert outcome == {done.pk: "SUCCEEDED", left.pk: "FAILED", still.pk: "NOTIFIED"}
    assert UpdateTask.objects.get(device=left).reason == "NO_LONGER_MATCHES"
    assert len(broker.sent) == 1
    assert counts(campaign) == {"SUCCEEDED": 1, "FAILED": 1, "NOTIFIED": 1}


@pytest.mark.parametrize("gate", [{"is_paused": True}, {"status": "canceled"}, {"status": "planned"}])
def test_a_closed_gate_lets_nothing_through(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime, gate: dict[str, object]
) -> None:
    Campaign.objects.update(**gate)
    assert dispatch.dispatch(broker.send, now) == set()
    assert broker.sent == []


def test_a_reserved_device_is_left_alone(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    DevicePresence.objects.filter(device=ready[1][0]).update(reserved_until=now + timedelta(minutes=1))
    dispatch.dispatch(broker.send, now)
    assert len(broker.sent) == 2


def test_a_minute_lets_through_what_the_limit_allows(
    campaign: Campaign, fleet: Fleet, broker: Broker, now: datetime
) -> None:
    Campaign.objects.update(max_per_minute=10)
    fleet(25)
    start = now.replace(second=0, microsecond=0)
    expand.expand(campaign.pk, start)
    sent = []
    for seconds in (1, 20, 61, 90, 125):
        dispatch.dispatch(broker.send, start + timedelta(seconds=seconds))
        sent.append(len(broker.sent))
    assert sent == [10, 10, 20, 20, 25]


def test_a_damaged_file_stops_the_batch_before_it_reaches_a_device(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    campaign, _ = ready
    file = campaign.firmware.files.get()
    with file.file.storage.open(file.file.name, "wb") as stored:
        stored.write(b"something else")
    assert dispatch.dispatch(broker.send, now) == {campaign.pk}
    assert broker.sent == []
    assert counts(campaign) == {"FAILED": 3}
    assert set(UpdateTask.objects.values_list("reason", flat=True)) == {"FILE_UNAVAILABLE"}


def test_a_pull_is_answered_for_waiting_and_updating_tasks_and_counts_as_the_push(
    ready: tuple[Campaign, list[Device]], now: datetime
) -> None:
    campaign, (first, second, third) = ready
    DevicePresence.objects.filter(device=first).update(is_up=False)
    UpdateTask.objects.filter(device=third).update(status=TaskStatus.CANCELED)
    moves.recount([campaign.pk], repair=True)
    answers = dispatch.pull([(first.pk, None), (second.pk, "default"), (third.pk, None)], now)
    assert set(answers) == {first.pk, second.pk}
    assert counts(campaign) == {"NOTIFIED": 2, "CANCELED": 1}
    again = dispatch.pull([(first.pk, None)], now + timedelta(minutes=1))
    assert again[first.pk].task_id == answers[first.pk].task_id


def test_a_pull_passes_the_same_gates_as_a_push(ready: tuple[Campaign, list[Device]], now: datetime) -> None:
    _, (first, second, third) = ready
    UpdateTask.objects.filter(device=first).update(due_at=now + timedelta(minutes=10))
    DevicePresence.objects.filter(device=second).update(reserved_until=now + timedelta(minutes=10))
    assert set(dispatch.pull([(d.pk, None) for d in (first, second, third)], now)) == {third.pk}
    Campaign.objects.update(is_paused=True)
    assert dispatch.pull([(third.pk, None)], now) == {}


def test_a_pull_for_another_module_is_not_answered(
    ready: tuple[Campaign, list[Device]], now: datetime
) -> None:
    assert dispatch.pull([(ready[1][0].pk, "MCU")], now) == {}


def test_a_device_that_comes_online_is_pushed_to(
    campaign: Campaign, fleet: Fleet, broker: Broker, now: datetime
) -> None:
    (device,) = fleet(1, online=False)
    BrokerEpoch.objects.update_or_create(pk=1, defaults={"epoch": "e"})
    expand.expand(campaign.pk, now)
    dispatch.dispatch(broker.send, now)
    assert broker.sent == []
    reports.apply([reports.Up(device.pk, "c", "e", now)], now)
    dispatch.dispatch(broker.send, now)
    assert len(broker.sent) == 1


def test_an_idle_dispatch_is_one_query(
    campaign: Campaign,
    fleet: Fleet,
    broker: Broker,
    now: datetime,
    django_assert_num_queries: Callable[..., object],
) -> None:
    fleet(3, online=False)
    expand.expand(campaign.pk, now)
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        dispatch.dispatch(broker.send, now)


def test_everything_that_is_ready_goes_out_in_one_run(
    campaign: Campaign, fleet: Fleet, broker: Broker, now: datetime
) -> None:
    fleet(7)
    expand.expand(campaign.pk, now)
    dispatch.dispatch(broker.send, now, limit=2)
    assert len(broker.sent) == 7


def test_nothing_is_claimed_while_the_broker_is_away(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    assert dispatch.dispatch(broker.send, now, is_ready=lambda: False) == set()
    assert counts(ready[0]) == {"QUEUED": 3}


def test_a_batch_whose_push_cannot_be_built_keeps_its_tasks_and_holds_nobody_up(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    broken, _ = ready
    Firmware.objects.filter(pk=broken.firmware_id).update(version='2"0')
    other = CampaignFactory.create(expanded_at=None)
    DeviceFactory.create(product=other.product, version="1.0.0", online=True)
    expand.expand(other.pk, now)
    assert dispatch.dispatch(broker.send, now) == {other.pk}
    assert len(broker.sent) == 1
    assert counts(broken) == {"QUEUED": 3}


def test_a_storage_that_does_not_answer_fails_no_device(
    ready: tuple[Campaign, list[Device]],
    broker: Broker,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaign, (device, *_) = ready

    def unreachable(*_arguments: object) -> None:
        raise ConnectionError("no route to the object store")

    with monkeypatch.context() as patch:
        patch.setattr(default_storage, "open", unreachable)
        dispatch.dispatch(broker.send, now)
        assert dispatch.pull([(device.pk, None)], now) == {}
    assert counts(campaign) == {"QUEUED": 3}
    dispatch.dispatch(broker.send, now)
    assert counts(campaign) == {"NOTIFIED": 3}


@pytest.mark.parametrize("values", [{"is_paused": True}, {"status": CampaignStatus.CANCELED}])
def test_a_batch_that_was_stopped_after_it_was_looked_up_pushes_nothing(
    ready: tuple[Campaign, list[Device]], now: datetime, values: dict[str, object]
) -> None:
    (campaign,) = dispatch.open_campaigns(now)
    Campaign.objects.update(**values)
    assert dispatch.claim(campaign, now) is None
    assert counts(campaign) == {"QUEUED": 3}


def test_a_device_found_on_the_target_was_not_pushed_to(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    _, (device, *_) = ready
    DeviceVersion.objects.filter(device=device).update(version="2.0.0")
    dispatch.dispatch(broker.send, now)
    task = UpdateTask.objects.get(device=device)
    assert (task.status, task.pushed_at) == ("SUCCEEDED", None)
    assert TaskEvent.objects.get(task=task).version == "2.0.0"


def test_a_worker_whose_clock_is_behind_gets_no_second_minute(
    campaign: Campaign, fleet: Fleet, now: datetime
) -> None:
    fleet(30)
    Campaign.objects.update(max_per_minute=10)
    campaign.refresh_from_db()
    minute = now.replace(second=0, microsecond=0) + timedelta(minutes=2)
    expand.expand(campaign.pk, now)
    assert len(dispatch.claim(campaign, minute) or []) == 10
    assert dispatch.claim(campaign, minute - timedelta(seconds=1)) is None
    assert dispatch.claim(campaign, minute + timedelta(seconds=59)) is None
    assert len(dispatch.claim(campaign, minute + timedelta(seconds=60)) or []) == 10


def test_a_device_whose_task_ends_at_the_push_is_offered_to_dynamic_batches(
    ready: tuple[Campaign, list[Device]], firmware: Firmware, broker: Broker, now: datetime
) -> None:
    campaign, (device, *_) = ready
    dynamic = CampaignFactory.create(
        firmware=FirmwareFactory.create(product=firmware.product, version="3.0.0"), policy=Policy.DYNAMIC
    )
    Campaign.objects.filter(pk=campaign.pk).update(source_versions=["1.0.0"])
    DeviceVersion.objects.filter(device=device).update(version="1.1.0")
    dispatch.dispatch(broker.send, now)
    assert UpdateTask.objects.get(device=device, campaign=campaign).reason == "NO_LONGER_MATCHES"
    assert UpdateTask.objects.get(device=device, campaign=dynamic).status == "QUEUED"
    assert counts(dynamic) == {"QUEUED": 1}


def test_a_push_that_reached_nobody_was_never_made(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    campaign, (gone, late, there) = ready

    def send(messages: Sequence[tuple[str, bytes]]) -> list[Delivery]:
        # The end of one connection has come in meanwhile, that of the other has not.
        DevicePresence.objects.filter(pk=gone.pk).update(is_up=False)
        broker.send(messages)
        away = (f"/{gone.name}", f"/{late.name}")
        return [Delivery.NO_SUBSCRIBER if topic.endswith(away) else Delivery.TAKEN for topic, _ in messages]

    dispatch.dispatch(send, now)
    assert counts(campaign) == {"NOTIFIED": 1, "QUEUED": 2}
    of = {task.device_id: task for task in UpdateTask.objects.all()}
    assert (of[gone.pk].pushed_at, of[gone.pk].ready_at, of[gone.pk].returns) == (None, None, 0)
    assert (of[late.pk].pushed_at, of[late.pk].ready_at) == (None, now + timedelta(seconds=30))
    assert [(of[device.pk].pushes, of[device.pk].stepless) for device in (gone, late, there)] == [
        (0, 0),
        (0, 0),
        (1, 1),
    ], "only pushes that the device could ignore bring an attempt to its end"
    pushed = TaskEvent.objects.filter(kind=EventKind.PUSHED)
    assert set(pushed.values_list("task", flat=True)) == {of[there.pk].pk}
    dispatch.dispatch(broker.send, now + timedelta(seconds=29))
    assert len(broker.sent) == 3
    dispatch.dispatch(broker.send, now + timedelta(seconds=30))
    assert [topic.rpartition("/")[2] for topic, _ in broker.sent[3:]] == [late.name]


def test_a_second_push_that_reached_nobody_leaves_the_first_one_standing(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    _, (device, *_others) = ready
    dispatch.dispatch(broker.send, now)
    later = now + timedelta(minutes=5)
    UpdateTask.objects.filter(device=device).update(status="QUEUED", ready_at=later)
    dispatch.dispatch(lambda messages: [Delivery.NO_SUBSCRIBER] * len(messages), later)
    task = UpdateTask.objects.get(device=device)
    assert (task.status, task.pushed_at, task.acknowledged_at) == ("QUEUED", now, None)


def lose_file(firmware: Firmware) -> None:
    file = firmware.files.get()
    default_storage.delete(file.file.name)


@pytest.mark.parametrize("way", ["push", "pull", "download"])
def test_a_file_that_is_lost_after_the_first_push_stops_the_batch(
    campaign: Campaign, fleet: Fleet, broker: Broker, now: datetime, way: str
) -> None:
    first, second, offline = fleet(1), fleet(1), fleet(1, online=False)
    expand.expand(campaign.pk, now)
    assert campaign.max_attempts == 1
    campaign.refresh_from_db()
    UpdateTask.objects.filter(device=second[0]).update(ready_at=now + timedelta(minutes=1))
    dispatch.dispatch(broker.send, now)
    assert counts(campaign) == {"NOTIFIED": 1, "QUEUED": 2}
    lose_file(campaign.firmware)
    later = now + timedelta(minutes=2)
    if way == "push":
        dispatch.dispatch(broker.send, later)
    elif way == "pull":
        assert dispatch.pull([(offline[0].pk, None)], later) == {}
    else:
        services.stop_without_file(campaign.firmware_id, later)
    assert len(broker.sent) == 1
    assert counts(campaign) == {"NOTIFIED": 1, "FAILED": 2}
    assert set(UpdateTask.objects.exclude(device=first[0]).values_list("reason", flat=True)) == {
        "FILE_UNAVAILABLE"
    }


def test_a_file_that_is_there_is_no_reason_to_stop(
    ready: tuple[Campaign, list[Device]], now: datetime
) -> None:
    services.stop_without_file(ready[0].firmware_id, now)
    assert counts(ready[0]) == {"QUEUED": 3}


def test_a_dynamic_batch_whose_file_is_lost_fails_each_device_once_and_matches_no_more(
    firmware: Firmware, fleet: Fleet, broker: Broker, now: datetime
) -> None:
    batch = CampaignFactory.create(firmware=firmware, policy=Policy.DYNAMIC, expanded_at=None)
    (device,) = fleet(1)
    expand.expand(batch.pk, now)
    lose_file(firmware)
    dispatch.dispatch(broker.send, now)
    (late,) = fleet(1)
    for each in (device, late):
        reports.apply([reports.Inform(each.pk, each.product_id, "default", "1.1.0", now)], now)
    dispatch.dispatch(broker.send, now + timedelta(minutes=5))
    assert counts(batch) == {"FAILED": 1}
    batch.refresh_from_db()
    assert batch.matching_stopped_at


def test_a_file_that_was_put_back_is_digested_before_it_goes_out_again(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    campaign, _ = ready
    file = campaign.firmware.files.get()
    dispatch.has_files(campaign, now)
    default_storage.delete(file.file.name)
    dispatch.dispatch(broker.send, now)
    with default_storage.open(file.file.name, "wb") as stored:
        stored.write(b"x" * file.size)
    services.update_again(campaign, now=now)
    dispatch.dispatch(broker.send, now)
    assert broker.sent == []
    assert counts(campaign) == {"FAILED": 3}


def test_a_pull_right_after_a_push_gives_the_same_message_and_is_no_new_push(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    _, (device, *_) = ready
    dispatch.dispatch(broker.send, now)
    pushed = {topic.rsplit("/", 1)[1]: body for topic, body in broker.sent}[device.name]
    before = UpdateTask.objects.filter(device=device).values().get()
    (given,) = dispatch.pull([(device.pk, None)], now + timedelta(seconds=29)).values()
    assert json.loads(dispatch._payload(given)) == pushed
    assert UpdateTask.objects.filter(device=device).values().get() == before
    assert TaskEvent.objects.filter(kind=EventKind.PULLED).count() == 0
    (later,) = dispatch.pull([(device.pk, None)], now + timedelta(seconds=30)).values()
    assert later.url != given.url
    assert UpdateTask.objects.get(device=device).pushed_at == now + timedelta(seconds=30)


def test_a_task_that_went_back_to_the_queue_is_given_the_same_message_within_the_spacing(
    ready: tuple[Campaign, list[Device]], broker: Broker, now: datetime
) -> None:
    campaign, (device, *_) = ready
    Campaign.objects.update(max_per_minute=10)
    dispatch.dispatch(broker.send, now)
    task = UpdateTask.objects.filter(device=device)
    task.update(status=TaskStatus.QUEUED, ready_at=now + timedelta(seconds=30))
    moves.recount([campaign.pk], repair=True)
    used = Campaign.objects.get().rate_used
    (given,) = dispatch.pull([(device.pk, None)], now + timedelta(seconds=5)).values()
    assert (given.at, task.get().pushed_at, task.get().status) == (now, now, "NOTIFIED")
    assert Campaign.objects.get().rate_used == used
    assert counts(campaign) == {"NOTIFIED": 3}


def test_the_answer_to_a_pull_is_stamped_only_when_it_is_out(
    ready: tuple[Campaign, list[Device]], now: datetime
) -> None:
    _, (device, *_) = ready
    dispatch.pull([(device.pk, None)], now)
    task = UpdateTask.objects.get(device=device)
    assert (task.pushed_at, task.acknowledged_at) == (now, None)
    dispatch.acknowledge([task.pk], now + timedelta(seconds=1))
    task.refresh_from_db()
    assert task.acknowledged_at == now + timedelta(seconds=1)


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(
    ("version", "reason", "detail", "attempt", "is_pushed"),
    [
        ("1.3-wrong", "WRONG_VERSION", "1.3-wrong", 2, True),
        ("1.4-other", "WRONG_VERSION", "1.3-wrong", 2, False),
        ("1.3-wrong", "WRONG_VERSION", "1.3-wrong", 1, False),
        ("1.3-wrong", "DOWNLOAD", "1.3-wrong", 2, False),
        ("0.9-met", "TIMEOUT", "", 3, True),
        ("0.9-met", "", "", 1, False),
    ],
)
def test_a_version_that_our_earlier_attempt_left_behind_is_tried_again(
    firmware: Firmware,
    fleet: Fleet,
    broker: Broker,
    now: datetime,
    version: str,
    reason: str,
    detail: str,
    attempt: int,
    is_pushed: bool,
    way: str,
) -> None:
    (device,) = fleet(1)
    campaign = CampaignFactory.create(firmware=firmware, source_versions=["1.0.0"], expanded_at=None)
    expand.expand(campaign.pk, now)
    UpdateTask.objects.update(attempt=attempt, reason=reason, detail=detail, from_version="0.9-met")
    DeviceVersion.objects.update(version=version)
    if way == "push":
        dispatch.dispatch(broker.send, now)
    else:
        dispatch.pull([(device.pk, None)], now)
    task = UpdateTask.objects.get()
    if is_pushed:
        assert (task.status, task.from_version) == ("NOTIFIED", version)
    else:
        assert (task.status, task.reason, task.detail) == ("FAILED", "NO_LONGER_MATCHES", "")
