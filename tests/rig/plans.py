"""The plans of PostgreSQL for a request: scans and sorts that grow with a table."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

INDEX_SCANS = {"Index Scan", "Index Only Scan"}


def faults(sql: str, tables: set[str]) -> list[str]:
    """Return the scans of the tables, and the sorts, in a statement's plan."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}")
        [(plans,)] = cursor.fetchall()
    plan = plans if isinstance(plans, list) else json.loads(plans)
    found = walk(plan[0]["Plan"], tables, bounded=False)
    return [f"{fault}: {sql}" for fault in found]


def walk(plan: dict[str, Any], tables: set[str], *, bounded: bool) -> Iterator[str]:
    """Yield scans and sorts of a table; below a LIMIT a scan without a filter stops early."""
    kind = plan["Node Type"]
    is_early = bounded and "Filter" not in plan
    is_whole = kind == "Seq Scan" or (kind in INDEX_SCANS and "Index Cond" not in plan)
    if is_whole and plan["Relation Name"] in tables and not is_early:
        yield f"a scan of {plan['Relation Name']}"
    if "Sort" in kind and plan["Plan Rows"] > 1000:
        yield f"a sort of {plan['Plan Rows']} rows"
    for below in plan.get("Plans", []):
        is_limited = kind == "Limit" or (bounded and kind == "Nested Loop")
        yield from walk(below, tables, bounded=is_limited)


def plan_faults(call: Callable[[], Any], tables: set[str]) -> list[str]:
    """Make a call and return the faults of its query plans."""
    with CaptureQueriesContext(connection) as queries:
        response = call()
    assert response.status_code < 300, response.content
    statements = [query["sql"] for query in queries.captured_queries]
    asked = [sql for sql in statements if sql.split()[0] in {"SELECT", "UPDATE", "WITH"}]
    assert asked
    return [fault for sql in asked for fault in faults(sql, tables)]
