"""Every change of a person, role or account is in the audit log, whoever makes it and wherever."""

from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from django_celery_beat.models import PeriodicTask
from knox.models import AuthToken
from rest_framework.test import APIClient

from otaplatform.accounts import tokens
from otaplatform.accounts.models import Account, AuditEntry, User
from otaplatform.accounts.roles import OPERATOR, VIEWER
from otaplatform.ticks import ensure_ticks
from tests.factories import AccountFactory, UserFactory

pytestmark = pytest.mark.django_db
PASSWORD = {"password1": "Kanton-1997-x", "password2": "Kanton-1997-x"}


def entries() -> list[tuple[str, str, dict[str, Any]]]:
    found = AuditEntry.objects.order_by("id")
    assert not LogEntry.objects.exists(), "there is one log"
    return [(entry.action, entry.object_name, entry.detail) for entry in found]


@pytest.fixture
def console(administrator: User, login: Any) -> Client:
    client: Client = login(administrator)
    return client


@pytest.fixture
def root(login: Any) -> Client:
    client: Client = login(UserFactory.create(account=None, is_superuser=True))
    return client


@pytest.fixture
def colleague(account: Account) -> User:
    user: User = UserFactory.create(account=account, username="zhaoliu")
    user.groups.set(Group.objects.filter(name=VIEWER))
    return user


