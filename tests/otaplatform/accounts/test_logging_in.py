"""The door of the console: who may try how often, and what the audit log has of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from otaplatform.accounts import login_limits
from otaplatform.accounts.forms import LONGEST_PASSWORD
from otaplatform.accounts.login_limits import Attempt
from otaplatform.accounts.models import AuditEntry, LoginCounter, User
from otaplatform.core.throttling import client_address
from tests.factories import UserFactory

PASSWORD = "Kanton-1997-x"
pytestmark = pytest.mark.django_db


@pytest.fixture
def user(administrator: User, settings: Settings) -> User:
    settings.OTA_LOGIN_FAILURES = 3
    administrator.set_password(PASSWORD)
    administrator.save()
    return administrator


def enter(name: str, password: str, address: str = "192.0.2.1", **headers: str) -> Any:
    client = Client(REMOTE_ADDR=address, headers=headers)
    answer = client.post("/login/", {"username": name, "password": password})
    answer.logged_in = "_auth_user_id" in client.session
    return answer


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def test_after_too_many_failures_not_even_the_right_password_is_looked_at(user: User) -> None:
    for _ in range(3):
        assert enter(user.username, "wrong").status_code == 200
    answer = enter(user.username, PASSWORD)
    assert (answer.status_code, answer.logged_in) == (429, False)
    assert 0 < int(answer["Retry-After"]) <= 15 * 60
    assert "Try again in 15 minutes." in answer.content.decode()
    chinese = enter(user.username, PASSWORD, **{"Accept-Language": "zh-CN"})
    assert "15 分钟" in chinese.content.decode()
    assert actions() == ["user.login_failed"] * 3 + ["user.login_blocked"]
    entry = AuditEntry.objects.latest("id")
    assert (entry.account, entry.object_name, entry.detail["address"]) == (
        user.account,
        user.username,
        "192.0.2.1",
    )


def test_another_address_and_another_user_still_get_in(user: User) -> None:
    for _ in range(4):
        enter(user.username, "wrong")
    assert enter(user.username, PASSWORD, "192.0.2.2").logged_in
    colleague = UserFactory.create(account=user.account)
    colleague.set_password(PASSWORD)
    colleague.save()
    assert enter(colleague.username, PASSWORD).logged_in


def test_an_address_that_tries_many_names_is_blocked_for_all_of_them(user: User) -> None:
    for number in range(15):
        enter(f"name-{number}", "wrong")
    rows = LoginCounter.objects.count()
    assert enter("another", "wrong").status_code == 429
    assert enter(user.username, PASSWORD).status_code == 429
    assert LoginCounter.objects.count() == rows, "a blocked address makes no more rows"


def test_a_user_who_is_attacked_from_everywhere_is_blocked_everywhere(user: User) -> None:
    for number in range(30):
        enter(user.username, "wrong", f"198.51.100.{number}")
    assert enter(user.username, PASSWORD, "192.0.2.9").status_code == 429


def test_the_wait_ends_and_a_success_forgets_the_failures(user: User) -> None:
    for _ in range(4):
        enter(user.username, "wrong")
    LoginCounter.objects.update(started_at=timezone.now() - timedelta(minutes=16))
    for _ in range(5):
        assert enter(user.username, "wrong").status_code == 200
        assert enter(user.username, PASSWORD).logged_in
    assert LoginCounter.objects.filter(kind="address").get().count == 5


def test_what_stands_behind_a_forwarded_header_is_believed_from_a_proxy_only(user: User) -> None:
    for number in range(3):
        enter(user.username, "wrong", **{"X-Forwarded-For": f"203.0.113.{number}"})
    assert enter(user.username, PASSWORD, **{"X-Forwarded-For": "203.0.113.9"}).status_code == 429


def test_addresses_of_one_network_of_ipv6_count_together(rf: Any) -> None:
    first, second, third = (
        client_address(rf.get("/", REMOTE_ADDR=address))
        for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")
    )
    assert first == second != third
    assert client_address(rf.get("/", REMOTE_ADDR="::ffff:192.0.2.1")) == "192.0.2.1"


def test_what_was_typed_as_a_name_that_nobody_has_is_kept_nowhere(user: User) -> None:
    typed = "oh-no-my-password-1997"
    for _ in range(4):
        enter(typed, "wrong")
    kept = [str(row) for row in (*LoginCounter.objects.values(), *AuditEntry.objects.values())]
    assert kept
    assert [row for row in kept if typed in row] == []
    assert AuditEntry.objects.filter(account=None).count() == 4


def test_somebody_who_left_or_is_no_staff_is_told_the_same_as_a_wrong_password(user: User) -> None:
    said = set()
    for change in ({"is_active": False}, {"is_active": True, "is_staff": False}):
        User.objects.filter(pk=user.pk).update(**change)
        answer = enter(user.username, PASSWORD)
        assert not answer.logged_in
        said.add(str(answer.context["form"].non_field_errors()))
        login_limits.forgive(Attempt(user.username, user, "192.0.2.1"))
    said.add(str(enter("nobody", PASSWORD).context["form"].non_field_errors()))
    assert len(said) == 1


def test_a_password_longer_than_any_is_refused_before_it_is_hashed(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    hasher = hashers.get_hasher()
    monkeypatch.setattr(type(hasher), "encode", lambda *args: hashed.append("") or "")
    assert not enter(user.username, "x" * (LONGEST_PASSWORD + 1)).logged_in
    assert hashed == []
    assert not LoginCounter.objects.exists()


def test_an_unknown_name_costs_one_hash_and_a_blocked_attempt_none(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        "django.contrib.auth.hashers.MD5PasswordHasher.encode", lambda *args: hashed.append("") or "md5$a$b"
    )
    enter("nobody", "wrong")
    assert len(hashed) == 1
    for _ in range(3):
        enter("nobody", "wrong")
    assert len(hashed) == 3


def test_passwords_are_stored_as_argon2_and_older_hashes_are_renewed(user: User, settings: Settings) -> None:
    from otaplatform import settings as ours

    settings.PASSWORD_HASHERS = ours.PASSWORD_HASHERS
    assert hashers.make_password(PASSWORD).startswith("argon2")
    User.objects.filter(pk=user.pk).update(password=hashers.make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert enter(user.username, PASSWORD).logged_in
    user.refresh_from_db()
    assert user.password.startswith("argon2")


def test_log_in_and_log_out_are_audited(user: User) -> None:
    client = Client()
    client.post("/login/", {"username": user.username, "password": PASSWORD})
    client.post("/logout/")
    assert "_auth_user_id" not in client.session
    assert actions() == ["user.logged_in", "user.logged_out"]
    assert set(AuditEntry.objects.values_list("actor", "account")) == {(user.pk, user.account_id)}


def test_a_session_gets_a_new_key_at_the_log_in_and_when_the_password_changes(user: User) -> None:
    client, elsewhere = Client(), Client()
    client.get("/login/")
    keys = []
    for browser in (client, elsewhere):
        browser.post("/login/", {"username": user.username, "password": PASSWORD})
    keys.append(client.session.session_key)
    form = {"old_password": PASSWORD, "new_password1": "Peking-2008-y", "new_password2": "Peking-2008-y"}
    assert client.post("/password_change/", form).status_code == 302
    keys.append(client.session.session_key)
    assert len(set(keys)) == 2
    assert client.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302, "the other browser is logged out"


def test_an_administrator_sees_the_own_people_s_failures_and_lets_them_in_again(
    user: User, login: Any
) -> None:
    colleague = UserFactory.create(account=user.account, username="zhaoliu")
    foreign = UserFactory.create(username="somebody-elses")
    for name in (colleague.username, foreign.username, "nobody"):
        for _ in range(4):
            enter(name, "wrong")
    browser = login(user)
    page = browser.get("/accounts/logincounter/").content.decode()
    assert "zhaoliu" in page
    assert "somebody-elses" not in page
    mine = LoginCounter.objects.filter(user=colleague)
    theirs = LoginCounter.objects.filter(user=foreign)
    chosen = [row.pk for row in (*mine, *theirs)]
    browser.post("/accounts/logincounter/", {"action": "unblock", "_selected_action": chosen})
    assert not mine.all().exists()
    assert theirs.all().exists()
    assert "user.login_unblocked" in actions()


def test_somebody_who_only_looks_does_not_see_failed_log_ins(viewer: User, login: Any) -> None:
    assert login(viewer).get("/accounts/logincounter/").status_code == 403


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_attempts_at_the_same_moment_do_not_slip_through(settings: Settings) -> None:
    settings.OTA_LOGIN_FAILURES = 3
    attempt = Attempt("zhangwei", None, "192.0.2.1")
    start = threading.Barrier(8)

    def run(claim: Any) -> bool:
        try:
            start.wait()
            return bool(claim())
        finally:
            connection.close()

    def together(claim: Any) -> int:
        with ThreadPoolExecutor(8) as threads:
            return sum(threads.map(run, [claim] * 8))

    assert together(lambda: login_limits.claim(attempt) is None) == 3

    # The control: looking first and counting afterwards lets more through.
    LoginCounter.objects.all().delete()
    between = threading.Barrier(8)

    def look_then_count() -> bool:
        found = LoginCounter.objects.filter(kind="user_and_address").first()
        may = found is None or found.count < 3
        between.wait()
        login_limits.claim(attempt)
        return may

    assert together(look_then_count) == 8
