"""People, accounts and the audit log, as an Administrator and as a superuser see them."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django_celery_beat.models import PeriodicTask

from otaplatform.accounts import audit
from otaplatform.accounts.models import AuditEntry, User
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR
from otaplatform.ticks import ensure_ticks
from tests.factories import ProductFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def administrator() -> User:
    user: User = UserFactory()
    user.groups.set(Group.objects.filter(name=ADMINISTRATOR))
    return user


@pytest.fixture
def client(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(UserFactory(is_superuser=True))
    return client


def group(name: str) -> int:
    return Group.objects.get(name=name).pk


NEW: dict[str, Any] = {
    "username": "zhangwei",
    "password1": "Kanton-1997-x",
    "password2": "Kanton-1997-x",
}


def test_an_administrator_adds_people_to_the_own_account_only(client: Client, administrator: User) -> None:
    elsewhere = UserFactory().account.pk
    form = {**NEW, "groups": [group(OPERATOR)], "account": elsewhere, "is_superuser": "on"}
    assert client.post("/accounts/user/add/", form).status_code == 302
    user = User.objects.get(username="zhangwei")
    assert user.account == administrator.account
    assert (user.is_staff, user.is_superuser, user.must_change_password) == (True, False, True)
    assert [row.name for row in user.groups.all()] == [OPERATOR]


def test_an_administrator_hands_out_the_three_roles_only(client: Client) -> None:
    mighty = Group.objects.create(name="Mighty")
    answer = client.post("/accounts/user/add/", {**NEW, "groups": [mighty.pk]})
    assert answer.status_code == 200
    assert not User.objects.filter(username="zhangwei").exists()


def test_an_administrator_cannot_raise_anybody_to_superuser(client: Client, administrator: User) -> None:
    form = {
        "username": administrator.username,
        "is_superuser": "on",
        "is_active": "on",
        "groups": [group(OPERATOR)],
    }
    assert client.post(f"/accounts/user/{administrator.pk}/change/", form).status_code == 302
    administrator.refresh_from_db()
    assert not administrator.is_superuser


@pytest.mark.parametrize("page", ["change/", "password/", "delete/"])
def test_people_of_other_accounts_and_superusers_are_out_of_reach(
    client: Client, administrator: User, page: str
) -> None:
    for target in (UserFactory(), UserFactory(account=administrator.account, is_superuser=True)):
        form = {"password1": NEW["password1"], "password2": NEW["password2"], "post": "yes"}
        before = target.password
        assert client.post(f"/accounts/user/{target.pk}/{page}", form).status_code in (302, 404)
        target.refresh_from_db()
        assert target.password == before


def test_a_password_that_an_administrator_sets_is_changed_at_the_next_login(
    client: Client, administrator: User
) -> None:
    target = UserFactory(account=administrator.account)
    form = {"password1": NEW["password1"], "password2": NEW["password2"], "usable_password": "true"}
    assert client.post(f"/accounts/user/{target.pk}/password/", form).status_code == 302
    target.refresh_from_db()
    assert target.check_password(NEW["password1"])
    assert target.must_change_password


def test_nobody_deletes_oneself(client: Client, administrator: User) -> None:
    assert client.post(f"/accounts/user/{administrator.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    "address", ["/accounts/account/", "/auth/group/", "/django_celery_beat/periodictask/"]
)
def test_pages_above_the_accounts_are_for_superusers(client: Client, address: str) -> None:
    assert client.get(address).status_code == 403


def test_the_audit_log_shows_the_own_account_and_cannot_be_changed(
    client: Client, administrator: User
) -> None:
    own = audit.record(
        administrator.account_id,
        administrator,
        "product.created",
        ProductFactory(account=administrator.account),
    )
    foreign = ProductFactory(name="foreign_product")
    audit.record(foreign.account, None, "product.created", foreign)
    html = client.get("/accounts/auditentry/").content.decode()
    assert own.object_name in html
    assert foreign.name not in html
    assert client.get("/accounts/auditentry/add/").status_code == 403
    for page in ("change/", "delete/"):
        client.post(f"/accounts/auditentry/{own.pk}/{page}", {"post": "yes", "actor_name": "x"})
    assert AuditEntry.objects.get(pk=own.pk).actor_name == administrator.username


def test_a_superuser_switches_a_tick_off_but_can_neither_retime_nor_delete_nor_add_one(
    root: Client,
) -> None:
    ensure_ticks()
    tick = PeriodicTask.objects.get(name="campaigns.tasks.dispatch")
    address, seconds = f"/django_celery_beat/periodictask/{tick.pk}", tick.interval.every
    assert root.post(f"{address}/change/", {"name": "mine", "interval": "1"}).status_code == 302
    tick.refresh_from_db()
    assert (tick.enabled, tick.name, tick.interval.every) == (False, "campaigns.tasks.dispatch", seconds)
    assert root.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
    assert root.get("/django_celery_beat/periodictask/add/").status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": str(tick.pk), "post": "yes"}
    root.post("/django_celery_beat/periodictask/", chosen)
    assert PeriodicTask.objects.filter(pk=tick.pk).exists()
