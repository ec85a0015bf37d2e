"""Many clients search while an orchestrator probes the instance."""

import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load, p99
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
CLIENTS = 32
SECONDS = 15.0
PROBES = ("/health/live", "/health/ready")
# The longest p99 of each in milliseconds. Readiness makes queries on the loaded database.
LIMITS = (250, 1000)
# Each word is in half of the products, and no product has both: all steps of a search are taken.
SEARCH = f"{API}/product?search=brass+paper"
PRODUCTS = """
    INSERT INTO catalog_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT min(id), CASE WHEN n % 2 = 0 THEN 'Brass lamp ' ELSE 'Paper lamp ' END || n,
           repeat('A lamp for the desk and the shelf. ', 5), 1, now(), now()
      FROM accounts_user, generate_series(1, 20000) n GROUP BY n
"""


def test_searches_do_not_delay_probes(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    with (
        serve(tmp_path / "log", WEB_CONCURRENCY="2", **variables) as server,
        ProcessPoolExecutor(1) as elsewhere,
    ):
        Client(server.port).sign_in()
        postgres.execute(PRODUCTS, dbname="latchkey")
        load = elsewhere.submit(search, server.port)
        time.sleep(2)
        probes = [lambda path=path: probe(server.port, path) for path in PROBES]
        with Load(*probes, pause=0.05) as probing:
            time.sleep(SECONDS - 5)
        searches = load.result()
        postgres.execute("DELETE FROM catalog_product", dbname="latchkey")

    slowest = [
        p99([response.seconds for name, response in probing.results if name == path])
        for path in PROBES
    ]
    failed = [response for _, response in probing.results if response.status != 200]
    odd = [status for status, _ in searches if status != 200]
    wait = p99([seconds for _, seconds in searches])
    figure(
        f"{CLIENTS} clients that search: p99 of liveness, of readiness; probes that failed; "
        "searches that failed (p99 of a search)",
        demanded=f"{LIMITS[0]} ms; {LIMITS[1]} ms; 0; 0",
        measured=f"{slowest[0]:.0f} ms; {slowest[1]:.0f} ms; {len(failed)} of "
        f"{len(probing.results)}; {len(odd)} of {len(searches):,} ({wait:.0f} ms)",
        met=slowest[0] < LIMITS[0] and slowest[1] < LIMITS[1] and not failed and not odd,
    )


def probe(port: int, path: str) -> tuple[str, Response]:
    """Send a probe on a connection of its own, as an orchestrator does."""
    return path, Client(port).get(path)


def search(port: int) -> list[tuple[int, float]]:
    """Search from many clients in a separate process; return statuses and seconds."""

    def find(client: Client) -> tuple[int, float]:
        response = client.get(SEARCH)
        return response.status, response.seconds

    clients = [Client(port) for _ in range(CLIENTS)]
    with Load(*[lambda c=c: find(c) for c in clients]) as load:
        time.sleep(SECONDS)
    return load.results
