"""The plans for lists and searches of products."""

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from conftest import API, SignIn, User
from tests.rig.plans import plan_faults

# Enough rows for the planner to prefer a suitable index.
ROWS = {"users": 2000, "sessions": 0, "events": 0, "products": 20_000}
TABLES = {"catalog_product"}
ORDERINGS = ("created_at", "-title", "amount")
LISTS = [
    *(f"/product?ordering={ordering}" for ordering in ORDERINGS),
    *(f"/product?owner={{owner}}&ordering={ordering}" for ordering in ORDERINGS),
    *(f"/product?search={words}&ordering=title" for words in ("brass", "zirconium", "oak+linen")),
    *("/product", "/product?page=500", "/product?owner={owner}", "/product?search=zirconium"),
    "/product/{product}",
]


@pytest.mark.heavy
def test_no_list_or_search_scans_or_sorts_the_table(
    user: User, client: APIClient, console: Client, sign_in: SignIn
) -> None:
    call_command("seeddemo", **ROWS, force=True)
    sign_in(user).post(f"{API}/product", {"title": "Zirconium ring", "amount": 1})
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, owner_id FROM catalog_product LIMIT 1")
        product, owner = cursor.fetchone()
        # As VACUUM does: the index is slow while new rows are in its pending list.
        cursor.execute("SELECT gin_clean_pending_list('catalog_product_search')")
        cursor.execute("ANALYZE")

    found = {
        path: plan_faults(
            lambda path=path: client.get(API + path.format(product=product, owner=owner)), TABLES
        )
        for path in LISTS
    }
    found["console"] = plan_faults(lambda: console.get("/admin/catalog/product/"), TABLES)
    walk = client.get(f"{API}/product?page=1000").json()["next"]
    assert "cursor=" in walk
    found["cursor"] = plan_faults(lambda: client.get(walk), TABLES)

    assert {path: faults for path, faults in found.items() if faults} == {}
