"""A small supervisor of real processes, on the standard library alone.

It starts the parts in order, copies their output line by line under the part's name, starts a crashed part
again (later and later while it keeps crashing), and ends all of them together, what the others need last.
One thread and one loop: the kernel's "kill me when my parent dies" is tied to the thread that forked.
"""

import contextlib
import ctypes
import os
import platform
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if platform.system() == "Linux" else None

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# A part that ran this long was well: its next crash counts as the first one.
STEADY_AFTER = 60.0
# Seconds for a part to end by itself. A gateway that waits for its database, and a web server with open
# requests, need four; a busy machine makes twice as much of it. Whoever cannot wait asks again.
PATIENCE = 12.0


@dataclass
class Part:
    """One process. `patience`: seconds it gets to end by itself before it is killed."""

    name: str
    command: Sequence[str]
    patience: float = PATIENCE
    # The next part is started only when this answers True.
    usable: Callable[[], bool] | None = None
    # Exit code 0 means that its work is done, not that it crashed.
    may_end: bool = False

    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    crashes: int = field(default=0, init=False)
    started_at: float = field(default=0.0, init=False)
    restart_at: float | None = field(default=None, init=False)
    rest: bytes = field(default=b"", init=False)

    def next_delay(self, now: float) -> float:
        """Seconds to wait after the crash that has just been seen: doubling, from half a second to thirty."""
        if now - self.started_at >= STEADY_AFTER:
            self.crashes = 0
        self.crashes += 1
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.crashes - 1))
        return delay


def _die_with(parent: int) -> None:
    """Runs in the child before exec. SIGKILL, because beat survives a SIGTERM whose broker is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class Supervisor:
    """Runs parts until a signal asks it to stop.

    `say` receives each line that a person should read. `last` names the parts that are asked to end only when
    all others have.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        environ: Mapping[str, str],
        cwd: str,
        last: Sequence[str] = (),
        say: Callable[[str], None],
    ) -> None:
        self.parts = list(parts)
        self.environ = dict(environ)
        self.cwd = cwd
        self.last = frozenset(last)
        self.say = say
        self.stopping = False
        self._width = max(len(part.name) for part in self.parts)
        self._selector = selectors.DefaultSelector()

    def run(self, ready: Callable[[], bool], on_ready: Callable[[bool], None], ready_within: float) -> None:
        """Start everything, call `on_ready(True)` once `ready()` (or `on_ready(False)` too late), and wait.

        Returns after SIGINT, SIGTERM or SIGHUP, with every part ended.
        """
        self._listen_to_signals()
        try:
            for part in self.parts:
                self._start(part)
                deadline = time.monotonic() + ready_within
                while part.usable and not self.stopping and not part.usable() and time.monotonic() < deadline:
                    self._turn(0.05)
                if self.stopping:
                    return
            deadline, announced, next_look = time.monotonic() + ready_within, False, 0.0
            while not self.stopping:
                self._turn(0.5 if announced else 0.1)
                if announced or time.monotonic() < next_look:
                    continue
                is_ready = ready()
                next_look = time.monotonic() + 0.2
                if is_ready or next_look > deadline:
                    announced = True
                    on_ready(is_ready)
        finally:
            self._stop_all()

    # ---- one turn of the loop ------------------------------------------------------------------------

    def _turn(self, wait: float) -> None:
        """Copy what the parts wrote, notice who ended, start whose time has come; at most `wait` seconds."""
        due = [part.restart_at for part in self.parts if part.restart_at is not None]
        if due and not self.stopping:
            wait = max(0.0, min(wait, min(due) - time.monotonic()))
        for key, _ in self._selector.select(wait):
            if key.data is None:
                os.read(key.fd, 512)
            else:
                self._copy(key.data, key.fd)
        now = time.monotonic()
        for part in self.parts:
            if part.process is not None and part.process.poll() is not None:
                self._ended(part, now)
            elif part.restart_at is not None and now >= part.restart_at and not self.stopping:
                self._start(part)

    def _copy(self, part: Part, pipe: int) -> None:
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return
        lines = (part.rest + data).split(b"\n")
        part.rest = lines.pop() if data else b""
        for line in lines:
            if line.strip():
                self.say(f"{part.name:<{self._width}} | {line.decode(errors='replace').rstrip()}")
        if not data:
            self._selector.unregister(pipe)
            os.close(pipe)

    def _start(self, part: Part) -> None:
        parent = os.getpid()
        part.restart_at = None
        part.started_at = time.monotonic()
        part.rest = b""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            part.process = subprocess.Popen(  # noqa: S603  (our own command lines)
                list(part.command),
                cwd=self.cwd,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches only the supervisor, which ends the parts in order.
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),
            )
        except OSError as error:
            os.close(reader)
            os.close(writer)
            self._retry(part, f"cannot be started: {error}", part.started_at)
            return
        os.close(writer)
        self._selector.register(reader, selectors.EVENT_READ, part)

    def _ended(self, part: Part, now: float) -> None:
        assert part.process is not None
        code = part.process.returncode
        self._kill_group(part.process.pid)
        part.process = None
        if self.stopping:
            return
        if code == 0 and part.may_end:
            self.say(f"{part.name} has finished.")
            return
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._retry(part, f"ended unexpectedly ({how})", now)

    def _retry(self, part: Part, what: str, now: float) -> None:
        delay = part.next_delay(now)
        part.restart_at = now + delay
        self.say(f"{part.name} {what}; starting it again in {delay:g} s.")

    # ---- the end -------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked_to_stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            # Asked twice: no more patience.
            for part in self.parts:
                part.patience = 0.0
        self.stopping = True

    def _stop_all(self) -> None:
        self.stopping = True
        self._stop([part for part in self.parts if part.name not in self.last])
        self._stop([part for part in self.parts if part.name in self.last])

    def _stop(self, parts: Sequence[Part]) -> None:
        """Ask all of them at once, then wait for each as long as it may take."""
        left = [(part, part.process) for part in parts if part.process is not None]
        asked_at = time.monotonic()
        for _, process in left:
            process.terminate()
        while left:
            # A process that ended is collected, and its part cleared, by the turn.
            self._turn(0.05)
            left = [(part, process) for part, process in left if process.returncode is None]
            for part, process in left:
                if time.monotonic() >= asked_at + part.patience:
                    self.say(f"{part.name} did not end in time and is killed.")
                    self._kill_group(process.pid)
                    process.wait()
        self._turn(0)
        for part in parts:
            part.process = None

    @staticmethod
    def _kill_group(leader: int) -> None:
        """Nothing that a part started may outlive it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
