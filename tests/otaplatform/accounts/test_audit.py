"""The audit log."""

import pytest

from otaplatform.accounts import audit
from otaplatform.accounts.models import AuditEntry, User
from tests.factories import ProductFactory

pytestmark = pytest.mark.django_db


def test_an_entry_still_reads_after_its_user_and_object_are_gone(operator: User) -> None:
    product = ProductFactory.create(account=operator.account, name="lamps")
    audit.record(product.account, operator, "product.changed", product, before="lights")
    product.delete()
    username = operator.username
    operator.delete()
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.actor_name, entry.object_name) == (None, username, "lamps")
    assert entry.detail == {"before": "lights"}
    assert entry.object_type == "devices.product"


def test_what_the_platform_did_has_no_user(operator: User) -> None:
    product = ProductFactory.create(account=operator.account)
    entry = audit.record(product.account_id, None, "product.created", product)
    assert (entry.actor, entry.actor_name) == (None, "")
