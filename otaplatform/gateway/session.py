"""The gateway's MQTT session: collect messages into batches, acknowledge them after the commit.

The session is persistent and acknowledges by hand, so what the process did not store before it died comes
again. A batch is flushed at 500 messages, after 50 ms, or when nothing more comes: then either nobody has
anything to say, or the broker waits for acknowledgements because its window is full.
"""

import logging
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import paho.mqtt.client as paho
from django.conf import settings
from django.db import close_old_connections, connection
from django.utils import timezone

from campaigns import dispatch
from devices import mqtt, topics
from devices.mqtt import Address, Link, LinkError
from otaplatform.gateway.announcer import Announcer
from otaplatform.gateway.routes import UNAVAILABLE, Incoming, Router, Work
from otaplatform.models import Heartbeat

logger = logging.getLogger(__name__)

CLIENT_ID = "gateway"
BATCH = 500
COLLECT_SECONDS = 0.05
QUIET_SECONDS = 0.005
IDLE_SECONDS = 0.2
# While the database is away, so much more is read; the rest waits in the broker.
MAX_HELD = 5_000
HEARTBEAT_SECONDS = 5.0
LONGEST_WAIT = 30.0
STEADY_AFTER = 10.0
# A gateway that is busy most of the time with batches this small has a broker with too small a window.
BUSY_SHARE = 0.5
SMALL_BATCH = 50
# A broker that tells who is connected has done so this long after the gateway subscribed.
PRESENCE_WITHIN = 30.0
# Stored messages that the broker may send again because their acknowledgement was lost.
REMEMBERED = 5_000


@dataclass(frozen=True, slots=True)
class _Held:
    packet_id: int  # 0 for QoS 0
    incoming: Incoming


