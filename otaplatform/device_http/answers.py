"""What a device is answered: HTTP 200 with a code in compact JSON, which fits the buffers of C SDKs."""

from enum import IntEnum

from django.http import JsonResponse


class Code(IntEnum):
    """The codes of Alibaba Cloud IoT's HTTPS channel."""

    SUCCESS = 0
    COMMON_ERROR = 10000
    PARAMETER_ERROR = 10001
    AUTH_CHECK_ERROR = 20000
    TOKEN_EXPIRED = 20001  # the only one after which SDKs log in again
    TOKEN_MISSING = 20002
    TOKEN_CHECK_ERROR = 20003
    UPDATE_SESSION_ERROR = 20004
    PUBLISH_MESSAGE_ERROR = 30001
    TOO_MANY_REQUESTS = 40000


_WORDS = {
    Code.SUCCESS: "success",
    Code.COMMON_ERROR: "common error",
    Code.PARAMETER_ERROR: "parameter error",
    Code.AUTH_CHECK_ERROR: "auth check error",
    Code.TOKEN_EXPIRED: "token is expired",
    Code.TOKEN_MISSING: "token is null",
    Code.TOKEN_CHECK_ERROR: "check token error",
    Code.UPDATE_SESSION_ERROR: "update session error",
    Code.PUBLISH_MESSAGE_ERROR: "publish message error",
    Code.TOO_MANY_REQUESTS: "too many requests",
}


def answer(code: Code, info: dict[str, object] | None = None, *, status: int = 200) -> JsonResponse:
    """`{"code":0,"message":"success","info":{…}}`; a refusal says no more than its code."""
    body: dict[str, object] = {"code": int(code), "message": _WORDS[code]}
    if info is not None:
        body["info"] = info
    return JsonResponse(body, status=status, json_dumps_params={"separators": (",", ":")})
