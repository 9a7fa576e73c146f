"""POST /auth and POST /topic/{mqtt topic}, as the SDKs of Alibaba Cloud IoT demand.

A report takes the gateway's way into the database, as a batch of one; what MQTT would carry back to the
device is the answer's `info.data`, in base64.
"""

import base64
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from campaigns import dispatch, live, reports, tasks
from campaigns.reports import Heard
from devices import http_tokens, identity, topics
from devices.brokers.contract import Refusal
from devices.http_tokens import BadToken
from devices.models import Channel, Device
from otaplatform.device_http import limits
from otaplatform.device_http.answers import Code, answer
from otaplatform.gateway import messages
from otaplatform.gateway.routes import UNAVAILABLE, Incoming, Outcome, Router

logger = logging.getLogger(__name__)

MAX_BODY = 128 * 1024

View = Callable[..., HttpResponseBase]


def _device_request(view: View) -> View:
    """Only POST, with a length, without a query."""

    @wraps(view)
    def checked(request: HttpRequest, **arguments: str) -> HttpResponseBase:
        if request.method != "POST":
            refusal = answer(Code.PARAMETER_ERROR, status=405)
            refusal["Allow"] = "POST"
            return refusal
        length = request.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            return answer(Code.PARAMETER_ERROR)
        if request.META.get("QUERY_STRING"):
            return answer(Code.PARAMETER_ERROR)
        return view(request, **arguments)

    return checked


@_device_request
def auth(request: HttpRequest) -> JsonResponse:
    """A device logs in and is given a token; the first time activates it."""
    if limits.is_blocked(request):
        return answer(Code.TOO_MANY_REQUESTS)
    now = timezone.now()
    try:
        found = identity.authenticate_request(messages.decode(request.body), now)
    except messages.BadMessage:
        found = Refusal.BAD_IDENTIFIER
    except UNAVAILABLE:
        logger.warning("a login over HTTPS found no database", exc_info=True)
        return answer(Code.UPDATE_SESSION_ERROR)
    if isinstance(found, Refusal):
        limits.count_failure(request)
        malformed = found is Refusal.BAD_IDENTIFIER
        return answer(Code.PARAMETER_ERROR if malformed else Code.AUTH_CHECK_ERROR)
    try:
        applied = reports.apply([Heard(found.pk, Channel.HTTPS, now, is_login=True)], now)
    except UNAVAILABLE:
        logger.warning("a login over HTTPS could not be stored", exc_info=True)
        return answer(Code.UPDATE_SESSION_ERROR)
    _announce(Outcome(campaigns=applied.campaigns, devices={found.pk}, ready=applied.ready))
    return answer(Code.SUCCESS, {"token": http_tokens.make_token(found, now)})


@_device_request
def topic(request: HttpRequest, topic: str) -> JsonResponse:
    """A device publishes to one of its topics, and gets what there is for it."""
    token = request.headers.get("password", "")
    if not token:
        return answer(Code.TOKEN_MISSING)
    now = timezone.now()
    try:
        device = http_tokens.read_token(token, now)
    except UNAVAILABLE:
        logger.warning("a request over HTTPS found no database", exc_info=True)
        return answer(Code.PUBLISH_MESSAGE_ERROR)
    if isinstance(device, BadToken):
        return answer(Code.TOKEN_EXPIRED if device is BadToken.EXPIRED else Code.TOKEN_CHECK_ERROR)
    names = device.product.product_key, device.name
    if not topics.allowed(*names, topics.Action.PUBLISH, topic):
        return answer(Code.PARAMETER_ERROR)
    return _publish(device, Incoming(topic, request.body, False, now, Channel.HTTPS))


def _publish(device: Device, incoming: Incoming) -> JsonResponse:
    info: dict[str, object] = {"messageId": time.time_ns()}
    known, router = topics.parse(incoming.topic), Router()
    try:
        if known is None or known.kind not in topics.UPLINK:
            # Features beyond firmware updates: granted, and silent, as over MQTT; yet a sign of life.
            heard = Heard(device.pk, incoming.channel, incoming.at)
            applied = reports.apply([heard], incoming.at)
            outcome = Outcome(campaigns=applied.campaigns, devices={device.pk}, ready=applied.ready)
        else:
            outcome = router.handle([incoming], incoming.at)
    except UNAVAILABLE:
        logger.warning("a report over HTTPS could not be stored", exc_info=True)
        return answer(Code.PUBLISH_MESSAGE_ERROR)
    if router.counts["refused"]:
        return answer(Code.PARAMETER_ERROR)
    if router.counts["dead_letters"]:
        return answer(Code.COMMON_ERROR)
    _announce(outcome)
    if outcome.answers:
        given = outcome.answers[0]
        info["data"] = base64.b64encode(given.payload).decode()
        if given.task_id is not None:
            _acknowledge(given.task_id, incoming.at)
    return answer(Code.SUCCESS, info)


def _acknowledge(task_id: int, now: datetime) -> None:
    """The answer is as good as out. What stays unstamped is offered again."""
    try:
        dispatch.acknowledge([task_id], now)
    except UNAVAILABLE:
        logger.warning("an answer could not be stamped", exc_info=True)


def _announce(outcome: Outcome) -> None:
    """News for open pages, and the wish to push: best effort, the answer is right without."""
    try:
        if outcome.ready:
            tasks.dispatch_soon()
        live.changed(outcome.campaigns, device_ids=outcome.devices)
    except Exception:
        logger.warning("not announced: %s campaigns", len(outcome.campaigns), exc_info=True)