class GatewaySession:
    """One MQTT session into the router; `run` until `stop`. One thread does all but the announcing.

    `watch` is called with each heartbeat; what it returns is shown beside the counters, and what it raises
    ends the session.
    """

    def __init__(
        self,
        *,
        client_id: str = CLIENT_ID,
        router: Router | None = None,
        where: Address | None = None,
        watch: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.router = router or Router()
        self.connected = threading.Event()
        self._where = where or mqtt.address()
        self._client_id = f"{client_id}-{socket.gethostname()}" if self._where.share else client_id
        self._watch = watch
        self._stopping = threading.Event()
        self._announcer = Announcer()
        self._held: list[_Held] = []
        self._first_at = self._last_at = 0.0
        # Answers under way, {packet id: task}, and tasks whose answer the broker took.
        self._answering: dict[int, int] = {}
        self._answered: list[int] = []
        self._stored: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        self._heartbeat_at = time.monotonic() - HEARTBEAT_SECONDS  # the first one at once
        self._connected_at = 0.0
        self._busy = 0.0
        self._batches = self._messages = 0
        self._minute: deque[int] = deque(maxlen=round(60 / HEARTBEAT_SECONDS))

    def stop(self) -> None:
        """Let `run` store what it holds and return. May be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Connect, collect, store, acknowledge, until stopped; comes back after every loss."""
        wait = 0.5
        self._announcer.start()
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    self._serve(self._connect())
                except LinkError as error:
                    logger.warning("gateway not connected: %s", error)
                if time.monotonic() - began > STEADY_AFTER:
                    wait = 0.5
                self._wait(wait)
                wait = min(wait * 2, LONGEST_WAIT)
        finally:
            self._announcer.stop()
            connection.close()

    # ---- the connection ------------------------------------------------------------------------------

    def _connect(self) -> Link:
        self._answering.clear()
        link = Link(
            self._where,
            self._client_id,
            persistent=True,
            on_message=self._received,
            on_published=self._published,
        )
        link.connect()
        if not link.is_resumed:
            self._stored.clear()
        prefix = f"$share/{self._where.share}/" if self._where.share else ""
        link.subscribe([prefix + each for each in topics.GATEWAY_FILTERS])
        self._connected_at = time.monotonic()
        self.connected.set()
        logger.info("gateway connected to %s:%s", self._where.host, self._where.port)
        return link

    def _serve(self, link: Link) -> None:
        try:
            while link.is_up and not self._stopping.is_set():
                link.turn(self._patience(), BATCH - len(self._held))
                if self._is_due():
                    self._flush(link)
                if self._answered:
                    self._acknowledge_answers()
                self._beat()
            if link.is_up:
                self._flush(link)
        finally:
            self.connected.clear()
            # What was received with QoS 1 and not stored comes again over the next connection.
            self._held = [held for held in self._held if not held.packet_id]
            if link.is_up:
                link.close()
            elif not self._stopping.is_set():
                logger.warning("gateway lost its connection")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopping.wait(min(left, IDLE_SECONDS)):
            self._beat()

    def _received(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._last_at = time.monotonic()
        if not self._held:
            self._first_at = self._last_at
        incoming = Incoming(topic, bytes(message.payload), message.dup, timezone.now())
        self._held.append(_Held(message.mid if message.qos else 0, incoming))

    def _published(self, packet_id: int, reached: bool) -> None:
        task = self._answering.pop(packet_id, None)
        if task is not None and reached:
            self._answered.append(task)

    def _acknowledge_answers(self) -> None:
        """Stamp answers that the broker took; what stays unstamped is pushed again by the sweep."""
        answered, self._answered = self._answered, []
        try:
            dispatch.acknowledge(answered, timezone.now())
        except UNAVAILABLE as error:
            logger.warning("%s answers could not be stamped: %r", len(answered), error)
            connection.close()

    # ---- batches -------------------------------------------------------------------------------------

    def _patience(self) -> float:
        return QUIET_SECONDS if self._held else IDLE_SECONDS

    def _is_due(self) -> bool:
        now = time.monotonic()
        return bool(self._held) and (
            len(self._held) >= BATCH
            or now - self._first_at >= COLLECT_SECONDS
            or now - self._last_at >= QUIET_SECONDS
        )

    def _flush(self, link: Link) -> None:
        """Store what is held and acknowledge it; without a database, wait for it and keep everything."""
        batch, self._held = self._held, []
        began = time.monotonic()
        self._batches += 1
        self._messages += len(batch)
        fresh = [held for held in batch if not self._is_stored(held)]
        work: Work | None = None
        wait = 0.1
        while True:
            try:
                work = work or self.router.plan([held.incoming for held in fresh])
                outcome = self.router.store(work)
                break
            except UNAVAILABLE as error:
                self.router.counts["retries"] += 1
                logger.warning("the database took no batch; trying again in %.1f s: %r", wait, error)
                connection.close()
                if not self._outlast(link, wait):
                    return
                wait = min(wait * 2, LONGEST_WAIT)
            finally:
                if work is not None:
                    self._remember(fresh, work)
        for answer in outcome.answers:
            packet_id = link.publish(answer.topic, answer.payload)
            if packet_id is not None and answer.task_id is not None:
                self._answering[packet_id] = answer.task_id
        for held in batch:
            if held.packet_id:
                link.acknowledge(held.packet_id)
        self._announcer.tell(outcome)
        self._busy += time.monotonic() - began

    def _outlast(self, link: Link, seconds: float) -> bool:
        """Keep the connection alive for a while; False if it is lost or we are to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopping.is_set() or not link.is_up:
                return False
            if len(self._held) < MAX_HELD:
                link.turn(min(left, IDLE_SECONDS))
            else:
                self._stopping.wait(min(left, IDLE_SECONDS))
        return link.is_up

    def _is_stored(self, held: _Held) -> bool:
        """Whether this is a redelivery of what is stored already: only its acknowledgement was lost."""
        known = self._stored.pop(held.packet_id, None)
        if not held.incoming.dup or known != (held.incoming.topic, held.incoming.payload):
            return False
        self.router.counts["redelivered"] += 1
        return True

    def _remember(self, batch: list[_Held], work: Work) -> None:
        """Note the packet ids of what has been committed, whole batch or a part of it."""
        for held in batch:
            if held.packet_id and held.incoming in work.stored:
                self._stored[held.packet_id] = (held.incoming.topic, held.incoming.payload)
        while len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)

    # ---- signs of life -------------------------------------------------------------------------------

    def _beat(self) -> None:
        elapsed = time.monotonic() - self._heartbeat_at
        if elapsed < HEARTBEAT_SECONDS:
            return
        self._heartbeat_at = time.monotonic()
        batches, messages, busy = self._batches, self._messages, self._busy
        self._batches, self._messages, self._busy = 0, 0, 0.0
        self._minute.append(messages)
        is_slow = busy > BUSY_SHARE * elapsed and messages < SMALL_BATCH * batches
        if is_slow and settings.MQTT_URL:  # the embedded broker's window is wide, and nobody can set it
            logger.warning(
                "busy with batches of %d messages: raise the broker's in-flight window", messages // batches
            )
        detail = {
            **self.router.counts,
            **self._watch(),
            "last_minute": sum(self._minute),
            "connected": self.connected.is_set(),
            "presence": self._has_presence(),
        }
        try:
            close_old_connections()
            Heartbeat.objects.update_or_create(
                name="gateway", defaults={"at": timezone.now(), "detail": detail}
            )
        except UNAVAILABLE:
            logger.warning("no heartbeat: the database did not answer")
            connection.close()

    def _has_presence(self) -> bool:
        """False for a broker that does not tell who is connected: every device would stay offline."""
        is_settled = self.connected.is_set() and time.monotonic() - self._connected_at > PRESENCE_WITHIN
        return self.router.knows_presence or not is_settled
