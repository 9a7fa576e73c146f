"""`manage.py push FILE …`: from a build to devices in one line, for pipelines.

Exit codes: 0, everything asked for was done, and with --wait (or --validate before --batch) every device
succeeded; 1, some device did not, or one named for the batch was left out; 2, the platform refused, or cannot
be reached; 3, --timeout has passed.
"""

import os
import secrets
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import translation

from otaplatform.accounts.models import User
from otaplatform.api.client import Client, Local, RefusedError, Remote, Transport, of_list

BAR = 30
ROWS_SHOWN = 50
ENDED = ("succeeded", "failed", "canceled")


class TimedOutError(Exception):
    """--timeout has passed."""


class Command(BaseCommand):
    help = "Upload a firmware file, validate it on some devices and bring it to many."

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        # --version is the firmware's here, not Django's.
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **options)

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("file", type=Path, metavar="FILE")
        add("--product", required=True, help="ProductKey")
        add("--name", required=True, help="firmware name")
        add("--version", required=True, help="firmware version")
        add("--sign-method", choices=["MD5", "SHA256"], default="SHA256")
        add("--validate", nargs="+", default=[], metavar="DEV", help="validate on these devices first")
        add(
            "--batch",
            nargs="+",
            default=[],
            metavar="all|DEV|@FILE",
            help="then update all devices, these, or those in the first column of a file",
        )
        add("--from-version", nargs="+", default=[], metavar="VERSION", help="only devices on these versions")
        add("--max-per-minute", type=int)
        add("--accept-unproven", action="store_true", help="batch without a device that succeeded before")
        add("--confirm-downgrade", action="store_true", help="batch although devices run a later firmware")
        add("--wait", action="store_true", help="wait until every device is done")
        add("--timeout", type=float, default=0, metavar="MINUTES", help="wait no longer (exit code 3)")
        add("--poll", type=float, default=2.0, metavar="SECONDS", help="between two looks (%(default)s)")
        add("--url", help="of a remote platform; without it, this installation")
        add("--token", help="for --url; or in the environment as OTA_TOKEN")
        add("--user", help="as whom, on this installation; without it, its only superuser")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["file"].is_file():
            raise CommandError(f"There is no file {options['file']}.", returncode=2)
        transport = self._transport(options)
        # In-process requests leave their language behind.
        with translation.override(translation.get_language()):
            try:
                succeeded = Push(Client(transport), options, self.stdout, self.stderr).run()
            except (RefusedError, OSError) as error:
                raise CommandError(str(error), returncode=2) from None
            except TimedOutError:
                raise CommandError("Not all devices were done in time.", returncode=3) from None
            finally:
                transport.close()
        if not succeeded:
            raise CommandError("Not every device was updated.", returncode=1)

    def _transport(self, options: dict[str, Any]) -> Transport:
        if options["url"]:
            token = options["token"] or os.environ.get("OTA_TOKEN", "")
            if not token:
                raise CommandError("--url needs --token.", returncode=2)
            try:
                return Remote(options["url"], token)
            except ValueError as error:
                raise CommandError(str(error), returncode=2) from None
        people = User.objects.filter(is_active=True)
        chosen = (
            people.filter(username=options["user"]) if options["user"] else people.filter(is_superuser=True)
        )
        found = list(chosen[:2])
        if len(found) != 1:
            raise CommandError("Say with --user as whom to do it.", returncode=2)
        return Local(found[0])


