"""What holds for every address: who may ask, how errors read, repeated requests, edits, limits."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client, override_settings
from django.urls import get_resolver
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory

from devices.models import Device, Product
from otaplatform.accounts.models import User
from otaplatform.api import idempotency
from otaplatform.api.errors import ApiError
from otaplatform.api.models import IdempotencyKey
from otaplatform.api.parsers import JSONParser
from otaplatform.api.urls import urlpatterns
from tests.factories import (
    CampaignFactory,
    DeviceFactory,
    FirmwareFactory,
    ProductFactory,
    TaskFactory,
    UserFactory,
)
from tests.otaplatform.api.conftest import V1, client_of, code_of

PRODUCTS = f"{V1}products/"


def test_a_request_without_a_token_is_told_to_log_in(db: None) -> None:
    response = APIClient().get(PRODUCTS)
    assert code_of(response) == (401, "unauthenticated")
    assert response["WWW-Authenticate"] == "Token"


@pytest.mark.parametrize("token", ["0" * 64, "ünsinn", "a b", "\x00"])
def test_a_wrong_token_is_refused(db: None, token: str) -> None:
    response = APIClient().get(PRODUCTS, HTTP_AUTHORIZATION=f"Token {token}")
    assert code_of(response) == (401, "unauthenticated")


def test_an_expired_token_is_refused(person: Any) -> None:
    client = client_of(person("Viewer"))
    assert client.get(PRODUCTS).status_code == 200
    AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert code_of(client.get(PRODUCTS)) == (401, "unauthenticated")


def test_the_token_of_somebody_who_left_is_refused(person: Any) -> None:
    user = person("Viewer")
    client = client_of(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert code_of(client.get(PRODUCTS)) == (401, "unauthenticated")


def test_tokens_are_stored_as_hashes_only(person: Any) -> None:
    row, token = AuthToken.objects.create(user=person("Viewer"))
    stored = [str(value) for value in AuthToken.objects.filter(pk=row.pk).values_list()[0]]
    assert not any(token in value for value in stored)


def test_the_console_s_login_works_too_and_asks_for_the_csrf_token(person: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person("Administrator"))
    assert browser.get(PRODUCTS).status_code == 200
    response = browser.post(PRODUCTS, {"name": "meters"}, content_type="application/json")
    assert code_of(response) == (403, "forbidden")


def test_somebody_without_an_account_sees_nothing(db: None) -> None:
    assert code_of(client_of(UserFactory.create(account=None)).get(PRODUCTS)) == (403, "forbidden")


def test_errors_speak_the_language_that_is_asked_for(operator: APIClient) -> None:
    response = operator.get(f"{PRODUCTS}nowhere/", HTTP_ACCEPT_LANGUAGE="zh-CN")
    assert response["Content-Language"] == "zh-hans"
    assert set(response.json()) == {"code", "message", "fields"}
    assert not response.json()["message"].isascii()
    response = operator.get(f"{PRODUCTS}nowhere/", HTTP_ACCEPT_LANGUAGE="en")
    assert response.json()["message"] == "There is no such object."


def test_a_token_s_user_is_answered_in_the_own_language_where_none_is_asked_for(person: Any) -> None:
    user = person("Viewer")
    User.objects.filter(pk=user.pk).update(language="zh-hans")
    message = client_of(user).get(f"{PRODUCTS}nowhere/").json()["message"]
    assert not message.isascii()


def test_an_address_that_does_not_exist_answers_in_the_same_form(db: None) -> None:
    for method in ("get", "post"):
        response = getattr(APIClient(), method)(f"{V1}nothing/here")
        assert code_of(response) == (404, "not_found")


def test_a_method_that_an_address_does_not_know_is_refused(operator: APIClient) -> None:
    response = operator.put(f"{V1}audit/", {})
    assert code_of(response) == (405, "method_not_allowed")
    assert "GET" in response["Allow"]


@pytest.mark.parametrize(
    "body", ["{", '{"a": NaN}', '{"name": "a", "name": "b"}', "[" * 100_000, b"\xff\xfe".decode("latin-1")]
)
def test_a_body_that_is_no_json_is_malformed(administrator: APIClient, body: str) -> None:
    response = administrator.post(PRODUCTS, body.encode("latin-1"), content_type="application/json")
    assert code_of(response) == (400, "malformed")


def test_a_body_that_is_too_large_is_not_read(administrator: APIClient) -> None:
    body = json.dumps({"name": "x" * 1024 * 1024})
    response = administrator.post(PRODUCTS, body, content_type="application/json")
    assert code_of(response) == (413, "too_large")


def test_a_body_in_another_format_is_refused(administrator: APIClient) -> None:
    response = administrator.post(PRODUCTS, "<name/>", content_type="text/xml")
    assert code_of(response) == (415, "unsupported_media_type")


def test_fields_and_parameters_that_do_not_exist_are_refused(administrator: APIClient) -> None:
    response = administrator.post(PRODUCTS, {"name": "meters", "nmae": "x", "product_key": "y"})
    assert code_of(response) == (400, "invalid")
    assert set(response.json()["fields"]) == {"nmae", "product_key"}
    response = administrator.get(PRODUCTS, {"nmae": "x"})
    assert response.json()["fields"]["nmae"][0]["code"] == "unknown"


@pytest.mark.parametrize("value", [1, None, ["meters"], "abc", "x" * 31, "with space", "meters\x00"])
def test_a_wrong_value_names_its_field(administrator: APIClient, value: object) -> None:
    response = administrator.post(PRODUCTS, {"name": value})
    assert code_of(response) == (400, "invalid")
    assert list(response.json()["fields"]) == ["name"]
    assert response.json()["message"]


# ---- accounts and roles ------------------------------------------------------------------------------


@pytest.fixture
def everything(product: Product) -> dict[str, Any]:
    """One object of each kind, for the addresses."""
    firmware = FirmwareFactory.create(product=product)
    campaign = CampaignFactory.create(firmware=firmware)
    device = DeviceFactory.create(product=product, version="1.0.0", online=True)
    return {
        "product_key": product.product_key,
        "device_name": device.name,
        "firmware": firmware.pk,
        "campaign": campaign.pk,
        "task": TaskFactory.create(campaign=campaign, device=device).pk,
    }


ADDRESSES = [
    ("get", "products/{product_key}/"),
    ("patch", "products/{product_key}/"),
    ("delete", "products/{product_key}/"),
    ("get", "products/{product_key}/credentials/"),
    ("get", "products/{product_key}/versions/"),
    ("get", "products/{product_key}/secure-update/"),
    ("post", "products/{product_key}/secure-update/"),
    ("post", "products/{product_key}/registrations/"),
    ("get", "products/{product_key}/devices/"),
    ("post", "products/{product_key}/devices/"),
    ("get", "products/{product_key}/devices/{device_name}/"),
    ("delete", "products/{product_key}/devices/{device_name}/"),
    ("get", "products/{product_key}/devices/{device_name}/history/"),
    ("get", "products/{product_key}/devices/{device_name}/tasks/"),
    ("get", "products/{product_key}/devices/{device_name}/credentials/"),
    ("post", "products/{product_key}/devices/{device_name}/reset-secret/"),
    ("post", "products/{product_key}/devices/{device_name}/disable/"),
    ("post", "products/{product_key}/devices/{device_name}/enable/"),
    ("get", "firmware/{firmware}/"),
    ("delete", "firmware/{firmware}/"),
    ("get", "firmware/{firmware}/download/"),
    ("post", "firmware/{firmware}/associate/"),
    ("post", "firmware/{firmware}/validate/"),
    ("get", "campaigns/{campaign}/"),
    ("get", "campaigns/{campaign}/tasks/"),
    ("post", "campaigns/{campaign}/cancel/"),
    ("post", "campaigns/{campaign}/pause/"),
    ("post", "campaigns/{campaign}/resume/"),
    ("post", "campaigns/{campaign}/stop-matching/"),
    ("post", "campaigns/{campaign}/retry/"),
    ("get", "tasks/{task}/"),
    ("get", "tasks/{task}/events/"),
    ("post", "tasks/{task}/cancel/"),
    ("post", "tasks/{task}/retry/"),
]
BODIES = {
    "registrations/": {"count": 1},
    "secure-update/": {"enabled": True},
    "associate/": {"product": "a1"},
    "validate/": {"device_names": ["meter"]},
}


@pytest.mark.parametrize(("method", "address"), ADDRESSES)
def test_another_account_s_objects_are_as_absent_as_ones_that_never_were(
    method: str, address: str, everything: dict[str, Any], outsider: APIClient
) -> None:
    body = next((body for end, body in BODIES.items() if address.endswith(end)), {})
    url = V1 + address.format(**everything)
    found = code_of(getattr(outsider, method)(url, body if method in ("post", "patch") else None))
    assert found == (404, "not_found")


@pytest.mark.parametrize(("method", "address"), ADDRESSES)
def test_a_viewer_looks_and_changes_nothing(
    method: str, address: str, everything: dict[str, Any], viewer: APIClient
) -> None:
    response = getattr(viewer, method)(V1 + address.format(**everything))
    secret = address.endswith(("credentials/", "download/"))
    expected = 200 if method == "get" and not secret else 403
    assert response.status_code == expected


def test_every_address_below_an_object_is_in_the_list_of_those_tests() -> None:
    written = {
        address.replace("{product_key}", "#")
        .replace("{device_name}", "#")
        .replace("{firmware}", "#")
        .replace("{campaign}", "#")
        .replace("{task}", "#")
        for _method, address in ADDRESSES
    }
    other = ("webhooks/", "tokens/", "files/", "products/#/registrations/#/")
    routes = {str(pattern.pattern) for pattern in urlpatterns if "<" in str(pattern.pattern)}
    found = {"/".join("#" if "<" in part else part for part in route.split("/")) for route in routes}
    assert {route for route in found if not route.startswith(other)} == written
    assert get_resolver().resolve(f"{V1}products/").route == "api/v1/products/"


@pytest.mark.parametrize("address", ["products/", "firmware/", "campaigns/", "audit/"])
def test_lists_hold_the_account_s_rows_only(
    address: str, everything: dict[str, Any], operator: APIClient, outsider: APIClient
) -> None:
    operator.post(f"{V1}campaigns/{everything['campaign']}/pause/")
    assert outsider.get(V1 + address).json()["results"] == []
    assert len(operator.get(V1 + address).json()["results"]) == 1


def test_a_foreign_firmware_cannot_be_launched(
    everything: dict[str, Any], outsider: APIClient, operator: APIClient
) -> None:
    body = {"firmware": everything["firmware"], "accept_unproven": True}
    response = outsider.post(f"{V1}campaigns/", body)
    assert response.json()["fields"]["firmware"][0]["code"] == "does_not_exist"
    assert operator.post(f"{V1}campaigns/", body).status_code == 201


# ---- repeated requests -------------------------------------------------------------------------------


def test_a_repeated_post_gets_the_same_answer_and_does_nothing_twice(
    operator: APIClient, product: Product
) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    key: Any = {"HTTP_IDEMPOTENCY_KEY": "k1"}
    first = operator.post(url, {}, **key)
    again = operator.post(url, {}, **key)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again["Idempotency-Replayed"] == "true"
    assert Device.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_requests_with_one_key_at_the_same_moment_do_it_once(person: Any) -> None:
    user = person("Operator")
    url = f"{PRODUCTS}{ProductFactory.create(account=user.account).product_key}/devices/"
    clients = [client_of(user) for _ in range(4)]
    together = threading.Barrier(len(clients))

    def post(client: APIClient) -> int:
        try:
            together.wait(10)
            return client.post(url, {}, headers={"Idempotency-Key": "k1"}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(clients)) as pool:
        statuses = set(pool.map(post, clients))
    assert Device.objects.count() == 1
    assert 201 in statuses <= {201, 409}


def test_kept_answers_are_encrypted(operator: APIClient, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    secret = operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1").json()["device_secret"]
    assert secret not in IdempotencyKey.objects.get().answer_encrypted


def test_a_key_with_another_body_or_address_is_refused(operator: APIClient, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    key: Any = {"HTTP_IDEMPOTENCY_KEY": "k1"}
    operator.post(url, {"device_name": "meter-1"}, **key)
    other = operator.post(url, {"device_name": "meter-2"}, **key)
    assert code_of(other) == (409, "idempotency_mismatch")
    elsewhere = operator.post(f"{url}meter-1/disable/", {"device_name": "meter-1"}, **key)
    assert code_of(elsewhere) == (409, "idempotency_mismatch")


def test_a_key_whose_first_request_still_runs_is_refused(operator: APIClient, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")
    IdempotencyKey.objects.update(status=None)
    response = operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")
    assert code_of(response) == (409, "idempotency_running")
    IdempotencyKey.objects.update(claimed_at=timezone.now() - idempotency.LONGEST_REQUEST * 2)
    assert operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


def test_the_spelling_of_a_body_does_not_matter(operator: APIClient, product: Product) -> None:
    url = f"{V1}campaigns/preview/"
    key: Any = {"HTTP_IDEMPOTENCY_KEY": "k1"}
    firmware = FirmwareFactory.create(product=product).pk
    one = json.dumps({"firmware": firmware, "policy": "static"})
    other = json.dumps({"policy": "static", "firmware": firmware}, indent=2)
    for body in (one, other):
        assert operator.post(url, body, content_type="application/json", **key).status_code == 200


def test_a_repeated_upload_is_known_by_the_file_s_content(operator: APIClient, product: Product) -> None:
    def upload(content: bytes) -> Any:
        body = {
            "name": "app_1",
            "version": "1.0",
            "product": product.product_key,
            "sign_method": "MD5",
            "file": SimpleUploadedFile("app.bin", content),
        }
        return operator.post(f"{V1}firmware/", body, format="multipart", HTTP_IDEMPOTENCY_KEY="k1")

    assert upload(b"content").json() == upload(b"content").json()
    assert code_of(upload(b"other")) == (409, "idempotency_mismatch")


def test_the_answer_that_is_kept_belongs_to_its_user(person: Any, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    ours, theirs = (client_of(person("Operator")) for _ in range(2))
    first = ours.post(url, {"device_name": "meter-1"}, HTTP_IDEMPOTENCY_KEY="k1")
    other = theirs.post(url, {"device_name": "meter-1"}, HTTP_IDEMPOTENCY_KEY="k1")
    assert (first.status_code, code_of(other)) == (201, (409, "already_exists"))
    assert "Idempotency-Replayed" not in other
    assert "device_secret" not in other.json()


def test_a_request_that_was_throttled_frees_its_key(operator: APIClient, product: Product) -> None:
    """The throttle answers before the key is claimed, so a later try is a first one."""
    url = f"{PRODUCTS}{product.product_key}/devices/"
    with override_settings(OTA_API_RATE=1):
        operator.get(PRODUCTS)
        assert code_of(operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")) == (429, "throttled")
    assert operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_answer_that_says_nothing_about_the_request_frees_its_key(person: Any, status: int) -> None:
    claimed = IdempotencyKey.objects.create(user=person("Viewer"), key="k1", fingerprint="f")
    idempotency.keep(claimed, status, b"{}", {})
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 409, 499])
def test_an_answer_about_the_request_is_kept(person: Any, status: int) -> None:
    claimed = IdempotencyKey.objects.create(user=person("Viewer"), key="k1", fingerprint="f")
    idempotency.keep(claimed, status, b'{"a": 1}', {"Location": "/x"})
    row = IdempotencyKey.objects.get()
    assert (row.status, json.loads(row.answer)["data"]) == (status, {"a": 1})


def test_a_claim_that_was_taken_over_keeps_no_answer(person: Any) -> None:
    claimed = IdempotencyKey.objects.create(user=person("Viewer"), key="k1", fingerprint="f")
    IdempotencyKey.objects.update(claimed_at=timezone.now() + timedelta(seconds=1))
    idempotency.keep(claimed, 200, b"{}", {})
    idempotency.keep(claimed, 500, b"{}", {})
    assert IdempotencyKey.objects.get().status is None


def test_a_query_is_part_of_the_request(operator: APIClient, product: Product) -> None:
    factory = APIRequestFactory()
    marks = {
        idempotency.fingerprint(Request(factory.post(address, {}), parsers=[JSONParser()]))
        for address in ("/a/", "/a/?b=1", "/a/?b=2", "/b/")
    }
    assert len(marks) == 4


def test_a_claim_of_a_request_that_died_lives_ten_minutes(person: Any) -> None:
    user, now = person("Viewer"), timezone.now()
    request = Request(APIRequestFactory().post("/a/", {}, HTTP_IDEMPOTENCY_KEY="k1"), parsers=[JSONParser()])
    assert isinstance(idempotency.claim(request, user, now), IdempotencyKey)
    for later in (timedelta(0), idempotency.LONGEST_REQUEST):
        with pytest.raises(ApiError) as refused:
            idempotency.claim(request, user, now + later)
        assert refused.value.code == "idempotency_running"
    later = idempotency.LONGEST_REQUEST + timedelta(microseconds=1)
    taken = idempotency.claim(request, user, now + later)
    assert isinstance(taken, IdempotencyKey)
    idempotency.keep(taken, 200, b"{}", {})
    day = now + later + idempotency.KEEP
    assert isinstance(idempotency.claim(request, user, day), idempotency.Kept)
    assert isinstance(idempotency.claim(request, user, day + timedelta(microseconds=1)), IdempotencyKey)


@pytest.mark.parametrize("path", ["tokens/", "webhooks/"])
def test_no_answer_may_be_stored_on_the_way(administrator: APIClient, path: str) -> None:
    body = {"days": 1} if path == "tokens/" else {"url": "https://example.com/"}
    made = administrator.post(V1 + path, body, HTTP_IDEMPOTENCY_KEY="k1")
    again = administrator.post(V1 + path, body, HTTP_IDEMPOTENCY_KEY="k1")
    assert made.json() == again.json()
    for response in (made, again, administrator.get(V1 + path), administrator.get(f"{V1}tokens/?x=1")):
        assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["products/{}/credentials/", "products/{}/devices/{}/credentials/", "products/{}/secure-update/"]
)
def test_no_secret_may_be_stored_on_the_way(administrator: APIClient, product: Product, path: str) -> None:
    device = DeviceFactory.create(product=product)
    response = administrator.get(V1 + path.format(product.product_key, device.name))
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")


def test_keys_of_different_people_do_not_meet(person: Any, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    for user in (person("Operator"), person("Operator")):
        client_of(user).post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")
    assert Device.objects.count() == 2


@pytest.mark.parametrize("key", ["", "with space", "ä", "x" * 256])
def test_a_malformed_key_is_refused(operator: APIClient, product: Product, key: str) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    assert operator.post(url, {}, HTTP_IDEMPOTENCY_KEY=key).status_code == 400


def test_a_failure_of_the_server_frees_the_key(
    operator: APIClient, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    operator.raise_request_exception = False
    with monkeypatch.context() as patch:
        patch.setattr("devices.services.register_device", lambda *args, **options: 1 / 0)
        response = operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")
    assert code_of(response) == (500, "server_error")
    assert operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


def test_old_keys_are_forgotten(operator: APIClient, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/devices/"
    operator.post(url, {}, HTTP_IDEMPOTENCY_KEY="k1")
    assert idempotency.forget() == 0
    assert idempotency.forget(timezone.now() + idempotency.KEEP + timedelta(minutes=1)) == 1


# ---- edits and limits --------------------------------------------------------------------------------


def test_an_edit_of_what_somebody_else_changed_is_refused(administrator: APIClient, product: Product) -> None:
    url = f"{PRODUCTS}{product.product_key}/"
    tag = administrator.get(url)["ETag"]
    mine = administrator.patch(url, {"description": "mine"}, HTTP_IF_MATCH=tag)
    assert mine.status_code == 200
    theirs = administrator.patch(url, {"description": "theirs"}, HTTP_IF_MATCH=tag)
    assert code_of(theirs) == (412, "precondition_failed")
    assert code_of(administrator.delete(url, HTTP_IF_MATCH=tag)) == (412, "precondition_failed")
    assert administrator.delete(url, HTTP_IF_MATCH=mine["ETag"]).status_code == 204


def test_too_many_requests_are_told_when_to_come_again(operator: APIClient, settings: Any) -> None:
    settings.OTA_API_RATE = 2
    assert [operator.get(f"{V1}audit/").status_code for _ in range(2)] == [200, 200]
    response = operator.get(f"{V1}audit/")
    assert code_of(response) == (429, "throttled")
    assert 1 <= int(response["Retry-After"]) <= 61


# ---- lists -------------------------------------------------------------------------------------------


def test_a_list_is_walked_by_its_links_in_both_directions(operator: APIClient, product: Product) -> None:
    names = [device.name for device in reversed(DeviceFactory.create_batch(5, product=product))]
    url = f"{PRODUCTS}{product.product_key}/devices/?page_size=2"
    pages, backwards = [], []
    while url:
        pages.append(operator.get(url).json())
        url = pages[-1]["next"]
    assert [row["device_name"] for page in pages for row in page["results"]] == names
    url = pages[-1]["previous"]
    while url:
        backwards.append(operator.get(url).json())
        url = backwards[-1]["previous"]
    assert [page["results"] for page in backwards] == [page["results"] for page in reversed(pages[:-1])]


@pytest.mark.parametrize(
    "query",
    ["page_size=0", "page_size=501", "page_size=x", "cursor=x", "cursor=WzAsIngiXQ", "cursor=WzAsMWUzMDBd"],
)
def test_a_made_up_cursor_or_size_is_refused(operator: APIClient, query: str) -> None:
    assert code_of(operator.get(f"{PRODUCTS}?{query}")) == (400, "invalid")
