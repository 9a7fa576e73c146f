"""What each role may do."""

import pytest
from django.contrib.auth.models import Group

from otaplatform.accounts.models import User
from otaplatform.accounts.roles import ADMINISTRATOR, OPERATOR, VIEWER, ensure_roles

pytestmark = pytest.mark.django_db


def test_a_viewer_looks_and_changes_nothing(viewer: User) -> None:
    assert viewer.has_perm("campaigns.view_campaign")
    verbs = {name.split(".")[1].split("_")[0] for name in viewer.get_all_permissions()}
    assert verbs == {"view"}


def test_an_operator_runs_campaigns_but_makes_no_products_or_people(operator: User) -> None:
    assert operator.has_perms(["campaigns.add_campaign", "firmware.add_firmware", "devices.change_device"])
    assert not operator.has_perm("devices.add_product")
    assert not operator.has_perm("accounts.add_user")


def test_an_administrator_makes_products_and_people_but_no_accounts(administrator: User) -> None:
    assert administrator.has_perms(["devices.add_product", "accounts.add_user", "campaigns.add_campaign"])
    assert not administrator.has_perm("accounts.add_account")
    assert not administrator.has_perm("django_celery_beat.change_periodictask")


def test_a_lost_permission_and_a_lost_role_come_back_with_the_next_migrate(operator: User) -> None:
    Group.objects.get(name=OPERATOR).permissions.clear()
    Group.objects.get(name=VIEWER).delete()
    ensure_roles()
    assert set(Group.objects.values_list("name", flat=True)) >= {VIEWER, OPERATOR, ADMINISTRATOR}
    assert User.objects.get(pk=operator.pk).has_perm("campaigns.add_campaign")


def test_what_somebody_added_to_a_role_is_kept(operator: User, administrator: User) -> None:
    extra = Group.objects.get(name=ADMINISTRATOR).permissions.get(codename="add_product")
    Group.objects.get(name=OPERATOR).permissions.add(extra)
    ensure_roles()
    assert User.objects.get(pk=operator.pk).has_perm("devices.add_product")
