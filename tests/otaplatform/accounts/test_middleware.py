"""Language and time zone of each person, and the password that must be changed first."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone, translation

from otaplatform.accounts.middleware import ZONE_COOKIE, preferences
from otaplatform.accounts.models import User

pytestmark = pytest.mark.django_db
Login = Callable[[User], Client]


def seen_by(user: User, zone: str = "") -> tuple[str, str]:
    """The time zone and language in which a page of this user is made."""
    seen = []

    def page(request: HttpRequest) -> HttpResponse:
        seen.append((timezone.get_current_timezone_name(), translation.get_language()))
        return HttpResponse()

    request = RequestFactory().get("/")
    request.user = user
    if zone:
        request.COOKIES[ZONE_COOKIE] = zone
    with translation.override("en"):
        preferences(page)(request)
    return seen[0]


def test_a_page_is_made_in_the_users_own_zone_and_language(operator: User) -> None:
    operator.time_zone, operator.language = "Asia/Shanghai", "zh-hans"
    assert seen_by(operator, zone="Europe/Paris") == ("Asia/Shanghai", "zh-hans")


def test_a_new_user_takes_the_zone_of_the_browser(operator: User) -> None:
    assert seen_by(operator, zone="Europe/Paris")[0] == "Europe/Paris"
    operator.refresh_from_db()
    assert operator.time_zone == "Europe/Paris"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "\0", "a" * 5000])
def test_a_zone_that_does_not_exist_is_ignored(operator: User, zone: str) -> None:
    assert seen_by(operator, zone=zone)[0] == "UTC"


def test_the_zone_of_one_request_does_not_leak_into_the_next(operator: User, viewer: User) -> None:
    operator.time_zone = "Asia/Shanghai"
    seen_by(operator)
    assert seen_by(viewer)[0] == "UTC"
    assert timezone.get_current_timezone() == ZoneInfo("UTC")


@pytest.fixture
def new_user(operator: User) -> User:
    operator.must_change_password = True
    operator.set_password("first-password-given")
    operator.save()
    return operator


def test_a_password_given_by_somebody_else_must_be_changed_first(new_user: User, login: Login) -> None:
    response = login(new_user).get(reverse("admin:index"))
    assert (response.status_code, response.headers["Location"]) == (302, reverse("admin:password_change"))


def test_nothing_but_the_new_password_can_be_posted(new_user: User, login: Login) -> None:
    response = login(new_user).post(reverse("admin:index"), {"anything": 1})
    assert response.headers["Location"] == reverse("admin:password_change")


def test_changing_it_opens_the_console(new_user: User, login: Login) -> None:
    browser = login(new_user)
    response = browser.post(
        reverse("admin:password_change"),
        {
            "old_password": "first-password-given",
            "new_password1": "my-own-Choice-77",
            "new_password2": "my-own-Choice-77",
        },
    )
    assert response.status_code == 302
    new_user.refresh_from_db()
    assert not new_user.must_change_password
    assert browser.get(reverse("admin:index")).status_code == 200


def test_logging_out_is_always_possible(new_user: User, login: Login) -> None:
    assert login(new_user).post(reverse("admin:logout")).status_code == 200
