"""The shared cache on a real Redis that is killed, hung, flushed and started again."""

import shutil
import signal
import time
from collections.abc import Iterator

import pytest
import redis
from django.core.cache import cache
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from config import caches
from config.tests.serving import Redis
from conftest import API

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def shared(server: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """Use that Redis as the cache, reached again without much waiting."""
    monkeypatch.setattr(caches, "breaker", caches.Breaker())
    monkeypatch.setattr(caches, "RETRY_AFTER", 0.2)
    backend = {"BACKEND": "config.caches.SharedCache", "LOCATION": server.url}
    settings.CACHES = {"default": backend}
    cache.clear()
    cache.local.clear()
    yield server
    cache.close()


def come_back() -> None:
    time.sleep(0.25)
    cache.get("anything")
    assert not cache.is_away


def test_it_is_redis(shared: Redis) -> None:
    assert cache.add("n", 1)
    assert not cache.add("n", 1)
    assert cache.incr("n") == 2
    with redis.Redis(port=shared.port) as client:
        assert [client.get(key) for key in client.scan_iter()] == [b"2"]
    with pytest.raises(ValueError, match="n2"):
        cache.incr("n2")


def test_killed_it_is_replaced_by_the_process_itself_and_found_again(
    shared: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    cache.set("n", 5)
    shared.kill()

    assert cache.get("n") is None
    assert cache.add("n", 1)
    assert cache.incr("n") == 2
    assert cache.is_away

    shared.start()
    come_back()
    assert cache.get("n") is None
    lines = [record.message for record in caplog.records if record.name == "config.caches"]
    assert lines == [
        "The shared cache is away; this process counts by itself.",
        "The shared cache is back.",
    ]


def test_hung_it_is_waited_for_no_more_than_once_a_while(
    shared: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "RETRY_AFTER", 5)
    cache.set("n", 5)
    shared.send(signal.SIGSTOP)
    try:
        assert cache.get("n") is None
        waits = []
        for _ in range(50):
            started = time.monotonic()
            cache.get("n")
            waits.append(time.monotonic() - started)
    finally:
        shared.send(signal.SIGCONT)

    assert max(waits) < 0.1
    monkeypatch.setattr(caches.breaker, "retry_at", 0.0)
    assert cache.get("n") == 5


@pytest.mark.parametrize("trouble", ["killed", "hung", "flushed"])
def test_limits_hold_whatever_becomes_of_it(
    shared: Redis, client: APIClient, user: User, settings: Settings, trouble: str
) -> None:
    settings.LOGIN_FAILURE_LIMIT = (4, 900)
    body = {"identity": "alice", "password": "wrong"}
    before = [client.post(f"{API}/auth/login", body).status_code for _ in range(2)]
    if trouble == "killed":
        shared.kill()
    elif trouble == "hung":
        shared.send(signal.SIGSTOP)
    else:
        cache.clear()

    try:
        after = [client.post(f"{API}/auth/login", body).status_code for _ in range(6)]
        ready = client.get("/health/ready")
    finally:
        if trouble == "killed":
            shared.start()
        shared.send(signal.SIGCONT)

    assert before == [401, 401]
    assert after[:3] == [401, 401, 401]
    assert after[-1] == 429
    assert set(after) <= {401, 429}
    assert ready.status_code == 200
    status = "ok" if trouble == "flushed" else "degraded"
    assert ready.json()["checks"]["cache"] == {"status": status}
    come_back()
    assert client.get("/health/ready").json()["checks"]["cache"] == {"status": "ok"}


def test_going_away_between_two_commands_is_no_error(
    shared: Redis, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter was made on the one side, and is looked for on the other."""

    def vanish(self: object, *args: object, **kwargs: object) -> int:
        raise ValueError

    monkeypatch.setattr(caches.SharedCache, "incr", vanish)
    body = {"identity": "alice", "password": "wrong"}

    response = client.post(f"{API}/auth/login", body)

    assert response.status_code in {401, 429}
