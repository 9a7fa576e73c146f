"""The words of a campaign's life, and which moves of a task are legal. Nothing here touches the database."""

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy


class CampaignKind(models.TextChoices):
    VERIFY = "verify", _("Validation")
    UPGRADE = "upgrade", _("Batch update")


class CampaignStatus(models.TextChoices):
    PLANNED = "planned", _("Planned")
    IN_PROGRESS = "in_progress", _("In progress")
    COMPLETED = "completed", _("Completed")
    CANCELED = "canceled", _("Canceled")


class Policy(models.TextChoices):
    STATIC = "static", _("Static Update")
    DYNAMIC = "dynamic", _("Dynamic Update")


class Region(models.TextChoices):
    ALL = "all", _("All Devices")
    DIRECTIONAL = "directional", _("Directional Upgrade")


class Busy(models.TextChoices):
    """What a launch does with devices that have another unfinished task."""

    LEAVE = "leave", _("Leave them: they fail with a conflict")
    REPLACE = "replace", _("Replace tasks that only wait")


class RetryInterval(models.IntegerChoices):
    """Minutes. No retry is stored as NULL."""

    IMMEDIATELY = 0, _("Retry Immediately")
    TEN_MINUTES = 10, _("Retry in 10 Minutes")
    HALF_HOUR = 30, _("Retry in 30 Minutes")
    HOUR = 60, _("Retry in 1 Hour")
    DAY = 1440, _("Retry in 24 Hours")


class RetryTimes(models.IntegerChoices):
    ONE = 1, "1"
    TWO = 2, "2"
    FIVE = 5, "5"


class TaskStatus(models.TextChoices):
    CONFIRM = "CONFIRM", _("Waiting for confirmation")
    SCHEDULED = "SCHEDULED", _("Scheduled")
    QUEUED = "QUEUED", _("Queued")
    NOTIFIED = "NOTIFIED", _("Notified")
    IN_PROGRESS = "IN_PROGRESS", _("In progress")
    SUCCEEDED = "SUCCEEDED", _("Update Successful")
    FAILED = "FAILED", _("Update Failed")
    CANCELED = "CANCELED", pgettext_lazy("task", "Canceled")


S = TaskStatus

# A device has at most one task in these (per lane): the partial unique constraint.
ACTIVE = frozenset({S.CONFIRM, S.QUEUED, S.NOTIFIED, S.IN_PROGRESS})
# Not pushed, or to be pushed again: may be replaced and canceled at once.
WAITING = frozenset({S.CONFIRM, S.SCHEDULED, S.QUEUED})
UPDATING = frozenset({S.NOTIFIED, S.IN_PROGRESS})
OPEN = WAITING | UPDATING
FINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELED})

# The tabs of Update Details, in their order.
TABS: dict[str, frozenset[TaskStatus]] = {
    "pending": WAITING,
    "updating": UPDATING,
    "succeeded": frozenset({S.SUCCEEDED}),
    "failed": frozenset({S.FAILED}),
    "canceled": frozenset({S.CANCELED}),
}

MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    S.CONFIRM: frozenset({S.QUEUED, S.SUCCEEDED, S.FAILED, S.CANCELED}),
    # CANCELED while it has not started; SUCCEEDED when the device is on the target already.
    S.SCHEDULED: frozenset({S.CONFIRM, S.QUEUED, S.SUCCEEDED, S.FAILED, S.CANCELED}),
    S.QUEUED: frozenset({S.NOTIFIED, S.IN_PROGRESS, S.SUCCEEDED, S.FAILED, S.CANCELED}),
    # Back to QUEUED: went offline, reconnected, never acknowledged by the broker, or a retry.
    S.NOTIFIED: frozenset({S.QUEUED, S.IN_PROGRESS, S.SUCCEEDED, S.FAILED, S.CANCELED}),
    S.IN_PROGRESS: frozenset({S.QUEUED, S.SUCCEEDED, S.FAILED, S.CANCELED}),
    # Only an operator's "update again" leaves these two.
    S.FAILED: frozenset({S.QUEUED, S.CONFIRM}),
    S.CANCELED: frozenset({S.QUEUED, S.CONFIRM}),
    S.SUCCEEDED: frozenset(),
}


class IllegalMoveError(ValueError):
    """A programming error: somebody asked for a move that the table does not know."""


def check_move(before: str, after: str) -> None:
    """Raise IllegalMoveError unless a task may go from one status to the other (staying is not a move)."""
    if before != after and after not in MOVES[TaskStatus(before)]:
        raise IllegalMoveError(f"{before} -> {after}")


class Reason(models.TextChoices):
    """Why a task failed: a closed list; the device's own words stand beside it."""

    CONFLICT = "CONFLICT", _("The device has another update task in progress.")
    UPDATE = "UPDATE", _("The update failed on the device.")
    DOWNLOAD = "DOWNLOAD", _("The device could not download the firmware file.")
    VERIFICATION = "VERIFICATION", _("The device could not verify the firmware file.")
    BURN = "BURN", _("The device could not write the firmware.")
    WRONG_VERSION = (
        "WRONG_VERSION",
        _("The device reported neither its old nor the new version."),
    )
    ROLLED_BACK = "ROLLED_BACK", _("The device came back on its old version again and again.")
    NO_LONGER_MATCHES = "NO_LONGER_MATCHES", _("The device no longer runs one of the chosen versions.")
    TIMEOUT = "TIMEOUT", _("The device stayed silent for too long.")
    FILE_UNAVAILABLE = "FILE_UNAVAILABLE", _("The firmware file is missing or damaged on the server.")
    DEVICE_REMOVED = "DEVICE_REMOVED", _("The device was removed.")


# The steps of device-side failure on the wire; any other negative step counts as UPDATE.
STEP_REASONS = {-1: Reason.UPDATE, -2: Reason.DOWNLOAD, -3: Reason.VERIFICATION, -4: Reason.BURN}
RETRYABLE = frozenset(
    {
        Reason.UPDATE,
        Reason.DOWNLOAD,
        Reason.VERIFICATION,
        Reason.BURN,
        Reason.WRONG_VERSION,
        Reason.ROLLED_BACK,
        Reason.TIMEOUT,
    }
)


class EventKind(models.TextChoices):
    MOVED = "moved", _("Status changed")
    PUSHED = "pushed", _("Pushed to the device")
    PULLED = "pulled", _("Fetched by the device")
    ACKNOWLEDGED = "acknowledged", _("Taken by the broker")
    STEP = "step", _("Reported by the device")
    RETRY = "retry", _("Failed; will be tried again")
    IGNORED = "ignored", _("Report ignored")
    FINISHED_LATE = "finished_late", _("Finished late")
    REVERTED = "reverted", _("Went back to an older version")
    STRAY_VERSION = "stray_version", _("Reported another version")
