"""`make scale`: the cost of requests at 1,000 rows and at 1,000,000 (10,000,000 events)."""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench import sides
from bench.world import (
    Comparison,
    Endpoint,
    Postgres,
    Service,
    compare,
    drive,
    postgres_server,
)
from tests.rig.machine import ROOT
from tests.rig.redis import Redis

SMALL = {"users": 100, "sessions": 1000, "events": 1000, "products": 1000}
LARGE = {"users": 20_000, "sessions": 1_000_000, "events": 10_000_000, "products": 1_000_000}
DEMANDED = 1.2
Side = tuple[Service, Endpoint]
# Words in one of 7 products, in one of 77, in some 7,000 and in 200. Then two pairs of words that no
# product has together; many products have every trigram of the first word of the second pair.
SEARCHES = ("brass", "brass+lamp", "abc", "zirconium", "brass+paper", "paperbrass+oak")
ORDERINGS = ("-created_at", "created_at", "title", "-amount")
# In both databases: 200 rows with a word that no other row has.
RARE = """
    INSERT INTO catalog_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT (SELECT min(id) FROM accounts_user), 'Zirconium ring ' || n, '', 1,
           now() - random() * interval '90 days', now() FROM generate_series(1, 200) n
"""
STAFF = """
import json
from django.contrib.auth import get_user_model
from django.test import Client
boss = get_user_model().objects.create_superuser("boss", "boss@example.com", "a sunny day in May")
client = Client()
client.force_login(boss)
print(json.dumps(client.cookies["sessionid"].value))
"""
OVER = """
    UPDATE accounts_session SET created_at = created_at - interval '90 days',
           last_used_at = last_used_at - interval '90 days',
           expires_at = expires_at - interval '90 days',
           ended_at = ended_at - interval '90 days'
     WHERE user_agent = 'seeddemo'
"""
# Cursors at the end of the pages and in the middle of the table.
CURSORS = """
import json
from catalog.models import Product
from api.keysets import Keyset
products = Product.objects.defer("search_text").order_by("-created_at", "-pk")
keyset = Keyset(products, 10)
rows = [products[place] for place in (9_999, products.count() // 2)]
print(json.dumps([keyset.cursor(keyset.values(row)) for row in rows]))
"""
LONGEST = """
    SELECT max(max_exec_time) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
     WHERE d.datname = %s AND (query ILIKE 'DELETE%%' OR query ILIKE '%%FOR UPDATE%%')
"""


def page(name: str, path: str) -> Endpoint:
    return Endpoint(name, lambda service, who: ("GET", path, None))


def pairs(small: Service, large: Service) -> list[tuple[Side, Side]]:
    """Pair requests; a deep page is compared with the last page of the small table."""
    same = [
        sides.get("product list", "/product"),
        sides.get("product list by title", "/product?ordering=title"),
        sides.get("product list by amount", "/product?ordering=-amount"),
        sides.get("product list of an owner", "/product?owner=5"),
        sides.get("product search, 200 match", "/product?search=zirconium"),
        sides.get("product by id", "/product/500"),
        sides.get("the caller", "/users/me"),
        sides.get("session list", "/auth/sessions"),
        sides.refresh("", ("refresh_token", "refresh_token")),
        page("console: sessions", "/admin/accounts/session/"),
        page("console: users", "/admin/accounts/user/"),
        page("console: events", "/admin/accounts/event/"),
        page("console: products", "/admin/catalog/product/"),
    ]
    last = sides.get("product list, page 500", "/product?page=100")
    ends, middle = (sides.get("cursor, deep", f"/product?cursor={c}") for c in large.ask(CURSORS))
    return [
        *(((large, endpoint), (small, endpoint)) for endpoint in same),
        ((large, sides.get(last.name, "/product?page=500")), (small, last)),
        ((large, middle), (large, ends)),
    ]


