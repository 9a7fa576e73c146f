"""How many devices there are: from stored counters, and connections from the narrow presence table."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Sum

from devices.models import DevicePresence, Product, ProductCounter
from otaplatform.accounts.models import Account


@dataclass(frozen=True, slots=True)
class Totals:
    registered: int
    activated: int


def totals(account: Account | None) -> Totals:
    """Devices of an account (None: of all) that are registered, and that have connected at least once."""
    counters = ProductCounter.objects.all()
    if account is not None:
        counters = counters.filter(product__account=account)
    found = dict(counters.values_list("kind").annotate(n=Sum("count")))
    return Totals(found.get(ProductCounter.Kind.REGISTERED, 0), found.get(ProductCounter.Kind.ACTIVATED, 0))


def online(account: Account | None, now: datetime | None = None) -> int:
    """Devices of an account (None: of all) that are connected now."""
    rows = DevicePresence.objects.online(now)
    # Presence rows know no account; where there is but one, the costly join is spared.
    if account is not None and Product.objects.exclude(account=account).exists():
        rows = rows.filter(device__product__account=account)
    return rows.count()


def registered(products: list[Product]) -> dict[int, int]:
    """{product id: registered devices} of these products, in one query."""
    rows = (
        ProductCounter.objects.filter(product__in=products, kind=ProductCounter.Kind.REGISTERED)
        .values_list("product_id")
        .annotate(n=Sum("count"))
    )
    return {product.pk: 0 for product in products} | dict(rows)
