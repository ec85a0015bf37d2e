"""Instances stop, restart behind the proxy, or reload, while they get requests."""

import contextlib
import itertools
import signal
import time
from pathlib import Path

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client
from tests.rig.gunicorn import NO_LIMITS, Server, serve, workers
from tests.rig.load import Load, at_once
from tests.rig.machine import free_port, wait_until
from tests.rig.nginx import needs_proxy, proxy
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

REQUESTS = 10_000


def test_a_draining_server_is_not_ready_and_serves_requests(
    postgres: Postgres, tmp_path: Path, figure: Figure
) -> None:
    with serve(tmp_path / "log", DATABASE_URL=postgres.url) as server:
        client = Client(server.port)
        assert client.get("/health/ready").status == 200

        server.process.send_signal(signal.SIGUSR1)

        unready = wait_until(lambda: client.get("/health/ready").status == 503, seconds=5)
        responses = [client.get(path) for path in (f"{API}/articles", "/health/live")]
    assert [response.status for response in responses] == [200, 200]
    assert {response.headers["Connection"] for response in responses} == {"close"}
    figure(
        "SIGUSR1, the drain: not ready after, serving on",
        demanded="1 s, yes",
        measured=f"{unready:.1f} s, yes",
        met=unready < 1,
    )


def test_a_stopping_server_completes_its_requests(
    postgres: Postgres, tmp_path: Path, figure: Figure
) -> None:
    """Send SIGTERM during eight logins and eight connections that are not accepted yet."""
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "BCRYPT_ROUNDS": "12"}
    with serve(tmp_path / "log", WEB_THREADS="11", HASHING_PLACES="1", **variables) as server:
        user = Client(server.port).sign_in().username
        body = {"identity": user, "password": PASSWORD}

        def log_in() -> int:
            return Client(server.port).post(f"{API}/auth/login", body).status

        def list_articles() -> int:
            time.sleep(0.1)
            return Client(server.port).get(f"{API}/articles").status

        def stop() -> int:
            time.sleep(0.1)
            server.process.send_signal(signal.SIGTERM)
            return 0

        *statuses, _ = at_once(*[log_in] * 8, *[list_articles] * 8, stop)
        logins, lists = statuses[:8], statuses[8:]
    rejected = lists.count(0)
    figure(
        "SIGTERM with 8 logins in flight: responses",
        demanded="8",
        measured=f"{logins.count(200)} with 200, {logins.count(503)} with 503",
        met=logins.count(0) == 0,
    )
    assert lists.count(200) + rejected == 8


@pytest.mark.slow
@needs_proxy
@needs_redis
def test_a_rolling_restart_and_a_reload_lose_nothing(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | {
        "DATABASE_URL": postgres.url,
        "CACHE_URL": redis.url,
        "WEB_CONCURRENCY": "2",
        "TRUSTED_PROXY_COUNT": "1",
    }
    lives = itertools.count()

    def start(stack: contextlib.ExitStack, port: int) -> Server:
        log = tmp_path / f"log-{next(lives)}"
        return stack.enter_context(serve(log, PORT=str(port), **variables))

    stacks = [contextlib.ExitStack(), contextlib.ExitStack()]
    instances = [start(stack, free_port()) for stack in stacks]
    with stacks[0], stacks[1], proxy(tmp_path, *[i.port for i in instances]) as port:
        clients = [Client(port, tls=True).sign_in() for _ in range(8)]

        def use(client: Client) -> list[tuple[str, int]]:
            return [
                ("me", client.get(f"{API}/users/me").status),
                ("list", client.get(f"{API}/articles").status),
                ("create", client.post(f"{API}/articles", {"title": "x", "amount": 1}).status),
                ("refresh", client.refresh().status),
            ]

        restarts = 0
        with Load(*[lambda c=c: use(c) for c in clients]) as load:
            while len(load.results) < REQUESTS / 4:
                number = restarts % 2
                reload(instances[number])
                instances[number].process.send_signal(signal.SIGUSR1)
                time.sleep(0.5)
                stacks[number].close()
                instances[number] = start(stacks[number], instances[number].port)
                restarts += 1

    results = [result for results in load.results for result in results]
    lost = [result for result in results if result[1] not in {200, 201}]
    figure(
        f"{restarts} reloads and restarts of one of two instances: requests lost",
        demanded=f"0 of {REQUESTS:,}",
        measured=f"{len(lost)} of {len(results):,}",
        met=not lost and len(results) >= REQUESTS,
    )


def reload(instance: Server) -> None:
    before = set(workers(instance))
    instance.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: not before & set(workers(instance)), seconds=20) < 20
