"""From a batch of MQTT messages to rows and answers: parse, find the devices, apply, answer.

A bad message is counted and dropped, and one that cannot be applied is kept as a dead letter; neither holds
up the rest. Whose report it is says the topic, which the broker has checked, and never the payload.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from campaigns import dispatch, reports, wire
from campaigns.models import TaskEvent, UpdateTask
from campaigns.reports import ContendedError, Down, Heard, Inform, Report, Step, Up
from devices import presence, sql, topics
from devices.brokers.contract import PresenceEvent, PresenceSnapshot
from devices.models import Channel
from devices.topics import DeviceTopic, Kind
from otaplatform.gateway import messages, snapshots
from otaplatform.models import DeadLetter

logger = logging.getLogger(__name__)

UNAVAILABLE = (OperationalError, InterfaceError, ContendedError)
"""The database did not take the work now; the same work may succeed later."""

# A database that answers and yet refuses the same work this often in a row refuses the work, not the moment.
PATIENCE = 8
SNAPSHOT_CHUNK = 500


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """A message as it arrived; `dup` is the flag of a redelivery.

    On a channel without connections it is a request: a sign of life, and its answer can carry an update.
    """

    topic: str
    payload: bytes
    dup: bool
    at: datetime
    channel: Channel = Channel.MQTT


class Answer(NamedTuple):
    """A message back to a device; one that gives a task is to be acknowledged once it is out."""

    topic: str
    payload: bytes
    task_id: int | None


@dataclass(slots=True)
class Outcome:
    """What a batch came to, once it is committed."""

    answers: list[Answer] = field(default_factory=list)
    campaigns: set[int] = field(default_factory=set)  # with news for open pages
    devices: set[int] = field(default_factory=set)  # whose rows may have changed
    ready: bool = False  # something may be pushed now


@dataclass(frozen=True, slots=True)
class _Reported:
    incoming: Incoming
    report: Report


@dataclass(frozen=True, slots=True)
class _Pull:
    incoming: Incoming
    device_id: int
    topic: DeviceTopic
    request: messages.Request

    @property
    def is_offer(self) -> bool:
        """Not asked for: the report before it may be answered with an update."""
        return self.request.reply_kind is Kind.UPGRADE


_Item = _Reported | _Pull
_Chunk = Sequence[_Item] | PresenceSnapshot


@dataclass(slots=True)
class Work:
    """A parsed batch on its way into the database. What is done leaves `chunks`: storing can be resumed."""

    chunks: deque[_Chunk]
    outcome: Outcome = field(default_factory=Outcome)
    stored: set[Incoming] = field(default_factory=set)
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    device_id: int
    product_id: int
    is_disabled: bool


class Router:
    """Keeps what one gateway has to remember between batches: the broker's epoch and its counters."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._epoch = ""
        self._snapshots = snapshots.Collector()

    @property
    def knows_presence(self) -> bool:
        """Whether the broker has ever told who is connected."""
        return bool(self._epoch)

    def handle(self, batch: Sequence[Incoming], now: datetime | None = None) -> Outcome:
        """Plan and store a batch. Raises UNAVAILABLE."""
        return self.store(self.plan(batch), now)

    def plan(self, batch: Sequence[Incoming]) -> Work:
        """Parse a batch and find its devices, with one query. Raises UNAVAILABLE; stores nothing."""
        read = [(incoming, topics.parse(incoming.topic)) for incoming in batch]
        devices = _find({known[1:] for _, known in read if known is not None})
        chunks: list[_Chunk] = []
        following: list[_Item] = []
        pulls: list[_Item] = []
        counts = Counter(received=len(batch))
        for incoming, known in read:
            try:
                if known is not None:
                    for item in _items(incoming, known, devices.get(known[1:])):
                        (pulls if isinstance(item, _Pull) else following).append(item)
                elif incoming.topic != topics.EPOCH:
                    raise ValueError("not a topic of devices")
                elif snapshot := self._snapshots.add(PresenceSnapshot.from_json(incoming.payload)):
                    chunks += [following, snapshot]
                    following = []
            except (ValueError, messages.BadMessage) as error:
                code = error.code if isinstance(error, messages.BadMessage) else "topic"
                counts.update(("refused", f"refused_{code}"))
                logger.debug("refused a message on %s: %s", incoming.topic, error)
        following = _without_repeated_failures(following)
        self.counts += counts
        return Work(deque(chunk for chunk in (*chunks, following, pulls) if chunk))

    def store(self, work: Work, now: datetime | None = None) -> Outcome:
        """Commit what is left of the work; a chunk that fails is halved until the culprit is alone.

        Raises UNAVAILABLE; call it again with the same work then.
        """
        now = now or timezone.now()
        while work.chunks:
            chunk = work.chunks.popleft()
            try:
                self._do(chunk, work, now)
            except Exception as error:
                if isinstance(error, UNAVAILABLE) and not self._is_culpable(work):
                    work.chunks.appendleft(chunk)
                    raise
                if not (isinstance(error, UNAVAILABLE) and self._succeeds_now(chunk, work, now)):
                    self._divide(chunk, work, error)
            else:
                if work.failures < PATIENCE:
                    work.failures = 0
        return work.outcome

    def _do(self, chunk: _Chunk, work: Work, now: datetime) -> None:
        if isinstance(chunk, PresenceSnapshot):
            self._begin_epoch(chunk.epoch)
            snapshot = Incoming(topics.EPOCH, b"", False, now)
            events = [_Reported(snapshot, event) for event in snapshots.differences(chunk)]
            work.chunks.extendleft(
                events[start : start + SNAPSHOT_CHUNK]
                for start in reversed(range(0, len(events), SNAPSHOT_CHUNK))
            )
        elif isinstance(chunk[0], _Pull):
            self._answer([item for item in chunk if isinstance(item, _Pull)], work, now)
        else:
            self._apply([item for item in chunk if isinstance(item, _Reported)], work, now)

    def _apply(self, items: Sequence[_Reported], work: Work, now: datetime) -> None:
        for item in items:
            if isinstance(item.report, Up):
                self._begin_epoch(item.report.epoch)
        applied = reports.apply([item.report for item in items], now)
        self.counts["applied"] += len(items)
        work.stored.update(item.incoming for item in items)
        work.outcome.ready |= applied.ready
        if applied.campaigns:
            work.outcome.campaigns |= applied.campaigns
            work.outcome.devices.update(item.report.device_id for item in items)

    def _answer(self, pulls: Sequence[_Pull], work: Work, now: datetime) -> None:
        """The old request stays silent when there is nothing to do, firmware/get says so over MQTT."""
        round_of: dict[int, list[_Pull]] = {}
        rounds: Counter[int] = Counter()
        for pull in pulls:  # a device that asks for two modules at once gets two answers
            round_of.setdefault(rounds[pull.device_id], []).append(pull)
            rounds[pull.device_id] += 1
        answers = []
        for asked in round_of.values():
            given = dispatch.pull([_wish(pull) for pull in asked if not pull.is_offer], now)
            given |= dispatch.offer([_wish(pull) for pull in asked if pull.is_offer], now)
            for pull in asked:
                push = given.get(pull.device_id)
                kind, names = pull.request.reply_kind, pull.topic[1:]
                if not push and pull.incoming.channel is not Channel.MQTT:
                    continue
                if kind is Kind.FIRMWARE_GET_REPLY:
                    package, url = (push.package, push.url) if push else (None, "")
                    reply = wire.firmware_get_reply(pull.request.id, package, url=url)
                elif push:
                    millis = int(push.at.timestamp() * 1000)
                    reply = wire.request_reply(push.package, url=push.url, now_ms=millis)
                else:
                    continue
                task = push.task_id if push else None
                answers.append(Answer(topics.build(kind, *names), reply, task))
            work.outcome.campaigns.update(
                UpdateTask.objects.filter(id__in=[push.task_id for push in given.values()]).values_list(
                    "campaign_id", flat=True
                )
            )
            work.outcome.devices.update(given)
        work.outcome.answers += answers
        self.counts["answered"] += len(answers)

    def _begin_epoch(self, epoch: str) -> None:
        if epoch != self._epoch:
            presence.begin_epoch(epoch)
            self._epoch = epoch

    def _is_culpable(self, work: Work) -> bool:
        """Whether it is the work that the database refuses, and not the moment; then for all that is left."""
        work.failures += 1
        if work.failures < PATIENCE:
            return False
        try:
            sql.execute("SELECT 1", [])
        except DatabaseError:
            return False
        return True

    def _succeeds_now(self, chunk: _Chunk, work: Work, now: datetime) -> bool:
        """A last try: the database may have come back since the failure."""
        if not isinstance(chunk, PresenceSnapshot) and len(chunk) > 1:
            return False  # each half is tried anyway
        try:
            self._do(chunk, work, now)
        except Exception:
            logger.info("the last try failed, too", exc_info=True)
            return False
        return True

    def _divide(self, chunk: _Chunk, work: Work, error: Exception) -> None:
        if isinstance(chunk, PresenceSnapshot):
            logger.error("a presence snapshot could not be applied", exc_info=error)
        elif len(chunk) == 1:
            try:
                self._bury(chunk[0].incoming, error)
            except DatabaseError:
                work.chunks.appendleft(chunk)
                raise OperationalError("no room for a dead letter") from error
            work.stored.add(chunk[0].incoming)
        else:
            middle = len(chunk) // 2
            work.chunks.extendleft((chunk[middle:], chunk[:middle]))

    def _bury(self, incoming: Incoming, error: Exception) -> None:
        logger.error("a message on %s could not be applied", incoming.topic, exc_info=error)
        DeadLetter.objects.create(
            topic=incoming.topic[:256], payload=incoming.payload, error=repr(error)[:2000], at=incoming.at
        )
        self.counts["dead_letters"] += 1


