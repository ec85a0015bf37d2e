"""Demo products for `manage.py seeddemo`."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from catalog.models import Product

ADJECTIVES = ["brass", "oak", "paper", "linen", "glass", "copper", "walnut"]
NOUNS = ["lamp", "table", "kettle", "chair", "mirror", "clock", "basket", "shelf", "vase"]


def products(numbers: range, owners: Sequence[Any]) -> Iterator[Product]:
    now = timezone.now()
    for n in numbers:
        words = f"{ADJECTIVES[n % len(ADJECTIVES)]} {NOUNS[n % len(NOUNS)]}"
        yield Product(
            owner=owners[n % len(owners)],
            title=f"{words.title()} {n}",
            description=f"A {words}, one of many, marked {random.getrandbits(128):032x}.",
            amount=n % 1000,
            created_at=now - timedelta(days=90 * random.random()),
        )


ROWS = {"products": (500, products)}
