"""The frame around every page: navigation, header, language, time zone, account."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from redis.exceptions import ConnectionError as RedisDown

from devices.models import Product
from devices.services import register_device
from otaplatform.accounts.models import User
from otaplatform.accounts.roles import ADMINISTRATOR, VIEWER
from otaplatform.console import online_count, reports_per_minute
from otaplatform.models import Heartbeat
from tests.factories import AccountFactory, DeviceFactory, ProductFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


def person(role: str = ADMINISTRATOR, **values: Any) -> User:
    user: User = UserFactory(**values)
    user.groups.set(Group.objects.filter(name=role))
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, address: str = "/") -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def navigation(html: str) -> list[str]:
    (side,) = re.findall(r'<nav class="side".*?</nav>', html, re.DOTALL)
    return re.findall(r'href="([^"]+)"', side)


def test_navigation_offers_what_the_user_may_see() -> None:
    viewer = navigation(shown(logged_in(person(VIEWER))))
    assert "/devices/device/" in viewer
    assert "/accounts/auditentry/" in viewer
    assert "/accounts/user/" not in viewer
    administrator = navigation(shown(logged_in(person())))
    assert "/accounts/user/" in administrator
    root = navigation(shown(logged_in(person(is_superuser=True))))
    only_root = {"/accounts/account/", "/auth/group/", "/django_celery_beat/periodictask/"}
    assert only_root <= set(root)
    assert not only_root & set(administrator)


def test_every_page_of_the_navigation_opens() -> None:
    for user in (person(VIEWER), person(), person(is_superuser=True)):
        client = logged_in(user)
        for address in navigation(shown(client)):
            assert client.get(address).status_code == 200, address


def test_the_present_page_is_marked_once() -> None:
    html = shown(logged_in(person()), "/devices/device/add/")
    assert re.findall(r'<a href="([^"]+)" aria-current="page"', html) == ["/devices/device/"]


def test_the_version_stands_in_the_footer_even_before_the_login() -> None:
    assert settings.OTA_VERSION in shown(Client(), "/login/")


def test_pages_forbid_inline_scripts_and_styles() -> None:
    client = logged_in(person(is_superuser=True))
    for address in [*navigation(shown(client)), "/me/", "/password_change/", "/accounts/user/add/"]:
        answer = client.get(address)
        assert "default-src 'self'" in answer["Content-Security-Policy"]
        assert "unsafe" not in answer["Content-Security-Policy"]
        html = answer.content.decode()
        assert not re.search(r'<style|\sstyle="|\son[a-z]+="', html), address
        for attributes in re.findall(r"<script([^>]*)>", html):
            assert "src=" in attributes or 'type="application/json"' in attributes, address


def test_the_header_counts_the_online_devices_of_the_own_account() -> None:
    user = person()
    DeviceFactory(product=ProductFactory(account=user.account), online=True)
    DeviceFactory(online=True)
    assert "1 device online" in shown(logged_in(user))
    assert online_count(None) == 2


def test_the_figures_of_the_fleet_are_asked_for_in_the_users_language_and_account() -> None:
    user = person(language="zh-hans")
    DeviceFactory(product=ProductFactory(account=user.account), online=True)
    DeviceFactory(online=True)
    register_device(Product.objects.get(account=user.account))
    figures = logged_in(user).get("/fleet.json").json()
    assert figures["online_words"] == "1 台设备在线"
    # Factories make devices without counting them.
    assert [figures[name] for name in ("online", "registered", "activated")] == ["1", "1", "0"]
    assert logged_in(UserFactory()).get("/fleet.json").status_code == 403, "a user without a role"
    assert Client().get("/fleet.json").status_code == 302


def test_a_cache_that_is_down_stops_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise RedisDown

    DeviceFactory(online=True)
    monkeypatch.setattr(cache, "get", refuse)
    assert online_count(None) == 1


def test_the_language_switch_is_kept_with_the_user() -> None:
    user = person()
    client = logged_in(user)
    client.post("/i18n/setlang/", {"language": "zh-hans", "next": "/"})
    user.refresh_from_db()
    assert user.language == "zh-hans"
    assert "总览" in shown(logged_in(user))
    client.post("/i18n/setlang/", {"language": "tlh", "next": "/"})
    user.refresh_from_db()
    assert user.language == "zh-hans"


def test_my_settings_keep_language_and_zone() -> None:
    user = person()
    client = logged_in(user)
    assert client.post("/me/", {"language": "zh-hans", "time_zone": "Mars/Olympus"}).status_code == 200
    client.post("/me/", {"language": "zh-hans", "time_zone": "Asia/Tokyo"})
    user.refresh_from_db()
    assert (user.language, user.time_zone) == ("zh-hans", "Asia/Tokyo")
    assert "Asia/Tokyo" in shown(client)


def test_a_superuser_switches_between_accounts() -> None:
    root = person(is_superuser=True)
    other = ProductFactory(name="other_product", account=AccountFactory())
    client = logged_in(root)
    assert other.name not in shown(client, "/devices/product/")
    client.post("/me/account/", {"account": other.account_id, "next": "/"})
    assert other.name in shown(client, "/devices/product/")
    client.post("/me/account/", {"account": "all", "next": "/"})
    assert other.name in shown(client, "/devices/product/")


def test_nobody_else_switches_accounts_and_nobody_is_led_away() -> None:
    other = AccountFactory()
    assert logged_in(person()).post("/me/account/", {"account": other.pk}).status_code == 403
    answer = logged_in(person(is_superuser=True)).post(
        "/me/account/", {"account": other.pk, "next": "https://evil.example/"}
    )
    assert answer["Location"] == "/"


def test_a_new_password_ends_the_obligation_to_change_it() -> None:
    user = person(must_change_password=True)
    client = logged_in(user)
    assert client.get("/devices/device/")["Location"] == "/password_change/"
    same = {"old_password": "pw", "new_password1": "pw", "new_password2": "pw"}
    assert client.post("/password_change/", same).status_code == 200
    new = "Kanton-1997-x"
    client.post("/password_change/", {"old_password": "pw", "new_password1": new, "new_password2": new})
    assert client.get("/devices/device/").status_code == 200


def test_the_reports_per_minute_are_what_the_gateway_last_measured() -> None:
    Heartbeat.objects.create(name="gateway", detail={"last_minute": 750})
    assert reports_per_minute(AccountFactory.create()) == 750


def test_a_silent_gateway_has_no_figure() -> None:
    Heartbeat.objects.create(
        name="gateway", detail={"last_minute": 60}, at=timezone.now() - timedelta(minutes=1)
    )
    assert reports_per_minute(None) is None


def test_an_account_among_several_is_not_shown_the_messages_of_the_others() -> None:
    Heartbeat.objects.create(name="gateway", detail={"last_minute": 60})
    mine, _other = AccountFactory.create_batch(2)
    assert reports_per_minute(mine) is None
    assert reports_per_minute(None) == 60


def test_a_post_of_a_program_to_an_unknown_address_is_answered_with_json() -> None:
    program = Client(enforce_csrf_checks=True)
    answer = program.post("/no/such/address", {}, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = program.post("/login/", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    page = program.post("/login/", {}, headers={"Accept": "text/html"})
    assert page.headers["Content-Type"].startswith("text/html")