def _wish(pull: _Pull) -> tuple[int, str | None]:
    return pull.device_id, pull.request.module


def _find(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], _Known]:
    """The devices that are not removed, by (ProductKey, DeviceName)."""
    wanted = list(names)
    if not wanted:
        return {}
    source, parameters = sql.rows("v", {"product_key": "text", "name": "text"}, wanted)
    rows = sql.execute(
        "SELECT p.product_key, d.name, d.id, d.product_id, d.is_disabled "  # noqa: S608  (names are ours)
        f"FROM {source} JOIN devices_product p ON p.product_key = v.product_key "
        "JOIN devices_device d ON d.product_id = p.id AND d.name = v.name AND d.removed_at IS NULL",
        parameters,
    )
    return {(key, name): _Known(*found) for key, name, *found in rows}


def _items(incoming: Incoming, topic: DeviceTopic, device: _Known | None) -> list[_Item]:
    """What one message asks us to do; ValueError or BadMessage if it means nothing."""
    if device is None:
        raise ValueError("unknown device")
    if topic.kind is Kind.PRESENCE:
        event = PresenceEvent.from_json(incoming.topic, incoming.payload)
        kind = Up if event.connected else Down
        at = datetime.fromtimestamp(event.at / 1000, UTC)
        return [_Reported(incoming, kind(device.device_id, event.connection_id, event.epoch, at))]
    if device.is_disabled:
        raise ValueError("the device is disabled")
    if topic.kind not in topics.UPLINK:
        raise ValueError("not a report")
    ids = device.device_id, device.product_id
    heard: list[_Item] = []
    if incoming.channel is not Channel.MQTT:
        heard = [_Reported(incoming, Heard(device.device_id, incoming.channel, incoming.at))]
    match messages.parse(topic.kind, incoming.payload):
        case messages.Inform() as said:
            report = Inform(*ids, said.module, said.version, incoming.at)
            if not heard:
                return [_Reported(incoming, report)]
            offer = messages.Request(None, said.module, said.id, Kind.UPGRADE)
            return [*heard, _Reported(incoming, report), _Pull(incoming, device.device_id, topic, offer)]
        case messages.Progress() as said:
            step = Step(device.device_id, said.module, said.step, said.desc, incoming.at)
            return [*heard, _Reported(incoming, step)]
        case messages.Request() as said:
            pull = _Pull(incoming, device.device_id, topic, said)
            if said.version is None:
                return [*heard, pull]
            module = said.module or messages.DEFAULT_MODULE
            report = Inform(*ids, module, said.version, incoming.at)
            return [*heard, _Reported(incoming, report), pull]
        case _:
            raise ValueError("not supported")


def _without_repeated_failures(items: list[_Item]) -> list[_Item]:
    """Leave out a redelivered failure that is the last step stored of its device.

    All other reports may be applied twice without harm; a failure would use up two attempts.
    """
    suspects = {
        item.report.device_id
        for item in items
        if item.incoming.dup
        and isinstance(item, _Reported)
        and isinstance(item.report, Step)
        and item.report.step < 0
    }
    last = {device: _last_step(device) for device in suspects}
    return [
        item
        for item in items
        if not (
            item.incoming.dup
            and isinstance(item, _Reported)
            and isinstance(item.report, Step)
            and item.report.step < 0
            and last[item.report.device_id] == (item.report.step, item.report.detail)
        )
    ]


def _last_step(device_id: int) -> tuple[int | None, str] | None:
    task = UpdateTask.objects.filter(device=device_id).order_by("-id").first()
    steps = TaskEvent.objects.filter(task=task, step__isnull=False).order_by("-id")
    return steps.values_list("step", "detail").first() if task else None
