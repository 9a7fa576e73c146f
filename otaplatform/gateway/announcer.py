"""What follows a batch and may fail: news for open pages, and the wish to push what became ready.

In a thread of its own, so that a slow or missing Redis never holds up a report.
"""

import logging
import threading

from django.db import connection

from campaigns import live, tasks
from otaplatform.gateway.routes import Outcome

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2


class Announcer:
    """Collects outcomes and announces them together, at most every `PAUSE_SECONDS`."""

    def __init__(self) -> None:
        self._campaigns: set[int] = set()
        self._devices: set[int] = set()
        self._ready = False
        self._lock = threading.Lock()
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, outcome: Outcome) -> None:
        """Returns at once."""
        if not (outcome.campaigns or outcome.ready):
            return
        with self._lock:
            self._campaigns |= outcome.campaigns
            self._devices |= outcome.devices
            self._ready |= outcome.ready
        self._something.set()

    def stop(self, timeout: float = 2.0) -> None:
        """Announce the rest, if that is possible within `timeout` seconds."""
        self._stopping.set()
        self._something.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._something.wait()
                self._something.clear()
                self._announce()
                self._stopping.wait(PAUSE_SECONDS)
            self._announce()
        finally:
            connection.close()

    def _announce(self) -> None:
        with self._lock:
            campaigns, devices, ready = self._campaigns, self._devices, self._ready
            self._campaigns, self._devices, self._ready = set(), set(), False
        try:
            if ready:
                tasks.dispatch_soon()
            if campaigns:
                live.changed(campaigns, device_ids=devices)
        except Exception:
            logger.warning("not announced: %s campaigns", len(campaigns), exc_info=True)
            connection.close()
