"""The supervisor, over small processes of the standard library."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from otaplatform.supervisor import LONGEST_DELAY, STEADY_AFTER, Part

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 20

# Runs `parts` (name -> Python source) until it is told to stop; prints what the supervisor says.
SCRIPT = """
import sys
from otaplatform import supervisor
supervisor.FIRST_DELAY = 0.05
python = [sys.executable, "-uc"]
parts = [supervisor.Part(name, [*python, source], **options) for name, source, options in {parts}]
runner = supervisor.Supervisor(
    parts, environ={{"PATH": "/bin:/usr/bin"}}, cwd=".", last=["last"],
    say=lambda line: print(line, flush=True),
)
runner.run(lambda: True, lambda ready: print("READY", ready, flush=True), 10)
print("END", flush=True)
"""
WAIT = "import signal; print('up'); signal.pause()"


def start(*parts: tuple[str, str, dict[str, object]]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(parts=repr(list(parts)))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process: "subprocess.Popen[str]", *wanted: str) -> list[str]:
    """The lines up to the one after which all wanted ones have been seen."""
    assert process.stdout is not None
    seen: list[str] = []
    missing = set(wanted)
    for line in process.stdout:
        seen.append(line.rstrip())
        missing = {text for text in missing if text not in line}
        if not missing:
            return seen
    raise AssertionError(f"never said: {missing}; said: {seen}")


def finish(process: "subprocess.Popen[str]") -> list[str]:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    return output.splitlines()


def test_output_is_copied_under_the_name_of_the_part() -> None:
    process = start(("web", WAIT, {}), ("gateway", "print('a\\n\\nb'); " + WAIT, {}))
    read_until(process, "READY True", "web     | up", "gateway | a", "gateway | b", "gateway | up")
    assert finish(process)[-1] == "END"


def test_a_crashed_part_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    crash_once = textwrap.dedent(f"""
        import pathlib, sys, signal
        mark = pathlib.Path({str(tmp_path / "mark")!r})
        if not mark.exists():
            mark.touch()
            sys.exit(3)
        print("second life")
        signal.pause()
    """)
    process = start(("web", crash_once, {}))
    read_until(process, "web ended unexpectedly (exit code 3); starting it again in 0.05 s.", "| second life")
    finish(process)


def test_a_part_whose_work_is_done_is_left_alone() -> None:
    process = start(("simulator", "", {"may_end": True}), ("web", WAIT, {}))
    read_until(process, "simulator has finished.", "web       | up")
    finish(process)


SAYS_GOODBYE = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *a: (print('bye'), sys.exit()))\n"
    "print('up')\n"
    "signal.pause()"
)


STOPPED = "import os; print('pid', os.getpid())\n" + SAYS_GOODBYE


def test_parts_are_asked_to_end_together(tmp_path: Path) -> None:
    waits_for_the_other = textwrap.dedent("""
        import pathlib, signal, sys
        folder, own, other = pathlib.Path({folder!r}), {own!r}, {other!r}
        def end(*_):
            (folder / own).touch()
            while not (folder / other).exists():
                pass
            print("bye")
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("up")
        signal.pause()
    """)
    folder = str(tmp_path)
    process = start(
        ("web", waits_for_the_other.format(folder=folder, own="web", other="beat"), {}),
        ("beat", waits_for_the_other.format(folder=folder, own="beat", other="web"), {}),
    )
    read_until(process, "web  | up", "beat | up")
    said = finish(process)
    assert {"web  | bye", "beat | bye"} <= set(said)
    assert not [line for line in said if "killed" in line]


def test_a_part_that_is_slow_to_end_is_waited_for_and_the_last_one_goes_after_it() -> None:
    process = start(("last", SAYS_GOODBYE, {}), ("slow", STOPPED, {}), ("quick", SAYS_GOODBYE, {}))
    said = read_until(process, "last  | up", "slow  | up", "quick | up")
    slow = next(int(line.split()[-1]) for line in said if "pid" in line)
    # As on a busy machine: it is not scheduled while the others end.
    os.kill(slow, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    before = read_until(process, "quick | bye")
    assert not [line for line in before if line.startswith("last")]
    os.kill(slow, signal.SIGCONT)
    output, _ = process.communicate(timeout=TIMEOUT)
    said = output.splitlines()
    assert said.index("slow  | bye") < said.index("last  | bye")
    assert not [line for line in said if "killed" in line]


def test_asked_twice_it_waits_no_longer() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, lambda *a: print('no'))\n" + (
        "print('up')\nwhile True: signal.pause()"
    )
    process = start(("web", stubborn, {}))
    read_until(process, "web | up")
    process.send_signal(signal.SIGINT)
    read_until(process, "web | no")
    assert "web did not end in time and is killed." in finish(process)


def test_a_part_that_does_not_end_is_killed_with_everything_it_started() -> None:
    stubborn = textwrap.dedent("""
        import signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print("child", child.pid)
        while True: signal.pause()
    """)
    process = start(("web", stubborn, {"patience": 0.1}))
    child = int(read_until(process, "child")[-1].split()[-1])
    assert "web did not end in time and is killed." in finish(process)
    assert not is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's own")
def test_a_killed_supervisor_leaves_no_orphan() -> None:
    process = start(("web", "import os; print('pid', os.getpid()); " + WAIT, {}))
    # Its last line has been read: what ends it is not a pipe that broke.
    said = read_until(process, "pid", "up")
    child = next(int(line.split()[-1]) for line in said if "pid" in line)
    ended = os.pidfd_open(child)
    try:
        process.kill()
        process.communicate(timeout=TIMEOUT)
        assert select.select([ended], [], [], TIMEOUT)[0], "the part outlives its supervisor"
    finally:
        os.close(ended)
    assert not is_running(child)


def test_the_pause_before_a_restart_doubles_up_to_a_limit_and_starts_anew_after_a_steady_run() -> None:
    part = Part("web", ["true"])
    assert [part.next_delay(1.0) for _ in range(4)] == [0.5, 1.0, 2.0, 4.0]
    for _ in range(10):
        last = part.next_delay(1.0)
    assert last == LONGEST_DELAY
    assert part.next_delay(1.0 + STEADY_AFTER) == 0.5


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a record that nobody has collected yet."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state not in ("Z", "X")