def form_of(user: User, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "username": user.username,
        "first_name": user.first_name,
        "is_active": "on",
        "must_change_password": "on" if user.must_change_password else None,
        "groups": [group.pk for group in user.groups.all()],
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def change(console: Client, user: User, **changes: Any) -> None:
    user.refresh_from_db()
    answer = console.post(f"/accounts/user/{user.pk}/change/", form_of(user, **changes))
    assert answer.status_code == 302, answer.context["errors"]


def test_people_that_are_created_changed_and_deleted(console: Client, administrator: User) -> None:
    operator = Group.objects.get(name=OPERATOR)
    console.post("/accounts/user/add/", {"username": "zhangwei", **PASSWORD, "groups": [operator.pk]})
    user = User.objects.get(username="zhangwei")
    change(console, user, first_name="Wei", groups=[Group.objects.get(name=VIEWER).pk])
    user.refresh_from_db()
    change(console, user, is_active=None)
    user.refresh_from_db()
    change(console, user, is_active="on")
    console.post(f"/accounts/user/{user.pk}/delete/", {"post": "yes"})
    assert [(action, detail) for action, _name, detail in entries()] == [
        ("user.created", {}),
        ("user.roles_changed", {"before": [], "after": [OPERATOR]}),
        ("user.changed", {"fields": ["first_name"]}),
        ("user.roles_changed", {"before": [OPERATOR], "after": [VIEWER]}),
        ("user.deactivated", {}),
        ("user.activated", {}),
        ("user.deleted", {}),
    ]
    assert set(AuditEntry.objects.values_list("actor", "account", "object_name")) == {
        (administrator.pk, administrator.account_id, "zhangwei")
    }


def test_people_that_are_deleted_together_are_recorded_one_by_one_and_never_oneself(
    console: Client, administrator: User, colleague: User
) -> None:
    chosen = {"action": "delete_selected", "_selected_action": [colleague.pk, administrator.pk]}
    console.post("/accounts/user/", {**chosen, "post": "yes"})
    assert User.objects.filter(pk=colleague.pk).exists(), "with oneself among them nobody is deleted"
    console.post("/accounts/user/", {**chosen, "_selected_action": [colleague.pk], "post": "yes"})
    assert not User.objects.filter(pk=colleague.pk).exists()
    assert User.objects.filter(pk=administrator.pk).exists()
    assert [action for action, _name, _detail in entries()] == ["user.deleted"]


def test_roles_accounts_and_ticks(root: Client) -> None:
    root.post("/auth/group/add/", {"name": "Auditors"})
    group = Group.objects.get(name="Auditors")
    root.post(f"/auth/group/{group.pk}/change/", {"name": "Inspectors"})
    root.post(f"/auth/group/{group.pk}/delete/", {"post": "yes"})
    root.post("/accounts/account/add/", {"name": "Shenzhen"})
    account = Account.objects.get(name="Shenzhen")
    root.post(f"/accounts/account/{account.pk}/change/", {"name": "Suzhou"})
    ensure_ticks()
    tick = PeriodicTask.objects.get(name="campaigns.tasks.dispatch")
    for values in ({}, {"enabled": "on"}):
        root.post(f"/django_celery_beat/periodictask/{tick.pk}/change/", values)
    assert [(action, name) for action, name, _detail in entries()] == [
        ("role.created", "Auditors"),
        ("role.changed", "Inspectors"),
        ("role.deleted", "Inspectors"),
        ("account.created", "Shenzhen"),
        ("account.changed", "Suzhou"),
        ("tick.switched_off", "campaigns.tasks.dispatch"),
        ("tick.switched_on", "campaigns.tasks.dispatch"),
    ]


def test_what_stands_above_the_accounts_is_shown_to_superusers_only(root: Client, console: Client) -> None:
    root.post("/auth/group/add/", {"name": "Auditors"})
    assert "Auditors" in root.get("/accounts/auditentry/").content.decode()
    assert "Auditors" not in console.get("/accounts/auditentry/").content.decode()


def test_the_history_of_a_person_is_a_part_of_the_audit_log(
    console: Client, colleague: User, outsider: User
) -> None:
    change(console, colleague, first_name="Liu")
    page = console.get(f"/accounts/user/{colleague.pk}/history/", follow=True)
    assert "zhaoliu" in page.content.decode()
    assert console.get(f"/accounts/user/{outsider.pk}/history/").status_code == 404


def knocks(token: str) -> int:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return int(client.get("/api/v1/products/").status_code)


def deactivate(console: Client, user: User) -> None:
    change(console, user, is_active=None)


def reset_the_password(console: Client, user: User) -> None:
    form = {**PASSWORD, "usable_password": "true", "set-password": "1"}
    assert console.post(f"/accounts/user/{user.pk}/password/", form).status_code == 302


def reset_the_password_by_command(console: Client, user: User) -> None:
    import getpass
    from unittest.mock import patch

    with patch.object(getpass, "getpass", lambda prompt: PASSWORD["password1"]):
        call_command("changepassword", user.username, stdout=StringIO())


@pytest.mark.parametrize("happens", [deactivate, reset_the_password, reset_the_password_by_command])
def test_tokens_and_sessions_end_with_a_password_reset_and_a_deactivation(
    console: Client, colleague: User, login: Any, happens: Any
) -> None:
    token, session = tokens.issue(colleague)[1], login(colleague)
    assert (knocks(token), session.get("/").status_code) == (200, 200)
    happens(console, colleague)
    assert (knocks(token), session.get("/").status_code) == (401, 302)
    assert not AuthToken.objects.filter(user=colleague).exists()
    User.objects.filter(pk=colleague.pk).update(is_active=True)
    assert knocks(token) == 401, "it does not come back"
    assert "token.all_revoked" in [action for action, _name, _detail in entries()]


def test_a_move_to_another_account_ends_the_tokens(root: Client, colleague: User) -> None:
    token = tokens.issue(colleague)[1]
    change(root, colleague, account=AccountFactory.create().pk, is_staff="on")
    assert knocks(token) == 401


def test_one_s_own_password_is_changed_where_the_old_one_is_asked_for(
    console: Client, administrator: User
) -> None:
    before = administrator.password
    answer = console.post(f"/accounts/user/{administrator.pk}/password/", PASSWORD)
    assert answer["Location"] == "/password_change/"
    administrator.refresh_from_db()
    assert administrator.password == before


# ---- tokens ------------------------------------------------------------------------------------------


def test_an_administrator_lists_and_revokes_the_tokens_of_the_account_only(
    console: Client, administrator: User, colleague: User, outsider: User, account: Account
) -> None:
    mighty = UserFactory.create(account=account, is_superuser=True)
    rows = {user: tokens.issue(user) for user in (colleague, outsider, mighty, administrator)}
    page = console.get("/me/tokens/").content.decode()
    assert {user for user, (row, _text) in rows.items() if row.token_key in page} == {
        colleague,
        administrator,
    }
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {rows[administrator][1]}")
    assert len(client.get("/api/v1/tokens/").json()["results"]) == 1
    listed = client.get("/api/v1/tokens/?everybody=true").json()["results"]
    assert {row["user"] for row in listed} == {"zhaoliu", administrator.username}
    for user in (outsider, mighty):
        assert client.delete(f"/api/v1/tokens/{rows[user][0].token_key}/").status_code == 404
        console.post(f"/me/tokens/{rows[user][0].token_key}/revoke/")
        assert knocks(rows[user][1]) == 200
    console.post(f"/me/tokens/{rows[colleague][0].token_key}/revoke/")
    assert knocks(rows[colleague][1]) == 401
    assert entries()[-1][:2] == ("token.revoked", "zhaoliu")


def test_others_see_and_revoke_their_own_tokens_only(colleague: User, operator: User) -> None:
    (row, text), (_own, own) = tokens.issue(colleague), tokens.issue(operator)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {own}")
    assert len(client.get("/api/v1/tokens/?everybody=true").json()["results"]) == 1
    assert client.delete(f"/api/v1/tokens/{row.token_key}/").status_code == 404
    assert knocks(text) == 200


@pytest.mark.parametrize("role", ["viewer", "administrator"])
def test_no_way_makes_a_token_that_works_longer_than_the_setting(
    request: pytest.FixtureRequest, login: Any, settings: Any, role: str
) -> None:
    settings.OTA_TOKEN_MAX_DAYS = 30
    user = request.getfixturevalue(role)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {tokens.issue(user)[1]}")
    assert client.post("/api/v1/tokens/", {"days": 31}).status_code == 400
    assert client.post("/api/v1/tokens/", {"days": 30}).status_code == 201
    assert client.post("/api/v1/tokens/", {}).status_code == 201
    page = login(user)
    page.post("/me/tokens/", {"days": 90})
    page.post("/me/tokens/", {"days": 30})
    call_command("create_token", user.username, "--days", "30", stdout=StringIO())
    with pytest.raises(CommandError, match="at most 30 days"):
        call_command("create_token", user.username, "--days", "31", stdout=StringIO())
    lives = {(row.expiry - row.created).days for row in AuthToken.objects.filter(user=user)}
    assert AuthToken.objects.filter(user=user).count() == 5
    assert max(lives) <= 30


def test_an_address_that_sends_wrong_tokens_is_refused_before_the_next_is_looked_up(
    operator: User, settings: Any, django_assert_num_queries: Any
) -> None:
    settings.OTA_API_AUTH_FAILURES = 3
    cache.clear()
    token = tokens.issue(operator)[1]
    assert [knocks("0" * 64) for _ in range(4)] == [401, 401, 401, 429]
    with django_assert_num_queries(0):
        assert knocks(token) == 429
    elsewhere = APIClient(REMOTE_ADDR="192.0.2.7")
    elsewhere.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert elsewhere.get("/api/v1/products/").status_code == 200
