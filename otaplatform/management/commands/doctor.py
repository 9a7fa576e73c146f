"""`manage.py doctor`: is everything well, and if not, what to do; in words."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from django.utils.translation import gettext as _

from otaplatform import backup, health
from otaplatform.core.private_files import open_paths
from otaplatform.models import Heartbeat
from otaplatform.ticks import TICKS, heartbeat_name

LEAST_FREE_BYTES = 1024**3
OLDEST_BACKUP = timedelta(days=7)
OPEN_PATHS_COUNTED = 1000


@dataclass(frozen=True)
class Finding:
    """One line of the report. `hint` says what to do; a warning does not fail the command."""

    ok: bool
    text: str
    hint: str = ""
    is_warning: bool = False


class Command(BaseCommand):
    help = "Check the settings and every part, and say what to do about what is wrong."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        findings = [*_settings(), *_disk(), *_parts()]
        for finding in findings:
            mark = "ok  " if finding.ok else "warn" if finding.is_warning else "FAIL"
            self.stdout.write(f"{mark}  {finding.text}")
            if finding.hint and not finding.ok:
                self.stdout.write(f"      → {finding.hint}")
        failed = sum(not finding.ok and not finding.is_warning for finding in findings)
        if failed:
            raise CommandError(_("%(count)d checks failed.") % {"count": failed})


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks()
    with contextlib.suppress(Error):  # told by its own line
        messages += checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    for message in messages:
        yield Finding(False, str(message.msg), str(message.hint or ""), not message.is_serious())
    if not messages:
        yield Finding(True, _("The settings fit together."))


def _disk() -> Iterator[Finding]:
    data_dir: Path = settings.OTA_DATA_DIR
    if not data_dir.is_dir():
        text = _("There is no data directory %(path)s.") % {"path": data_dir}
        yield Finding(False, text, _("`make run` makes it."))
        return
    still_open = list(itertools.islice(open_paths(data_dir), OPEN_PATHS_COUNTED))
    if still_open:
        text = _("Other users of this machine can reach %(count)d files or folders of %(path)s.")
        yield Finding(
            False,
            text % {"count": len(still_open), "path": data_dir},
            _("chmod -R go= %(path)s (`make run` does it at every start)") % {"path": data_dir},
        )
    else:
        yield Finding(True, _("Only its owner can read %(path)s.") % {"path": data_dir})
    free = shutil.disk_usage(data_dir).free
    yield Finding(
        free >= LEAST_FREE_BYTES,
        _("%(free)d MB are free for %(path)s.") % {"free": free // 1024**2, "path": data_dir},
        _("Make room: SQLite, firmware files and uploads need it."),
        is_warning=True,
    )


def _parts() -> Iterator[Finding]:
    states = {state.name: state for state in health.check()}
    database = states.pop("database")
    yield Finding(
        database.ok,
        _("The database answers and has its tables.") if database.ok else _("The database does not answer."),
        _("Is DATABASE_URL right, and has `manage.py migrate` been run?"),
    )
    if not database.ok:
        return
    try:
        executor = MigrationExecutor(connection)
        pending = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except Error:
        pending = 0
    if pending:
        text = _("%(count)d migrations are not applied.") % {"count": pending}
        yield Finding(False, text, _("Run `manage.py migrate`, or `make run`, which does."))
    redis = states.pop("redis")
    yield Finding(
        redis.ok,
        _("The Redis server answers.") if redis.ok else _("The Redis server does not answer."),
        _("`make run` starts one; with REDIS_URL set, start that one."),
    )
    hints = {
        "gateway": _("Start `manage.py gateway`, and look at what it prints: it must reach the MQTT broker."),
        "worker": _("Start `celery -A otaplatform worker`, and look at what it prints."),
    }
    for name in health.PARTS:
        yield _sign_of_life(states.pop(name), name, hints[name])
    presence = states.pop("presence")
    yield _last_backup()
    yield Finding(
        presence.ok,
        _("The MQTT broker tells which devices are connected.")
        if presence.ok
        else _("The MQTT broker does not tell which devices are connected."),
        _("Devices would stay offline for ever: unset MQTT_URL, so that the gateway runs its own broker."),
    )
    for task in TICKS:
        state = states.pop(heartbeat_name(task), None)
        if state is None:
            text = _("The tick %(task)s is switched off.") % {"task": task}
            yield Finding(False, text, _("Switch it on under Periodic tasks."), is_warning=True)
        else:
            hint = _("Start `celery -A otaplatform beat` and the worker; if both run, the worker says why.")
            yield _sign_of_life(state, task, hint)


def _last_backup() -> Finding:
    row = Heartbeat.objects.filter(name=backup.HEARTBEAT).first()
    hint = _("Run `manage.py backup FILE`, and keep the file on another machine.")
    if row is None:
        return Finding(False, _("There has never been a backup."), hint, is_warning=True)
    age = timezone.now() - row.at
    text = _("The last backup is %(days)d days old.") % {"days": age.days}
    return Finding(age <= OLDEST_BACKUP, text, hint, is_warning=True)


def _sign_of_life(state: health.State, name: str, hint: str) -> Finding:
    if state.age is None:
        return Finding(False, _("%(name)s has given no sign of life.") % {"name": name}, hint)
    words = {"name": name, "age": round(state.age)}
    if state.ok:
        return Finding(True, _("%(name)s: last sign of life %(age)d s ago.") % words)
    return Finding(False, _("%(name)s is silent or unwell; last sign of life %(age)d s ago.") % words, hint)
