"""A device that speaks HTTPS as a story: it logs in, asks, downloads, installs, and nobody can push to it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.core.cache import cache
from django.utils import timezone
from django.utils.translation import override

from campaigns import asking, dispatch, expand, reports, services
from campaigns.models import Campaign, UpdateTask
from campaigns.why import why_device
from devices import credentials
from devices.models import Channel, Device, DevicePresence, DeviceVersion
from devices.services import reset_secret, set_disabled
from devices.versions import SETTLE
from tests.campaigns.conftest import counts
from tests.factories import EPOCH, CampaignFactory, DeviceFactory, FirmwareFactory
from tests.running import running_web

pytestmark = pytest.mark.django_db(transaction=True)

IMAGE = bytes(range(256)) * 40


class HttpsDevice:
    """What a device does over HTTPS, on a real connection."""

    def __init__(self, url: str, device: Device) -> None:
        self.url, self.device, self.token = url, device, ""
        self.session = requests.Session()
        self.names = f"{device.product.product_key}/{device.name}"

    def login(self, **options: str) -> dict[str, Any]:
        body = credentials.http_auth(
            self.device.product.product_key, self.device.name, self.device.secret, **options
        )
        response = self.session.post(f"{self.url}/auth", json=body, timeout=10)
        answer: dict[str, Any] = response.json()
        self.token = answer.get("info", {}).get("token", "")
        return answer

    def post(self, topic: str, body: object, **headers: str) -> dict[str, Any]:
        named = {"password": self.token, "Content-Type": "application/octet-stream", **headers}
        data = json.dumps(body).encode() + b"\0"
        response = self.session.post(f"{self.url}/topic{topic}", data=data, headers=named, timeout=10)
        assert response.status_code == 200
        answer: dict[str, Any] = response.json()
        return answer

    def told(self, topic: str, body: object) -> Any:
        """What the answer carries: the bytes that MQTT would, decoded; None if nothing."""
        answer = self.post(topic, body)
        assert answer["code"] == 0, answer
        data = answer["info"].get("data")
        return json.loads(base64.b64decode(data)) if data else None

    def inform(self, version: str) -> Any:
        return self.told(f"/ota/device/inform/{self.names}", {"id": "1", "params": {"version": version}})

    def request(self, version: str) -> Any:
        return self.told(f"/ota/device/request/{self.names}", {"id": "1", "params": {"version": version}})

    def get(self) -> Any:
        return self.told(f"/sys/{self.names}/thing/ota/firmware/get", {"id": "7", "params": {}})

    def progress(self, step: int) -> None:
        params = {"step": str(step), "desc": ""}
        assert self.told(f"/ota/device/progress/{self.names}", {"id": "1", "params": params}) is None


@pytest.fixture
def web(transactional_db: None) -> Iterator[str]:
    cache.clear()
    with running_web() as url:
        yield url


@pytest.fixture
def https(web: str) -> HttpsDevice:
    """Registered, and never seen."""
    return HttpsDevice(web, DeviceFactory.create(activated_at=None))


@pytest.fixture
def batch(https: HttpsDevice) -> Campaign:
    """A batch that is launched but has not begun."""
    firmware = FirmwareFactory.create(product=https.device.product, version="2.0.0", file=IMAGE)
    return CampaignFactory.create(firmware=firmware, expanded_at=None)


def quiet_for(device: Device, minutes: int) -> None:
    """As if the device's last request, and what began it, were so much longer ago."""
    row = DevicePresence.objects.get(device=device)
    for name in ("changed_at", "connected_at"):
        setattr(row, name, getattr(row, name) - timedelta(minutes=minutes))
    row.save()


def told_earlier(device: Device) -> None:
    """As if it logged in a minute ago, and was given its update half a minute after that."""
    now = timezone.now()
    DevicePresence.objects.filter(device=device).update(connected_at=now - timedelta(seconds=60))
    UpdateTask.objects.filter(device=device).update(pushed_at=now - timedelta(seconds=31))


def task_of(device: Device) -> UpdateTask:
    return UpdateTask.objects.select_related("campaign", "device").get(device=device)


def test_a_device_is_activated_offered_an_update_downloads_it_and_proves_its_success(
    https: HttpsDevice, batch: Campaign
) -> None:
    assert https.login(method="hmacsha1", timestamp=str(int(timezone.now().timestamp() * 1000)))["code"] == 0
    device = Device.objects.get()
    assert (device.status(), device.presence.channel) == ("online", Channel.HTTPS)
    assert https.inform("1.0.0") is None
    expand.expand(batch.pk)
    assert dispatch.dispatch(lambda messages: [True] * len(messages)) == set(), "nothing is pushed to it"
    with override("en"):
        assert "asks for its updates itself (HTTPS)" in str(why_device(device))

    push = https.inform("1.0.0")
    assert (push["code"], push["message"], push["data"]["version"]) == ("1000", "success", "2.0.0")
    assert counts(batch) == {"NOTIFIED": 1}
    half = len(IMAGE) // 2
    first = requests.get(push["data"]["url"], headers={"Range": f"bytes=0-{half - 1}"}, timeout=10)
    https.progress(50)
    second = requests.get(push["data"]["url"], headers={"Range": f"bytes={half}-"}, timeout=10)
    assert [first.status_code, second.status_code] == [206, 206]
    assert hashlib.md5(first.content + second.content).hexdigest() == push["data"]["md5"]  # noqa: S324
    assert counts(batch) == {"IN_PROGRESS": 1}
    https.progress(100)
    assert https.inform("1.0.0") is None, "it is at it already"
    https.login()
    assert https.inform("2.0.0") is None
    assert counts(batch) == {"SUCCEEDED": 1}


