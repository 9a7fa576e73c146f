"""The address that devices fetch firmware from: the link says which task, the task says whether it may."""

import logging
from datetime import datetime, timedelta
from functools import partial

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError
from django.db.models import F, Q
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from campaigns import services
from campaigns.models import UpdateTask
from campaigns.states import UPDATING
from devices import sql
from firmware.download import bare, is_continuation, stream_file
from firmware.links import read_link
from firmware.models import FirmwareFile

logger = logging.getLogger(__name__)

# A download that gets on is written down this often at most, however many requests it is made of.
RECORD_EVERY = timedelta(seconds=30)


async def download(request: HttpRequest, token: str | None = None) -> HttpResponseBase:
    """Serve the file of a link while its task is open.

    A wrong, expired or foreign link, one of a canceled or finished task or of a disabled device, and one from
    before the device's secret was reset or the task was started again get the same bare 403. A download that
    runs is not cut: nothing is asked again, and nothing of the database is held, while bytes flow.
    """
    if request.method not in ("GET", "HEAD"):
        return bare(405, {"Allow": "GET, HEAD"})
    try:
        granted = await sync_to_async(_grant)(request, token or "")
    except (OperationalError, InterfaceError) as error:
        logger.warning("a download found no database: %s", error)
        return bare(503)
    if granted is None:
        return bare(403)
    task_id, file = granted
    reached = sync_to_async(partial(_record, task_id))
    return await stream_file(request, file, reached, sync_to_async(partial(file_lost, file)))


def _grant(request: HttpRequest, token: str) -> tuple[int, FirmwareFile] | None:
    """The task and the file of a link that may be used; a download that begins is counted."""
    claims = read_link(token)
    if claims is None:
        return None
    try:
        tasks = (
            UpdateTask.objects.open()
            .filter(pk=claims.task_id, device__is_disabled=False, device__removed_at__isnull=True)
            .filter(Q(restarted_at__isnull=True) | Q(restarted_at__lte=claims.issued_at))
            .filter(
                Q(device__secret_reset_at__isnull=True) | Q(device__secret_reset_at__lte=claims.issued_at)
            )
        )
        file = FirmwareFile.objects.filter(
            pk=claims.file_id, firmware__in=tasks.values("firmware_id")
        ).first()
        if file is None:
            return None
        now = timezone.now()
        if not is_continuation(request, file):
            tasks.update(downloads=F("downloads") + 1, requested_at=now)
        else:
            tasks.filter(Q(requested_at__isnull=True) | Q(requested_at__lt=F("pushed_at"))).update(
                requested_at=now
            )
        return claims.task_id, file
    finally:
        # Back to the pool before the first byte goes out: a slow device takes hours.
        sql.release_connections()


def _record(task_id: int, position: int) -> None:
    try:
        bytes_sent(task_id, position)
    except (OperationalError, InterfaceError) as error:
        logger.warning("a download's progress could not be stored: %s", error)
    finally:
        sql.release_connections()


def bytes_sent(task_id: int, position: int, now: datetime | None = None) -> bool:
    """A device has got the file up to `position`: its time-out is put off, if it had not been there yet.

    Whoever asks for the same bytes again and again is not getting on. A later push begins anew.
    """
    now = now or timezone.now()
    return bool(
        UpdateTask.objects.filter(pk=task_id, status__in=UPDATING)
        .filter(Q(active_at__isnull=True) | Q(active_at__lte=now - RECORD_EVERY))
        .filter(
            Q(downloaded_at__isnull=True)
            | Q(downloaded_at__lt=F("pushed_at"))
            | Q(downloaded_bytes__lt=position)
        )
        .update(downloaded_bytes=position, downloaded_at=now, active_at=now)
    )


def file_lost(file: FirmwareFile) -> None:
    """A download found no file: the campaigns that would give it to others stop."""
    try:
        services.stop_without_file(file.firmware_id)
    except (OperationalError, InterfaceError, OSError) as error:
        logger.warning("the loss of a file could not be stored: %s", error)
    finally:
        sql.release_connections()
