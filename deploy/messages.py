"""Bring the Chinese catalogue up to date with the code, and compile it.

    .venv/bin/python deploy/messages.py [--check]

Prints what is still untranslated, and fails if there is any. `--check` also fails if the committed files
were not what the code says. Dates and line numbers are left out, so the files change only with the strings.
"""

import os
import subprocess
import sys
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "locale" / "zh_Hans" / "LC_MESSAGES"
IGNORED = (".venv", "tests", "var", "bench", "docs", "deploy")
DOMAINS = {
    "django": ("--extension", "html,txt,py"),
    "djangojs": ("--ignore", "*/vendor/*", "--ignore", "staticfiles"),
}
METADATA = {
    "Project-Id-Version": "otaplatform",
    "Language": "zh_Hans",
    "Plural-Forms": "nplurals=1; plural=0;",
    "Last-Translator": "",
    "Language-Team": "",
    "Report-Msgid-Bugs-To": "",
}


def main() -> int:
    before = snapshot()
    untranslated = []
    for domain, options in DOMAINS.items():
        collect(domain, options)
        path = CATALOGUE / f"{domain}.po"
        if path.exists():
            untranslated += compile_catalogue(path)
    for line in untranslated:
        print(line)
    stale = [name for name, content in snapshot().items() if before.get(name) != content]
    if "--check" in sys.argv and stale:
        print(f"Not up to date with the code: {', '.join(sorted(stale))}. Run `make messages` and commit.")
        return 1
    return 1 if untranslated else 0


def snapshot() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in CATALOGUE.glob("django*.[mp]o")}


def collect(domain: str, options: tuple[str, ...]) -> None:
    command = [sys.executable, "manage.py", "makemessages", "--verbosity", "0", "--locale", "zh_Hans"]
    command += ["--domain", domain, "--no-location", "--no-obsolete", *options]
    for folder in IGNORED:
        command += ["--ignore", folder]
    environ = {"DJANGO_SETTINGS_MODULE": "otaplatform.settings", **os.environ}
    subprocess.run(command, cwd=ROOT, env=environ, check=True)


def compile_catalogue(path: Path) -> list[str]:
    """Normalise and compile one .po file; returns a line for each string without a translation."""
    catalogue = polib.pofile(str(path), wrapwidth=110)
    missing = []
    for entry in catalogue:
        entry.previous_msgid = entry.previous_msgid_plural = entry.previous_msgctxt = None
        if entry.fuzzy or not entry.translated():
            missing.append(f"untranslated in {path.name}: {entry.msgid!r}")
    catalogue.metadata.update(METADATA)
    for date in ("POT-Creation-Date", "PO-Revision-Date"):
        catalogue.metadata.pop(date, None)
    catalogue.save(str(path))
    catalogue.save_as_mofile(str(path.with_suffix(".mo")))
    return missing


if __name__ == "__main__":
    sys.exit(main())
