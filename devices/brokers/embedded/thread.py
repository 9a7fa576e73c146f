"""The broker in a thread of its own, for the gateway process and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from devices.brokers.contract import Authenticator
from devices.brokers.embedded.broker import Broker
from devices.brokers.embedded.limits import Options
from devices.brokers.embedded.listener import Listener


class BrokerThread:
    """Also a context manager. `broker.health()` and `broker.epoch` may be read from any thread."""

    def __init__(
        self,
        authenticate: Authenticator,
        listeners: Sequence[Listener] = (Listener(1883),),
        options: Options | None = None,
    ) -> None:
        self.broker = Broker(authenticate, listeners, options)
        self._listening: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="mqtt-broker", daemon=True)

    def start(self) -> None:
        """Returns when clients can connect. Raises OSError if an address cannot be had."""
        self._thread.start()
        try:
            self._listening.result()
        except BaseException:
            self._thread.join()  # it ends by itself, and its event loop with it
            raise

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens, in the listeners' order."""
        return self.broker.ports

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def kick(self, product_key: str, device_name: str, reason: str = "kicked") -> None:
        """Disconnect a device, if it is connected."""
        self._call(self.broker.kick, product_key, device_name, reason)

    def stop(self, timeout: float = 5) -> None:
        """Close every connection and wait for the thread. May be called again."""
        if self._thread.is_alive():
            self._call(self._stop.set)
            self._thread.join(timeout)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # A thread may be alive for a moment after its loop was closed: then there is nothing left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.broker.start()
        except Exception as error:
            self._listening.set_exception(error)
            return
        self._listening.set_result(None)
        await self._stop.wait()
        await self.broker.stop()
