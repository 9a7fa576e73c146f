"""What a batch of changes came to, collected on the way through it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Applied:
    """Campaigns whose page has news, whether something became ready to push, and counters still to write."""

    campaigns: set[int] = field(default_factory=set)
    ready: bool = False
    # {(campaign id, status): difference}, written last in the transaction.
    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