class Push:
    """One run: upload, validate, batch, and what is shown of it."""

    def __init__(self, client: Client, options: dict[str, Any], out: Any, err: Any) -> None:
        self.client, self.options, self.out, self.err = client, options, out, err
        self.run_key = secrets.token_hex(8)
        self.deadline = time.monotonic() + 60 * options["timeout"] if options["timeout"] else None

    def run(self) -> bool:
        """True unless a device that was waited for did not succeed."""
        options = self.options
        fields = {name: options[name] for name in ("name", "version", "product", "sign_method")}
        firmware = self.client.upload("firmware/", fields, options["file"], key=f"{self.run_key}-upload")
        self.out.write(f"Uploaded {firmware['name']} {firmware['version']}: firmware {firmware['id']}")
        succeeded = True
        if options["validate"]:
            body: dict[str, Any] = {"device_names": of_list(options["validate"])}
            if options["from_version"]:
                body["source_versions"] = options["from_version"]
            campaign = self._launch(f"firmware/{firmware['id']}/validate/", body, "validation")
            if options["wait"] or options["batch"]:
                succeeded = self._follow(campaign)
        if options["batch"] and succeeded:
            plan = self._plan(firmware["id"])
            complete = self._tell_left_out(plan)
            campaign = self._launch("campaigns/", plan, "batch")
            if options["wait"]:
                succeeded = self._follow(campaign)
            succeeded = succeeded and complete
        return succeeded

    def _plan(self, firmware: int) -> dict[str, Any]:
        options = self.options
        everybody = options["batch"] == ["all"]
        plan: dict[str, Any] = {
            "firmware": firmware,
            "policy": "static",
            "region": "all" if everybody else "directional",
            "source_versions": options["from_version"],
            "accept_unproven": options["accept_unproven"],
            "confirm_downgrade": options["confirm_downgrade"],
        }
        if not everybody:
            plan["device_names"] = of_list(options["batch"])
        if options["max_per_minute"]:
            plan["max_per_minute"] = options["max_per_minute"]
        return plan

    def _tell_left_out(self, plan: dict[str, Any]) -> bool:
        """Say which named devices a batch leaves out; True if all of those run the version already."""
        if plan["region"] == "all":
            return True
        found = self.client.call("POST", "campaigns/preview/", plan, key=f"{self.run_key}-preview")
        for device in found["excluded"]:
            self.err.write(f"Left out: {device['message']}")
        if more := found["excluded_count"] - len(found["excluded"]):
            self.err.write(f"Left out: {more} more")
        return bool(found["excluded_count"] == found["on_target"])

    def _launch(self, path: str, body: dict[str, Any], what: str) -> int:
        campaign = self.client.call("POST", path, body, key=f"{self.run_key}-{what}")
        self.out.write(f"Launched {what} {campaign['id']}")
        return int(campaign["id"])

    def _follow(self, campaign: int) -> bool:
        """Show a bar until the campaign ends, then the table; whether every device succeeded."""
        bar = Bar(self.err)
        while True:
            found = self.client.call("GET", f"campaigns/{campaign}/")
            bar.show(found["counts"])
            if found["status"] in ("completed", "canceled"):
                break
            if self.deadline and time.monotonic() >= self.deadline:
                bar.end()
                self._table(campaign, found["counts"])
                raise TimedOutError
            time.sleep(self.options["poll"])
        bar.end()
        self._table(campaign, found["counts"])
        counts = found["counts"]
        total = sum(counts.values())
        return bool(found["status"] == "completed" and total and counts["succeeded"] == total)

    def _table(self, campaign: int, counts: dict[str, int]) -> None:
        rows: list[tuple[str, str, str, str]] = []
        for task in self.client.rows(f"campaigns/{campaign}/tasks/?page_size={ROWS_SHOWN}"):
            if len(rows) == ROWS_SHOWN:
                break
            reason = task["detail"] or task["why"] or ""
            rows.append((task["device_name"], task["status"], task["reason"], reason))
        heads = ("DEVICE", "STATUS", "REASON", "")
        widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(3)]
        for row in [heads, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.out.write("  ".join([*cells, row[3]]).rstrip())
        more = sum(counts.values()) - len(rows)
        if more > 0:
            self.out.write(f"… and {more} more")
        self.out.write(
            ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "no device"
        )


class Bar:
    """Progress on a terminal as one line that is drawn over; elsewhere a line for each change."""

    def __init__(self, out: Any) -> None:
        self.out, self.last = out, ""
        self.is_terminal = bool(getattr(out, "isatty", lambda: False)())

    def show(self, counts: dict[str, int]) -> None:
        total, done = sum(counts.values()), sum(counts[status] for status in ENDED)
        filled = BAR * done // total if total else 0
        text = f"[{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}"
        if counts["failed"]:
            text += f", {counts['failed']} failed"
        if text == self.last:
            return
        self.last = text
        self.out.write(f"\r{text}" if self.is_terminal else text, ending="" if self.is_terminal else "\n")
        self.out.flush()

    def end(self) -> None:
        if self.is_terminal:
            self.out.write("")