def search(service: Service, times: int = 25) -> dict[str, dict[str, float]]:
    """Return the latency of searches in each ordering, in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    found = {}
    for words in SEARCHES:
        took = []
        for ordering in ORDERINGS * times:
            began = time.monotonic()
            connection.request("GET", f"/api/v1/product?search={words}&ordering={ordering}")
            response = connection.getresponse()
            body = response.read()
            took.append(1000 * (time.monotonic() - began))
            if response.status != 200:
                raise SystemExit(f"a search for {words} failed: {body!r}")
        took.sort()
        found[words] = {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]}
    return found


def prune(postgres: Postgres, service: Service) -> dict[str, float]:
    """Prune a million ended sessions while clients refresh; times are in seconds and ms."""
    postgres.execute(OVER, database=service.database)
    postgres.settle(service.database)
    postgres.execute("SELECT pg_stat_statements_reset()")
    found: dict[str, float] = {}

    def run() -> None:
        began = time.monotonic()
        command = [sys.executable, "manage.py", "prunesessions"]
        environment = os.environ | service.environment
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        found["seconds"] = time.monotonic() - began

    thread = threading.Thread(target=run)
    thread.start()
    refresh = sides.refresh("", ("refresh_token", "refresh_token"))
    rounds = []
    while thread.is_alive():
        rounds.append(drive(postgres, service, refresh, 5))
    [(longest,)] = postgres.execute(LONGEST, [service.database])
    return {
        **found,
        "longest_statement_ms": float(longest),
        "refresh_p99_ms": max(r.p99 for r in rounds),
        "refreshes_a_second": statistics.median(r.rate for r in rounds),
    }


def growth(found: Comparison) -> dict[str, Any]:
    """Return the CPU time of a request, application and PostgreSQL together, and its growth."""
    large, small = ([r.cpu + r.postgres_cpu for r in side] for side in (found.ours, found.theirs))
    ratios = sorted(a / b for a, b in zip(large, small, strict=True))
    return {
        "name": found.name,
        "small": statistics.median(small),
        "large": statistics.median(large),
        "growth": statistics.median(ratios),
        "spread": [ratios[0], ratios[-1]],
        "p99": [found.median(which, "p99") for which in ("theirs", "ours")],
    }


def line(row: dict[str, Any]) -> None:
    costs = f"{row['small']:.2f} | {row['large']:.2f}"
    ratio = f"{row['growth']:.2f} ({row['spread'][0]:.2f}-{row['spread'][1]:.2f})"
    p99 = f"{row['p99'][0]:.0f} | {row['p99'][1]:.0f}"
    verdict = "" if row["growth"] <= DEMANDED else f"  NOT <= {DEMANDED}"
    print(f"{row['name']:30}{costs:>40}{ratio:>20}{p99:>14}{verdict}", flush=True)


def fill(postgres: Postgres, service: Service, rows: dict[str, int]) -> None:
    sides.fill_ours(postgres, service, **rows)
    postgres.execute(RARE, database=service.database)
    postgres.settle(service.database)
    cookie = service.ask(STAFF)
    for who in service.clients:
        who["cookie"] = f"sessionid={cookie}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the results")
    for name, rows in LARGE.items():
        parser.add_argument(f"--{name}", type=int, default=rows, help=f"default {rows:,}")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    large_rows = {name: getattr(arguments, name) for name in LARGE}
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        redis = stack.enter_context(Redis()) if sides.WORKERS > 1 else None
        small, large = (sides.ours(postgres, redis, name) for name in ("small", "large"))
        for service, rows in ((small, SMALL), (large, large_rows)):
            fill(postgres, service, rows)
            stack.callback(service.stop)
            service.start()
            print(f"{service.name} {service.database} is filled, {time.monotonic() - began:.0f} s")
        print(f"{'':30}{'ms CPU with PostgreSQL: small | large':>40}{'times':>20}{'p99':>14}")
        results = []
        for pair in pairs(small, large):
            found = compare(postgres, pair, rounds=arguments.rounds, seconds=1)
            results.append(growth(found))
            line(results[-1])
        searched = search(large)
        print(f"searches, in ms: {json.dumps(searched)}")
        pruned = prune(postgres, large)
        print(f"prunesessions: {json.dumps(pruned)}")
    print(f"\ntotal time {time.monotonic() - began:.0f} s")
    if arguments.json:
        text = json.dumps({"growth": results, "search": searched, "prune": pruned}, indent=2)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
