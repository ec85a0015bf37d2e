"""The shared cache while Redis is killed, hangs, is flushed, written to or restarted."""

import json
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API
from ops import cache as caches
from ops.cache import SharedCache
from ops.local_cache import RESPONSE
from ops.metrics import app_metrics
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, pytest.mark.heavy]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def shared(server: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """Use this Redis as the cache, with a short reconnection interval."""
    monkeypatch.setattr(caches, "breaker", caches.Breaker())
    monkeypatch.setattr(caches, "RETRY_AFTER", 0.2)
    backend = {"BACKEND": "ops.cache.SharedCache", "LOCATION": server.url}
    settings.CACHES = {"default": backend}
    cache.clear()
    cache.local.clear()
    yield server
    cache.close()


def wait_until_available() -> None:
    time.sleep(0.25)
    cache.get("anything")
    assert not cache.is_unavailable


def test_it_is_redis(shared: Redis) -> None:
    assert cache.add("n", 1)
    assert not cache.add("n", 1)
    assert cache.incr("n") == 2
    with redis.Redis(port=shared.port) as client:
        assert [client.get(key) for key in client.scan_iter()] == [b"2"]
    with pytest.raises(ValueError, match="n2"):
        cache.incr("n2")


def test_a_killed_redis_falls_back_to_the_process_and_is_used_again(
    shared: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    cache.set("n", 5)
    shared.kill()

    assert cache.get("n") is None
    assert cache.add("n", 1)
    assert cache.incr("n") == 2
    assert cache.is_unavailable

    shared.start()
    wait_until_available()
    assert cache.get("n") is None
    lost, found = [r.message for r in caplog.records if r.name == "ops.cache"]
    assert re.fullmatch(r"Redis unavailable \(ConnectionError: .*\); .*", lost)
    assert found == "Redis available again."


def test_a_hung_redis_delays_at_most_one_call_per_second(
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
def test_limits_hold_in_every_state_of_redis(
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
    wait_until_available()
    assert client.get("/health/ready").json()["checks"]["cache"] == {"status": "ok"}


def raw(shared: Redis) -> redis.Redis:
    return redis.Redis(port=shared.port, single_connection_client=True)


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    path = tmp_path / "exploded"
    yield pickle.dumps(Bomb(path))
    assert not path.exists()


GARBAGE = {
    "bytes": b"\xff\xfe\x00",
    "half of a document": b'{"a": ',
    "deep": b"[" * 100_000,
    "a number of 5,000 digits": b"9" * 5000,
    "nothing": b"",
}


def test_values_are_json(shared: Redis) -> None:
    values = {"number": 5, "float": 1764500000.123, "text": "ä", "counts": {"a": [1, None, True]}}
    for name, value in values.items():
        cache.set(name, value)
    cache.set_many({"many": {"b": 2}})

    assert cache.get_many([*values, "many"]) == {**values, "many": {"b": 2}}
    with raw(shared) as client:
        stored = [json.loads(client.get(key)) for key in client.scan_iter()]
    assert sorted(map(str, stored)) == sorted(map(str, [*values.values(), {"b": 2}]))


@pytest.mark.parametrize("backend", ["ops.cache.SharedCache", "ops.local_cache.LocalCache"])
def test_a_value_that_is_not_json_is_rejected_with_and_without_redis(
    shared: Redis, backend: str, settings: Settings
) -> None:
    location = {"LOCATION": shared.url} if "Shared" in backend else {}
    settings.CACHES = {"default": {"BACKEND": backend, **location}}

    for store in (cache.set, cache.add):
        with pytest.raises(TypeError, match="not JSON serializable"):
            store("bomb", Bomb(Path("nowhere")))
    cache.set("pair", (1, 2))

    assert cache.get("pair") == [1, 2]


def test_a_pickle_is_a_miss_and_is_not_executed(shared: Redis, bomb: bytes) -> None:
    assert_is_a_miss(shared, bomb)


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE)
def test_a_value_that_is_no_json_is_a_miss(shared: Redis, value: bytes) -> None:
    assert_is_a_miss(shared, value)


def assert_is_a_miss(shared: Redis, value: bytes) -> None:
    key = cache.make_key("n")
    with raw(shared) as client:
        client.set(key, value)
        assert cache.get("n") is None
        assert not client.exists(key)
        client.set(key, value)
        assert cache.get_many(["n"]) == {}
        assert not client.exists(key)
        client.set(key, value)
        assert cache.get_or_set("n", 7) == 7
        assert cache.get("n") == 7
        client.set(key, value)
        with pytest.raises(ValueError, match="n"):
            cache.incr("n")
        assert cache.add("n", 1)
        assert cache.incr("n") == 2
    assert not cache.is_unavailable


def test_a_list_of_redis_is_a_miss(shared: Redis) -> None:
    with raw(shared) as client:
        client.rpush(cache.make_key("n"), "a")

        assert cache.get("n") is None
        assert cache.get_or_set("n", 7) == 7
        with pytest.raises(ValueError, match="n"):
            cache.incr("n")
        assert cache.add("n", 1)
    assert not cache.is_unavailable


POISON = [b'"text"', b"[1]", b"{}", b'{"a": 1}', b'{"a": {"b": "c"}}', b'{"a": {"\\ud800": 1}}']
POISON += [b'{"active": {"users": 1' + b"0" * 400 + b"}}", b"true", b"-1.5", b"null", b"NaN"]


def test_the_service_withstands_whatever_is_written_to_its_keys(
    shared: Redis, bomb: bytes, client: APIClient, make_user: Callable[..., User]
) -> None:
    browser = Client(raise_request_exception=False)
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    body = {"identity": "alice", "password": "wrong"}

    def use() -> list[int]:
        list(app_metrics())
        return [
            client.post(f"{API}/auth/login", body).status_code,
            browser.get("/admin/").status_code,
            client.get("/health/ready").status_code,
        ]

    assert use() == [401, 200, 200]
    with raw(shared) as redis_client:
        keys = set(redis_client.scan_iter())
        assert len(keys) > 30
        for value in [bomb, *GARBAGE.values(), *POISON]:
            for key in keys:
                redis_client.set(key, value)
            login, *others = use()
            assert others == [200, 200], value
            assert login in {401, 429}, value


def test_a_counter_continues_when_the_state_of_redis_changes(
    shared: Redis,
) -> None:
    """The state of Redis may change between `add` and `incr` of a counter."""
    assert cache.add("n", 1)
    shared.kill()
    assert [cache.incr("n"), cache.incr("n"), cache.decr("n")] == [1, 2, 1]
    with pytest.raises(ValueError, match="m"):
        cache.decr("m")

    assert cache.add("m", 1)
    shared.start()
    wait_until_available()
    assert cache.incr("m") == 2
    assert cache.add("m", 1)  # Redis has no such counter, so a new one starts.
    assert cache.incr("m") == 2
    with raw(shared) as client:
        assert client.get(cache.make_key("m")) == b"2"


def test_a_read_only_redis_does_not_reject_clients_within_the_limit(
    shared: Redis, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis accepts `add` and rejects `incr`, as if it became read-only in between."""
    monkeypatch.setattr(caches, "RETRY_AFTER", 0.0)
    body = {"identity": "alice", "password": "wrong"}
    with raw(shared) as redis_client:
        redis_client.execute_command("ACL", "SETUSER", "default", "-incr", "-incrby")
        try:
            statuses = [client.post(f"{API}/auth/login", body).status_code for _ in range(7)]
        finally:
            redis_client.execute_command("ACL", "SETUSER", "default", "+incr", "+incrby")

    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429


def test_another_client_of_django_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.cache.RedisCacheClient", object)

    with pytest.raises(ImproperlyConfigured):
        SharedCache("redis://localhost", {})


@pytest.mark.parametrize(
    "garbage", ["null", "[]", "[1, 2]", '[200, 5, ""]', "[200, {}, 5]", '["x", {}, ""]']
)
def test_a_response_that_is_none_is_a_miss(shared: Redis, garbage: str) -> None:
    assert_is_a_miss(shared, f'{{"{RESPONSE}": {garbage}}}'.encode())
