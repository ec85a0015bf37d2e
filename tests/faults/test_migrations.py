"""A migration that widens columns while the service uses them."""

import itertools
import time
from pathlib import Path

import pytest

from accounts.models import Session, User
from conftest import API
from tests.articles.models import Article
from tests.faults.conftest import Figure
from tests.rig.client import Client
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

# Columns with the type of the model and a wider one.
COLUMNS = [
    (User, "names", "varchar(150)", "varchar(200)"),
    (User, "email", "varchar(254)", "varchar(300)"),
    (Session, "device", "varchar(100)", "varchar(200)"),
    (Article, "amount", "integer", "bigint"),
]


@pytest.mark.slow
@needs_redis
def test_widening_columns_fails_no_request(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}

    def widen_and_narrow(again: bool) -> None:
        for model, column, narrow, wide in COLUMNS:
            kind = narrow if again else wide
            postgres.execute(
                f"ALTER TABLE {model._meta.db_table} ALTER COLUMN {column} TYPE {kind}",
                dbname="latchkey",
            )
            time.sleep(0.5)

    with serve(tmp_path / "log", WEB_CONCURRENCY="2", **variables) as server:
        clients = [Client(server.port).sign_in() for _ in range(8)]

        def use(client: Client) -> list[int]:
            created = client.post(f"{API}/articles", {"title": "Lamp", "amount": 1})
            path = f"{API}/articles/{created.json['id']}"
            return [
                created.status,
                client.request("PATCH", path, {"amount": 2}).status,
                client.get(path).status,
                client.get(f"{API}/articles").status,
                client.get(f"{API}/users/me").status,
                client.get(f"{API}/auth/sessions").status,
                client.refresh().status,
                client.request("DELETE", path).status,
            ]

        with Load(*[lambda c=c: use(c) for c in clients]) as load:
            time.sleep(3)  # Every connection has prepared statements now.
            for again in itertools.islice(itertools.cycle([False, True]), 4):
                widen_and_narrow(again)
            time.sleep(1)

    statuses = [status for result in load.results for status in result]
    failed = [status for status in statuses if status not in {200, 201, 204}]
    figure(
        f"{4 * len(COLUMNS)} columns widened and narrowed under load: requests that failed",
        demanded="0",
        measured=f"{len(failed)} of {len(statuses):,}",
        met=not failed and len(statuses) > 1000,
    )
