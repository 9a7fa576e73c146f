"""The address that devices fetch firmware from: the link says which task, the task says whether it may."""

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from campaigns.models import UpdateTask
from firmware.download import is_continuation, stream_file
from firmware.links import read_link
from firmware.models import FirmwareFile


async def download(request: HttpRequest, token: str) -> HttpResponseBase:
    """Serve the file of a link while its task is open.

    A wrong, expired or foreign link and one of a canceled or finished task get the same bare 403.
    """
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    claims = read_link(token)
    if claims is None:
        return HttpResponse(status=403)
    tasks = UpdateTask.objects.open().filter(pk=claims.task_id)
    file = await FirmwareFile.objects.filter(
        pk=claims.file_id, firmware__in=tasks.values("firmware_id")
    ).afirst()
    if file is None:
        return HttpResponse(status=403)
    if not is_continuation(request, file):
        await tasks.aupdate(downloads=F("downloads") + 1)
    return await stream_file(request, file)
