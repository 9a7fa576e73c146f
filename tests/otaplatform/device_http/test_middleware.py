"""What devices are answered, byte by byte, over real sockets: it fits the buffers of the C SDKs."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.test import Client
from pytest_django import Settings

from campaigns.models import UpdateTask
from campaigns.states import TaskStatus
from devices import credentials
from firmware.links import make_link
from otaplatform.device_http import views
from otaplatform.device_http.middleware import is_device_path
from tests import c_reader
from tests.c_reader import CAnswer
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, TaskFactory
from tests.running import running_web

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = bytes(range(256)) * 1000
# All that a device is ever told.
KNOWN = {
    b"date",
    b"content-type",
    b"content-length",
    b"content-range",
    b"accept-ranges",
    b"etag",
    b"cache-control",
    b"allow",
    b"connection",
}


@pytest.fixture
def port() -> Iterator[int]:
    with running_web() as url:
        yield urlsplit(url).port or 0


@pytest.fixture
def task() -> UpdateTask:
    campaign = CampaignFactory.create(firmware=FirmwareFactory.create(file=CONTENT))
    task: UpdateTask = TaskFactory.create(campaign=campaign, status=TaskStatus.NOTIFIED)
    return task


@pytest.fixture
def path(task: UpdateTask) -> str:
    return urlsplit(make_link(task.pk, task.firmware.files.get())).path


def names(answer: CAnswer) -> set[bytes]:
    return {line.split(b":")[0].lower() for line in answer.lines}


def test_a_download_fits_the_buffers_of_the_c_sdks_whatever_its_outcome(port: int, path: str) -> None:
    tag = (c_reader.get(port, path, method="HEAD").value(b"ETag") or b"").decode()
    whole = c_reader.get(port, path)
    part = c_reader.get(port, path, "Range: bytes=1000-")
    same = c_reader.get(port, path, f"If-None-Match: {tag}")
    behind = c_reader.get(port, path, f"Range: bytes={len(CONTENT)}-")
    refused = c_reader.get(port, path[:-1] + ("A" if path[-1] != "A" else "B"))
    wrong = c_reader.get(port, path, "Content-Length: 0", method="POST")
    assert [a.status for a in (whole, part, same, behind, refused, wrong)] == [200, 206, 304, 416, 403, 405]
    assert (whole.body, part.body) == (CONTENT, CONTENT[1000:])
    for answer in (whole, part, same, behind, refused, wrong):
        assert names(answer) <= KNOWN


def test_a_lost_file_fits_too(port: int, path: str, task: UpdateTask) -> None:
    task.firmware.files.get().file.delete(save=False)
    answer = c_reader.get(port, path)
    assert answer.status == 404
    assert names(answer) <= KNOWN


def test_a_reader_of_fixed_buffers_would_notice_one_long_line(
    port: int, path: str, settings: Settings
) -> None:
    """The negative control: behind the console's middleware, no C SDK could read the answer."""
    with pytest.raises(c_reader.TooLongError):
        c_reader.get(port, "/login/")
    assert c_reader.get(port, path).status == 200


def test_the_answer_for_nginx_fits_too(port: int, path: str, settings: Settings) -> None:
    settings.OTA_X_ACCEL_PREFIX = "/_firmware/"
    answer = c_reader.get(port, path, "Range: bytes=10-")
    assert answer.status == 200
    assert names(answer) <= KNOWN | {b"x-accel-redirect"}


def test_a_login_and_a_report_fit_and_bring_no_cookie(port: int) -> None:
    device = DeviceFactory.create()
    body = json.dumps(credentials.http_auth(device.product.product_key, device.name, device.secret)).encode()
    head = f"POST /auth HTTP/1.1\r\nHost: iot-as-http.example\r\nContent-Length: {len(body)}\r\n\r\n"
    login = c_reader.exchange(port, head.encode() + body)
    token = json.loads(login.body)["info"]["token"]
    topic = f"/topic/ota/device/inform/{device.product.product_key}/{device.name}"
    head = f"POST {topic} HTTP/1.1\r\nHost: iot-as-http.example\r\npassword: {token}\r\n"
    inform = b'{"id":1,"params":{"version":"1.0.0"}}'
    report = c_reader.exchange(port, f"{head}Content-Length: {len(inform)}\r\n\r\n".encode() + inform)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inform), inform)
    again = c_reader.exchange(port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked)
    for answer in (login, report, again):
        assert answer.status == 200
        assert json.loads(answer.body)["code"] == 0
        assert names(answer) <= KNOWN


@pytest.mark.parametrize(
    "path",
    ["/f", "/f/", "/f/x", "/f/x/", "/f/x/y", "/f//", "/f/%0a", "/auth", "/topic", "/topic/", "/topic/x/"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_of_devices_is_ever_redirected_or_answered_with_html(path: str, method: str) -> None:
    assert is_device_path(path.replace("%0a", "\n"))
    answer = Client(HTTP_HOST="any.name.at.all").generic(method, path, b"{}", content_type="text/plain")
    assert answer.status_code in (200, 403, 405)
    assert answer.headers.get("Content-Type", "application/json") == "application/json"
    assert "Location" not in answer.headers


def test_the_pages_of_people_are_none_of_devices() -> None:
    assert not any(map(is_device_path, ["/", "/auth/", "/auth/group/", "/firmware/", "/topics", "/healthz"]))


def test_an_address_that_names_the_host_is_the_same_address(port: int, path: str) -> None:
    for target in (f"http://127.0.0.1{path}", f"HTTP://ota.example:80{path}"):
        assert c_reader.get(port, target, "Range: bytes=5-").body == CONTENT[5:]


def test_an_error_of_ours_is_bare_and_its_log_names_no_token(
    port: int, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("campaigns.downloads.read_link", broken)
    answer = c_reader.get(port, path)
    assert (answer.status, answer.body) == (500, b"")
    assert "broken on purpose" in caplog.text
    assert path.rpartition("/")[2] not in caplog.text


def test_the_token_of_a_refused_link_is_not_logged(
    port: int, path: str, task: UpdateTask, caplog: pytest.LogCaptureFixture
) -> None:
    UpdateTask.objects.filter(pk=task.pk).update(status=TaskStatus.CANCELED)
    caplog.set_level("DEBUG")
    assert c_reader.get(port, path).status == 403
    assert path.rpartition("/")[2] not in caplog.text


def test_a_body_over_the_limit_of_devices_is_refused_in_either_form(port: int) -> None:
    size = views.MAX_BODY + 1
    head = b"POST /auth HTTP/1.1\r\nHost: x\r\n"
    long = c_reader.exchange(port, head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
    chunked = c_reader.exchange(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    assert json.loads(long.body)["code"] == json.loads(chunked.body)["code"] == 10001
