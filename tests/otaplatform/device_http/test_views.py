"""What a device is answered over HTTPS, and what nobody is told."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from campaigns import reports
from devices import credentials
from devices.http_tokens import make_token
from devices.models import Device, DeviceVersion
from otaplatform.device_http.answers import Code
from otaplatform.device_http.views import MAX_BODY
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_failures_yet() -> None:
    cache.clear()


@pytest.fixture
def device() -> Device:
    return DeviceFactory.create()


def login(body: object, **options: Any) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body)
    response = Client().post("/auth", data, content_type="application/json", **options)
    assert response.status_code == 200
    answer: dict[str, Any] = json.loads(response.content)
    return answer


def body_of(device: Device, **options: Any) -> dict[str, str]:
    return credentials.http_auth(device.product.product_key, device.name, device.secret, **options)


def post(device: Device, topic: str, body: bytes, token: str | None = None) -> dict[str, Any]:
    named = {"password": make_token(device) if token is None else token}
    response = Client().post(f"/topic{topic}", body, content_type="application/octet-stream", headers=named)
    assert response.status_code == 200
    answer: dict[str, Any] = json.loads(response.content)
    return answer


def inform_topic(device: Device) -> str:
    return f"/ota/device/inform/{device.product.product_key}/{device.name}"


INFORM = b'{"id":"1","params":{"version":"1.0.0"}}'


@pytest.mark.parametrize("method", ["hmacmd5", "hmacsha1", "hmacsha256"])
def test_a_login_is_answered_with_a_token_in_few_bytes(device: Device, method: str) -> None:
    body = body_of(device, method=method)
    body["sign"] = body["sign"].upper()
    response = Client().post("/auth", json.dumps(body), content_type="application/json")
    answer = json.loads(response.content)
    assert (answer["code"], answer["message"]) == (0, "success")
    assert len(answer["info"]["token"]) <= 192
    assert len(response.content) <= 256
    assert b" " not in response.content
    assert not response.cookies
    assert "Content-Security-Policy" not in response.headers


def test_the_shape_of_link_sdk_without_version_and_timestamp_is_understood(device: Device) -> None:
    body = body_of(device)
    del body["version"]
    assert login(body)["code"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sign": "0" * 64},
        {"clientId": "another"},
        {"deviceName": "nobody-here"},
        {"productKey": "a1nothing"},
        {"timestamp": "1501668289957"},
        {"extra": "unsigned"},
    ],
)
def test_every_login_that_proves_nothing_gets_the_same_answer(device: Device, change: dict[str, str]) -> None:
    assert login(body_of(device) | change) == {"code": 20000, "message": "auth check error"}


def test_a_login_of_a_disabled_or_removed_device_looks_like_a_wrong_one() -> None:
    disabled = DeviceFactory.create(is_disabled=True)
    removed = DeviceFactory.create(removed_at=timezone.now())
    assert (
        login(body_of(disabled)) == login(body_of(removed)) == {"code": 20000, "message": "auth check error"}
    )


@pytest.mark.parametrize(("minutes", "code"), [(0, 0), (14, 0), (-14, 0), (16, 20000), (-16, 20000)])
def test_a_timestamp_must_be_of_now(device: Device, minutes: int, code: int) -> None:
    then = timezone.now() + timedelta(minutes=minutes)
    assert login(body_of(device, timestamp=str(int(then.timestamp() * 1000))))["code"] == code


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b'{"sign":"x"}', b'{"productKey":{}}', b"0" * 1000]
)
def test_a_login_of_another_shape_is_a_parameter_error(body: bytes) -> None:
    assert login(body)["code"] == 10001


def test_an_address_with_too_many_wrong_logins_has_to_wait(device: Device, settings: Any) -> None:
    settings.OTA_HTTP_AUTH_FAILURES = 3
    right, wrong = body_of(device), body_of(device) | {"sign": "0" * 64}
    assert [login(body)["code"] for body in (right, wrong, right, wrong, wrong)] == [
        0,
        20000,
        0,
        20000,
        20000,
    ]
    assert login(right)["code"] == 40000
    assert login(right, REMOTE_ADDR="192.0.2.7")["code"] == 0


def test_a_report_is_stored_and_counts_as_a_sign_of_life(device: Device) -> None:
    answer = post(device, inform_topic(device), INFORM + b"\0")
    assert (answer["code"], answer["message"], type(answer["info"]["messageId"])) == (0, "success", int)
    assert "data" not in answer["info"]
    assert DeviceVersion.objects.get().version == "1.0.0"
    assert Device.objects.online().get() == device


def test_an_answer_to_firmware_get_with_nothing_to_do_carries_no_data(device: Device) -> None:
    topic = f"/sys/{device.product.product_key}/{device.name}/thing/ota/firmware/get"
    assert "data" not in post(device, topic, b'{"id":"7","params":{}}')["info"]


def test_topics_of_other_features_are_granted_and_silent(device: Device) -> None:
    topic = f"/sys/{device.product.product_key}/{device.name}/thing/deviceinfo/update"
    assert post(device, topic, b"anything")["code"] == 0
    assert Device.objects.online().get() == device


def test_topics_of_others_and_of_nobody_get_the_same_answer(device: Device) -> None:
    other = DeviceFactory.create(product=device.product)
    nobody = Device(product=device.product, name="nobody-here")
    answers = [
        post(device, inform_topic(other), INFORM),
        post(device, inform_topic(nobody), INFORM),
        post(device, f"/ota/device/upgrade/{device.product.product_key}/{device.name}", INFORM),
        post(device, f"/$ota/presence/{device.product.product_key}/{device.name}", INFORM),
        post(device, "/", b""),
    ]
    assert answers == [{"code": 10001, "message": "parameter error"}] * 5
    assert not DeviceVersion.objects.exists()


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"params":{}}', b"\xff\xfe", b'{"params":{"version":"\\u0000"}}']
)
def test_a_report_that_means_nothing_is_a_parameter_error(device: Device, body: bytes) -> None:
    assert post(device, inform_topic(device), body)["code"] == 10001


def test_a_token_that_is_missing_old_or_made_up_has_its_own_code(device: Device) -> None:
    old = make_token(device, timezone.now() - timedelta(days=8))
    good = make_token(device)
    flipped = good[:-1] + ("A" if good[-1] != "A" else "B")
    tokens = ["", old, flipped, "x", "A" * 48, good + "A", base64.b64encode(b"\xff" * 36).decode()]
    codes = [post(device, inform_topic(device), INFORM, token)["code"] for token in tokens]
    assert codes == [20002, 20001, *[20003] * 5]
    assert not DeviceVersion.objects.exists()


@pytest.mark.parametrize("path", ["/auth", "/topic/ota/device/inform/a/b"])
def test_only_a_plain_post_is_taken(path: str, device: Device) -> None:
    for method in ("get", "put", "delete"):
        response = getattr(Client(), method)(path)
        assert (response.status_code, json.loads(response.content)["code"]) == (405, 10001)
    client = Client(enforce_csrf_checks=True)
    assert client.post(path + "?x=1", b"{}", content_type="application/json").json()["code"] == 10001
    large = b" " * (MAX_BODY + 1)
    assert client.post(path, large, content_type="application/json").json()["code"] == 10001
    unsized = client.post(path, b"{}", content_type="application/json", headers={"Content-Length": ""})
    assert unsized.json()["code"] == 10001


def test_a_database_that_is_away_asks_the_device_to_try_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(reports, "apply", away)
    assert login(body_of(device))["code"] == 20004
    assert post(device, inform_topic(device), INFORM)["code"] == 30001


def test_a_report_that_cannot_be_applied_is_kept_and_not_called_a_success(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(reports, "apply", broken)
    assert post(device, inform_topic(device), INFORM)["code"] == 10000


fields = st.sampled_from(
    ["clientId", "deviceName", "productKey", "sign", "signmethod", "timestamp", "version"]
)
values = st.one_of(
    st.text(max_size=40), st.integers(), st.none(), st.booleans(), st.lists(st.text(), max_size=2)
)
bodies = st.one_of(
    st.binary(max_size=300),
    st.dictionaries(fields | st.text(max_size=10), values, max_size=25).map(
        lambda body: json.dumps(body).encode()
    ),
)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=bodies)
def test_no_body_gets_in_or_breaks_the_login(body: bytes, settings: Any) -> None:
    settings.OTA_HTTP_AUTH_FAILURES = 0
    assert login(body)["code"] in (Code.PARAMETER_ERROR, Code.AUTH_CHECK_ERROR)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    client_id=st.text(
        st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=64
    ),
    method=st.sampled_from(["hmacmd5", "hmacsha1", "hmacsha256"]),
    changed=st.sampled_from([None, "clientId", "sign"]),
)
def test_exactly_what_was_signed_gets_in(
    device: Device, client_id: str, method: str, changed: str | None, settings: Any
) -> None:
    settings.OTA_HTTP_AUTH_FAILURES = 0
    body = body_of(device, client_id=client_id, method=method)
    if changed:
        body[changed] += "0"
    assert login(body)["code"] == (20000 if changed else 0)
