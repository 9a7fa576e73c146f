"""People and their browsers, for every test that opens a page or an API."""

import os
import shutil
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.utils import timezone, translation

from otaplatform.accounts.models import Account, User
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR, VIEWER
from tests.factories import AccountFactory, UserFactory

Login = Callable[[User], Client]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The order in which the tests ran, also where the quiet output leaves out the header."""
    seed = config.getoption("randomly_seed", None)
    if seed is not None:
        terminalreporter.write_line(f"Random order: the same again with --randomly-seed={seed}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    # A page that an earlier test asked for left its reader's language and zone behind.
    translation.deactivate()
    timezone.deactivate()
    if item.get_closest_marker("postgres") and connection.vendor != "postgresql":
        pytest.skip("only on PostgreSQL: set DATABASE_URL")


@pytest.fixture
def program() -> Callable[[str], str]:
    """The path of a program from outside; a machine without it skips the test, CI fails."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
        return path

    return find


def _person(role: str, **values: object) -> User:
    user = UserFactory.create(**values)
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def account(db: None) -> Account:
    return AccountFactory.create()


@pytest.fixture
def administrator(account: Account) -> User:
    return _person(ADMINISTRATOR, account=account)


@pytest.fixture
def operator(account: Account) -> User:
    return _person(OPERATOR, account=account)


@pytest.fixture
def viewer(account: Account) -> User:
    return _person(VIEWER, account=account)


@pytest.fixture
def outsider(db: None) -> User:
    """An administrator, but of another account."""
    return _person(ADMINISTRATOR)


@pytest.fixture
def login() -> Login:
    """A browser in which this person is logged in: `login(operator).get("/")`."""

    def enter(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return enter
