"""Forty clients flood the login, with production hashing, while others send requests."""

import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import NO_LIMITS, serve, workers
from tests.rig.load import Load, p99
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
CLIENTS = 40
SECONDS = 30.0
COST = 14


@pytest.mark.parametrize(
    ("behaviour", "pause"), [("waiting as Retry-After says", None), ("back after 50 ms", 0.05)]
)
def test_logins_do_not_starve_the_rest(
    postgres: Postgres,
    redis: Redis,
    tmp_path: Path,
    figure: Figure,
    behaviour: str,
    pause: float | None,
) -> None:
    ceiling = hashes_per_second()
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    variables |= {"WEB_CONCURRENCY": str(os.cpu_count()), "BCRYPT_ROUNDS": str(COST)}
    with serve(tmp_path / "log", **variables) as server, ProcessPoolExecutor(1) as elsewhere:
        measure(server.port, 2)
        idle, _ = measure(server.port, 15)
        attackers: Future[list[tuple[int, float]]] = elsewhere.submit(flood, server.port, pause)
        time.sleep(5)  # All threads are warmed up; further growth is a leak.
        memory = sum(worker.memory_info().rss for worker in workers(server))
        articles, lives = measure(server.port, SECONDS - 7)
        attempts = attackers.result()
        grown = sum(worker.memory_info().rss for worker in workers(server)) / memory - 1

    hashed = sum(status == 401 for status, _ in attempts) / SECONDS
    rejected = [seconds for status, seconds in attempts if status == 503]
    odd = [status for status, _ in attempts if status not in {401, 503}]
    figure(
        f"{CLIENTS} clients at login, {behaviour}: p99 of a list (idle), of liveness",
        demanded="5 times idle and 100 ms; 50 ms" if pause is None else "-",
        measured=f"{articles:.0f} ms ({idle:.0f} ms); {lives:.0f} ms",
        met=pause is not None or (articles <= min(100, 5 * idle) and lives <= 50),
    )
    figure(
        f"{CLIENTS} clients at login, {behaviour}: logins of what the machine can hash; longest "
        "rejection; memory; other responses",
        demanded="90 %; 2.5 s; flat; 0" if pause is None else "-; 2.5 s; flat; 0",
        measured=f"{100 * hashed / ceiling:.0f} % of {ceiling:.2f}/s; {max(rejected):.1f} s; "
        f"{100 * grown:+.0f} %; {len(odd)} (of {len(attempts):,})",
        met=(pause is not None or hashed >= 0.9 * ceiling)
        and max(rejected) <= 2.5
        and grown < 0.1
        and not odd,
    )


def hashes_per_second() -> float:
    """Measure the hashes per second of all cores."""
    cores = os.cpu_count() or 1
    salt = bcrypt.gensalt(COST)
    with ThreadPoolExecutor(cores) as pool:
        started = time.monotonic()
        list(pool.map(lambda _: bcrypt.hashpw(b"a password", salt), range(4 * cores)))
        return 4 * cores / (time.monotonic() - started)


def measure(port: int, seconds: float) -> tuple[float, float]:
    """Request articles and liveness thirty times a second; return both p99 in ms."""
    articles, lives = Client(port), Client(port)
    with (
        Load(lambda: articles.get(f"{API}/articles"), pause=0.03) as listing,
        Load(lambda: lives.get("/health/live"), pause=0.03) as living,
    ):
        time.sleep(seconds)
    responses: list[list[Response]] = [listing.results, living.results]
    assert {response.status for results in responses for response in results} == {200}
    return tuple(p99([response.seconds for response in results]) for results in responses)  # type: ignore[return-value]  # of length 2


def flood(port: int, pause: float | None) -> list[tuple[int, float]]:
    """Log in from many clients in a separate process; return statuses and seconds."""
    body = {"identity": "nobody", "password": "wrong"}
    end = time.monotonic() + SECONDS

    def attempt(client: Client) -> tuple[int, float]:
        response = client.post(f"{API}/auth/login", body)
        if response.status == 503:
            wait = int(response.headers["Retry-After"]) if pause is None else pause
            time.sleep(min(wait, max(0, end - time.monotonic())))
        return response.status, response.seconds

    clients = [Client(port) for _ in range(CLIENTS)]
    with Load(*[lambda c=c: attempt(c) for c in clients]) as load:
        time.sleep(SECONDS)
    return load.results
