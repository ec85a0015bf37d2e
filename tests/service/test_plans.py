"""How PostgreSQL means to response what is asked most: by indexes, whatever the tables' size."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API, PASSWORD, SignIn

# Enough rows for the planner to prefer a suitable index.
ROWS = {"users": 2000, "sessions": 20_000, "events": 20_000, "products": 20_000}
TABLES = {"accounts_user", "accounts_session", "accounts_event", "catalog_product"}
INDEX_SCANS = {"Index Scan", "Index Only Scan"}
LISTS = [
    *(f"/product?ordering={order}" for order in ("created_at", "-title", "amount")),
    *(f"/product?owner={{owner}}&ordering={order}" for order in ("created_at", "-title", "amount")),
    *(f"/product?search={words}&ordering=title" for words in ("brass", "zirconium", "oak+linen")),
    *("/product", "/product?page=500", "/product?owner={owner}", "/product?search=zirconium"),
    *("/product/{product}", "/users/me", "/auth/sessions", "/auth/events"),
]
CONSOLE = ["accounts/user", "accounts/session", "accounts/event", "catalog/product"]


def faults(sql: str) -> list[str]:
    """Return the scans and sorts in a statement's plan that grow with a table."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}")
        [(plans,)] = cursor.fetchall()
    plan = plans if isinstance(plans, list) else json.loads(plans)
    return [f"{fault}: {sql}" for fault in walk(plan[0]["Plan"], bounded=False)]


def walk(plan: dict[str, Any], *, bounded: bool) -> Iterator[str]:
    """Yield scans and sorts of a table; below a LIMIT a scan without a filter stops early."""
    kind = plan["Node Type"]
    is_early = bounded and "Filter" not in plan
    is_whole = kind == "Seq Scan" or (kind in INDEX_SCANS and "Index Cond" not in plan)
    if is_whole and plan["Relation Name"] in TABLES and not is_early:
        yield f"a scan of {plan['Relation Name']}"
    if "Sort" in kind and plan["Plan Rows"] > 1000:
        yield f"a sort of {plan['Plan Rows']} rows"
    for below in plan.get("Plans", []):
        yield from walk(below, bounded=kind == "Limit" or (bounded and kind == "Nested Loop"))


@pytest.fixture
def plan_faults(db: None) -> Callable[..., list[str]]:
    """Return a function that makes a call and returns the faults of its query plans."""

    def plan_faults(call: Callable[[], Any]) -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            response = call()
        assert response.status_code < 300, response.content
        statements = [query["sql"] for query in queries.captured_queries]
        asked = [sql for sql in statements if sql.split()[0] in {"SELECT", "UPDATE", "WITH"}]
        assert asked
        return [fault for sql in asked for fault in faults(sql)]

    return plan_faults


def test_no_hot_query_scans_or_sorts_a_table(
    plan_faults: Callable[..., list[str]],
    user: User,
    make_user: Callable[..., User],
    sign_in: SignIn,
    client: APIClient,
    settings: Settings,
) -> None:
    settings.AUTH_RATE_LIMIT = (1000, 60)
    for _ in range(12):
        device = sign_in(user)
    call_command("seeddemo", **ROWS, force=True)
    device.post(f"{API}/product", {"title": "Zirconium ring", "amount": 1})
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, owner_id FROM catalog_product LIMIT 1")
        product, owner = cursor.fetchone()
        # As VACUUM does: the index is slow while new rows are in its pending list.
        cursor.execute("SELECT gin_clean_pending_list('catalog_product_search')")
        cursor.execute("ANALYZE")

    found = {
        path: plan_faults(
            lambda path=path: device.get(API + path.format(product=product, owner=owner))
        )
        for path in LISTS
    }
    browser = Client()
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    found |= {
        path: plan_faults(lambda path=path: browser.get(f"/admin/{path}/")) for path in CONSOLE
    }
    walk = device.get(f"{API}/product?page=1000").json()["next"]
    assert "cursor=" in walk
    found["cursor"] = plan_faults(lambda: device.get(walk))
    login = {"identity": user.email, "password": PASSWORD}
    token = {"refresh_token": device.tokens["refresh_token"]}
    found["refresh"] = plan_faults(lambda: client.post(f"{API}/auth/refresh", token))
    found["login"] = plan_faults(lambda: client.post(f"{API}/auth/login", login))
    found["logout"] = plan_faults(lambda: device.post(f"{API}/auth/logout"))

    assert {path: faults for path, faults in found.items() if faults} == {}


def test_a_plan_with_a_scan_is_detected(db: None) -> None:
    call_command("seeddemo", users=10, sessions=0, events=0, products=2000, force=True)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE catalog_product")

    (fault,) = faults("SELECT * FROM catalog_product WHERE description LIKE '%of many%' LIMIT 5")
    assert fault.startswith("a scan of catalog_product")
    (fault,) = faults("SELECT * FROM catalog_product ORDER BY updated_at")[:1]
    assert fault.startswith("a sort of 2000 rows")
    (fault,) = faults("SELECT count(*) FROM catalog_product")
    assert fault.startswith("a scan of catalog_product")
