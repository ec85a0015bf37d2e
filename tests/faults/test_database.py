"""PostgreSQL stops, restarts, hangs, is read-only or has no connections left."""

import contextlib
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response, seen
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load
from tests.rig.machine import wait_until
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = needs_redis
TITLES = "SELECT title FROM articles_article"


@contextlib.contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop()
    yield
    postgres.start()


@contextlib.contextmanager
def killed(postgres: Postgres) -> Iterator[None]:
    postgres.kill()
    yield
    postgres.start()


@contextlib.contextmanager
def hung(postgres: Postgres) -> Iterator[None]:
    postgres.send(signal.SIGSTOP)
    yield
    postgres.send(signal.SIGCONT)


@contextlib.contextmanager
def read_only(postgres: Postgres) -> Iterator[None]:
    """Make the server read-only, like a demoted primary."""
    setting = "default_transaction_read_only"
    postgres.execute(f"ALTER SYSTEM SET {setting} = on")
    postgres.execute("SELECT pg_reload_conf()")
    yield
    postgres.execute(f"ALTER SYSTEM RESET {setting}")
    postgres.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def out_of_connections(postgres: Postgres) -> Iterator[None]:
    """Use all connections of ordinary roles, including those of the service."""
    taken: list[Any] = []

    def take() -> bool:
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'latchkey'"
            " AND application_name <> 'taken'"
        )
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                taken.append(postgres.connect("latchkey", application_name="taken"))
        statement = "SELECT FROM pg_stat_activity WHERE usename = 'latchkey'"
        return len(postgres.execute(f"{statement} AND application_name <> 'taken'")) == 0

    assert wait_until(take, seconds=10) < 10
    yield
    for connection in taken:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [stopped, killed, hung, read_only, out_of_connections])
def test_an_outage_is_reported_and_recovery_is_detected(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure, fault: Any
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    with serve(tmp_path / "log", WEB_CONCURRENCY="2", **variables) as server:
        clients = [Client(server.port).sign_in() for _ in range(8)]
        begun: list[tuple[float, str, Response]] = []

        def create(client: Client) -> Response:
            started, title = time.monotonic(), f"Lamp {uuid.uuid4()}"
            response = client.post(f"{API}/articles", {"title": title, "amount": 1})
            begun.append((started, title, response))
            return response

        writes = [lambda c=c: create(c) for c in clients[:3]]
        reads = [lambda c=c: c.get(f"{API}/users/me") for c in clients[3:6]]
        reads += [lambda c=c: c.get(f"{API}/articles") for c in clients[6:]]
        ready, live = Client(server.port), Client(server.port)
        with (
            Load(lambda: live.get("/health/live"), pause=0.05) as alive,
            Load(*writes, *reads, pause=0.02) as load,
        ):
            time.sleep(1)
            with fault(postgres):
                unready = wait_until(lambda: ready.get("/health/ready").status == 503, seconds=8)
                time.sleep(8 if fault is hung else 3)
            back = time.monotonic()
            again = wait_until(lambda: ready.get("/health/ready").status == 200, seconds=8)
            time.sleep(3)

    first = min(at + a.seconds for at, _, a in begun if at + a.seconds > back and a.status == 201)
    responses: list[Response] = load.results
    created = {title for (title,) in postgres.execute(TITLES, dbname="latchkey")}
    unknown = [a for _, _, a in begun if a.is_unknown]
    wrong = [title for _, title, a in begun if a.is_unavailable and title in created]
    wrong += [title for _, title, a in begun if a.status == 201 and title not in created]
    odd = [a for a in responses if a.status not in {200, 201} and not a.is_unavailable]
    odd = [a for a in odd if a not in unknown]
    unavailable = sum(a.status == 503 for a in responses)
    longest = max(a.seconds for a in responses)
    is_alive = {a.status for a in alive.results} == {200}
    liveness = "always" if is_alive else f"not always ({seen(alive.results)})"
    figure(
        f"PostgreSQL {fault.__name__.replace('_', ' ')}: responses except 2xx, 503 and a "
        "write's 504; rows of a 503, or of a 201 and lost; longest response; unready within; "
        "ready within; alive; first success after recovery",
        demanded="0; 0; 6 s; 5 s; 5 s; always; 2 s",
        measured=f"{len(odd)} of {len(responses)} ({seen(responses)}); {len(wrong)}; "
        f"{longest:.1f} s; {unready:.1f} s; {again:.1f} s; {liveness}; "
        f"{first - back:.1f} s",
        met=not odd
        and not wrong
        and unavailable > 0
        and longest <= 6
        and max(unready, again) <= 5
        and is_alive
        and first - back <= 2,
    )


def test_a_logout_survives_a_database_crash(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    with serve(tmp_path / "log", **variables) as server:
        clients = [Client(server.port).sign_in() for _ in range(60)]
        left = iter(clients)
        logged_out: list[Client] = []

        def log_out() -> None:
            client = next(left, None)
            if client and client.post(f"{API}/auth/logout").status == 204:
                logged_out.append(client)

        with Load(*[log_out] * 4):
            wait_until(lambda: len(logged_out) > 20, seconds=10)
            postgres.kill()
            postgres.start()
            wait_until(lambda: next(left, None) is None, seconds=10)

        undone = sum(client.is_signed_in() for client in logged_out)
    figure(
        "PostgreSQL killed amid logouts: those returned 204 that are undone",
        demanded="0",
        measured=f"{undone} of {len(logged_out)}",
        met=len(logged_out) > 20 and undone == 0,
    )