def test_a_device_that_was_offline_when_the_batch_began_gets_the_update_only_when_it_asks(
    https: HttpsDevice, batch: Campaign
) -> None:
    https.login()
    https.inform("1.0.0")
    quiet_for(https.device, 11)
    expand.expand(batch.pk)
    assert https.inform("1.0.0") is None
    https.login()
    assert https.inform("1.0.0") is None
    assert counts(batch) == {"QUEUED": 1}
    with override("en"):
        assert "only when it asks for an update" in str(why_device(https.device))
    assert https.get()["data"]["version"] == "2.0.0"
    assert counts(batch) == {"NOTIFIED": 1}
    assert https.request("1.0.0")["data"]["version"] == "2.0.0", "a pull is always answered"


def test_a_late_update_is_offered_too_where_the_setting_says_so(
    https: HttpsDevice, batch: Campaign, settings: Any
) -> None:
    settings.OTA_HTTP_OFFER_LATE = True
    https.login()
    https.inform("1.0.0")
    quiet_for(https.device, 11)
    expand.expand(batch.pk)
    assert https.inform("1.0.0")["data"]["version"] == "2.0.0"


def test_what_became_due_while_it_was_online_is_offered_after_a_silence(
    https: HttpsDevice, batch: Campaign
) -> None:
    https.login()
    https.inform("1.0.0")
    quiet_for(https.device, 30)
    expand.expand(batch.pk, timezone.now() - timedelta(minutes=25))
    https.login()
    assert https.inform("1.0.0")["data"]["version"] == "2.0.0"


@pytest.mark.parametrize("close", [services.pause, services.cancel_campaign])
def test_pausing_or_canceling_closes_the_pull_too(https: HttpsDevice, batch: Campaign, close: Any) -> None:
    https.login()
    https.inform("1.0.0")
    expand.expand(batch.pk)
    batch.refresh_from_db()
    close(batch)
    assert https.inform("1.0.0") is None
    assert https.request("1.0.0") is None
    assert https.get() is None


def test_an_answer_that_was_lost_is_given_again_until_the_file_is_downloaded(
    https: HttpsDevice, batch: Campaign
) -> None:
    https.login()
    https.inform("1.0.0")
    expand.expand(batch.pk)
    assert https.inform("1.0.0")
    assert https.inform("1.0.0"), "the SDK's own first report may have got the answer"
    told_earlier(https.device)
    began = task_of(https.device).active_at
    url = https.inform("1.0.0")["data"]["url"]
    assert task_of(https.device).active_at == began, "asking again does not put off the time-out"
    requests.get(url, timeout=10)
    told_earlier(https.device)
    assert https.inform("1.0.0") is None


def test_a_device_that_comes_back_over_mqtt_is_pushed_to(https: HttpsDevice, batch: Campaign) -> None:
    DeviceFactory.create(online=True)  # the broker is there
    https.login()
    https.inform("1.0.0")
    quiet_for(https.device, 11)
    expand.expand(batch.pk)
    now = timezone.now()
    reports.apply([reports.Up(https.device.pk, "c9", EPOCH, now)], now)
    sent: list[str] = []
    dispatch.dispatch(lambda messages: [not sent.append(topic) for topic, _ in messages])
    assert sent == [f"/ota/device/upgrade/{https.names}"]
    assert https.inform("1.0.0") is None, "not a second time beside the push"
    assert DevicePresence.objects.get(device=https.device).channel == Channel.MQTT


def test_a_quiet_device_goes_offline_and_what_it_did_not_begin_waits_again(
    https: HttpsDevice, batch: Campaign
) -> None:
    https.login()
    https.inform("1.0.0")
    expand.expand(batch.pk)
    assert https.inform("1.0.0")
    assert asking.expire() == set()
    quiet_for(https.device, 11)
    assert asking.expire() == {batch.pk}
    assert not DevicePresence.objects.get(device=https.device).is_up
    assert counts(batch) == {"QUEUED": 1}
    assert https.inform("1.0.0")["data"]["version"] == "2.0.0", "it knows of this one"


def test_a_dynamic_batch_takes_a_device_in_and_answers_the_same_report(
    https: HttpsDevice, batch: Campaign
) -> None:
    Campaign.objects.update(policy="dynamic", expanded_at=timezone.now(), source_versions=["1.0.0"])
    https.login()
    assert https.inform("0.9.0") is None
    assert https.inform("1.0.0") is None, "it may be the SDK's own version"
    DeviceVersion.objects.update(changed_at=timezone.now() - SETTLE)
    assert https.inform("1.0.0")["data"]["version"] == "2.0.0"


def test_a_token_dies_with_the_devices_right(https: HttpsDevice) -> None:
    inform = f"/ota/device/inform/{https.names}"
    body = {"params": {"version": "1.0.0"}}
    https.login()
    set_disabled(https.device, True)
    assert https.post(inform, body)["code"] == 20003
    assert not DevicePresence.objects.online().exists()
    set_disabled(https.device, False)
    assert https.post(inform, body)["code"] == 0
    reset_secret(https.device)
    assert https.post(inform, body)["code"] == 20003
    https.login()
    assert https.post(inform, body)["code"] == 0
    Device.objects.update(removed_at=timezone.now())
    assert https.post(inform, body)["code"] == 20003
