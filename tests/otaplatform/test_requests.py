"""Bodies sent in chunks, by raw sockets against the real server: they are read like any other."""

import io
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from knox.models import AuthToken
from rest_framework.test import APIRequestFactory

from campaigns.models import UpdateTask
from campaigns.states import TaskStatus
from devices.models import Device, Product
from otaplatform.accounts.models import User
from otaplatform.api.models import RegistrationJob
from otaplatform.api.views.others import TokenResource
from otaplatform.requests import MeasuredRequest
from tests.factories import CampaignFactory, FirmwareFactory, ProductFactory, TaskFactory
from tests.running import running_web

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def url(settings: Any) -> Iterator[str]:
    settings.ALLOWED_HOSTS = ["*"]
    with running_web() as address:
        yield address


def post(url: str, path: str, body: bytes, *, size: int = 7, **headers: str) -> tuple[int, Any]:
    """Status and answer of a POST whose body comes in chunks of `size` bytes."""
    parts = urlsplit(url)
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", "Transfer-Encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 0), 10) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + raw)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        content = b"".join(content.split(b"\r\n")[1::2])
    return int(head.split()[1]), json.loads(content)


@pytest.fixture
def sent(url: str, administrator: User) -> Any:
    """Send JSON by chunks, as an administrator."""
    token = AuthToken.objects.create(user=administrator)[1]

    def send(path: str, body: Any, **options: Any) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        options = {"Content_Type": "application/json", "Authorization": f"Token {token}"} | options
        return post(url, f"/api/v1/{path}", raw, **options)

    return send


@pytest.fixture
def product(administrator: User) -> Product:
    made: Product = ProductFactory.create(account=administrator.account)
    return made


def test_a_cancel_of_what_waits_leaves_what_is_updating(sent: Any, product: Product) -> None:
    campaign = CampaignFactory.create(firmware=FirmwareFactory.create(product=product))
    waiting = TaskFactory.create(campaign=campaign)
    updating = TaskFactory.create(campaign=campaign, status=TaskStatus.IN_PROGRESS)
    status, _answer = sent(f"campaigns/{campaign.pk}/cancel/", {"states": ["queued"]})
    assert status == 200
    found = dict(UpdateTask.objects.values_list("pk", "status"))
    assert found == {waiting.pk: TaskStatus.CANCELED, updating.pk: TaskStatus.IN_PROGRESS}


def test_a_device_gets_the_name_that_was_sent(sent: Any, product: Product) -> None:
    status, answer = sent(f"products/{product.product_key}/devices/", {"device_name": "meter-1"})
    assert (status, answer["device_name"]) == (201, "meter-1")


def test_a_token_lives_as_long_as_was_asked(sent: Any) -> None:
    assert sent("tokens/", {"days": 1})[0] == 201
    newest = AuthToken.objects.latest("created")
    assert (newest.expiry - newest.created).days <= 1


def test_a_form_with_a_file_is_read_in_chunks_too(sent: Any, product: Product) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        b"DeviceName\r\nmeter-1\r\n\r\n--b--\r\n"
    )
    path = f"products/{product.product_key}/registrations/"
    status, _answer = sent(path, body, Content_Type="multipart/form-data; boundary=b")
    assert status == 201
    assert Device.objects.get().name == "meter-1"
    assert RegistrationJob.objects.count() == 1


def test_chunks_that_are_larger_than_a_body_may_be_are_refused(sent: Any) -> None:
    status, answer = sent("products/", {"name": "x" * 1024 * 1024}, size=65536)
    assert (status, answer["code"]) == (413, "too_large")


def test_chunks_without_anything_in_them_are_an_empty_body(sent: Any, product: Product) -> None:
    assert sent(f"products/{product.product_key}/devices/", b"")[0] == 201
    assert sent("products/", b"")[1]["fields"]["name"][0]["code"] == "required"


def test_an_unknown_field_is_refused_in_chunks_too(sent: Any) -> None:
    assert sent("tokens/", {"day": 1})[1]["fields"]["day"][0]["code"] == "unknown"


def test_a_device_s_login_in_chunks_is_looked_at(url: str) -> None:
    wrong = {"productKey": "a1", "deviceName": "meter-1", "clientId": "c", "sign": "0" * 32}
    status, answer = post(url, "/auth", json.dumps(wrong).encode(), Content_Type="application/json")
    assert (status, answer["code"]) == (200, 20000)


def test_the_length_is_the_body_s_own() -> None:
    scope = {"type": "http", "path": "/", "method": "POST", "headers": [(b"content-length", b"0")]}
    request = MeasuredRequest(scope, io.BytesIO(b"12345"))
    assert request.META["CONTENT_LENGTH"] == "5"
    assert request.read() == b"12345"
    bare = MeasuredRequest(scope | {"headers": []}, io.BytesIO(b""))
    assert "CONTENT_LENGTH" not in bare.META


def test_a_server_that_does_not_measure_is_asked_for_the_length(administrator: User) -> None:
    request = APIRequestFactory().post("/", HTTP_TRANSFER_ENCODING="chunked")
    assert "CONTENT_LENGTH" not in request.META
    request.META["HTTP_AUTHORIZATION"] = f"Token {AuthToken.objects.create(user=administrator)[1]}"
    response = TokenResource.as_view({"post": "create"})(request)
    assert (response.status_code, response.data["code"]) == (411, "length_required")
