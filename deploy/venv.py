"""Make `.venv` and install one locked, hash-checked list of requirements into it. Standard library only.

    python3 deploy/venv.py requirements.txt

Nothing happens if the list has not changed since the last time. An older Python must be able to read this
file far enough to say that it is too old, so nothing newer than 3.6 is used.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
UV_LOCK = ROOT / "deploy" / "uv.txt"


def main(lock: Path) -> None:
    if sys.version_info < (3, 11):
        found = ".".join(str(number) for number in sys.version_info[:3])
        sys.exit(
            f"Python 3.11 or later is needed; this is {found}. With another one: make PYTHON=python3.11 …"
        )
    if not is_usable():
        make_venv()
    stamp = VENV / f"installed-{lock.stem}"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing {lock.name} …", flush=True)
    install(lock)
    stamp.write_text(wanted)


def is_usable() -> bool:
    """Whether the environment's Python still starts (the one it was made from may be gone)."""
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL).returncode == 0


def make_venv() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            "This Python cannot make virtual environments: its venv or ensurepip module is missing.\n"
            "Install it first. On Debian and Ubuntu: sudo apt-get install python3-venv"
        )
    print("Making a virtual environment in .venv …", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode:
        sys.exit("The virtual environment could not be made; the lines above say why.")


def install(lock: Path) -> None:
    """With uv, which is several times faster; where uv cannot be had or fails, with pip."""
    if pip("--only-binary", ":all:", "-r", str(UV_LOCK), stderr=subprocess.DEVNULL):
        command = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--quiet", "--system-certs"]
        command += ["--require-hashes", "-r", str(lock)]
        if subprocess.run(command, env=uv_environment()).returncode == 0:
            return
        print("uv did not manage; trying pip …", flush=True)
    if not pip("-r", str(lock)):
        sys.exit("The packages could not be installed; the lines above say why.")


def pip(*options: str, stderr: "int | None" = None) -> bool:
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--require-hashes"]
    return subprocess.run([*command, *options], stderr=stderr).returncode == 0


def uv_environment() -> "dict[str, str]":
    """uv does not read pip's settings: somebody who told pip about a mirror means it for uv too."""
    environ = {"UV_LINK_MODE": "copy", **os.environ}
    asked = subprocess.run(
        [PYTHON, "-m", "pip", "config", "get", "global.index-url"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    mirror = os.environ.get("PIP_INDEX_URL") or asked.stdout.decode().strip()
    if mirror:
        environ.setdefault("UV_DEFAULT_INDEX", mirror)
    return environ


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
