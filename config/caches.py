"""The shared cache, and what each process does while it is away: it goes on by itself."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

logger = logging.getLogger(__name__)

LONGEST_WAIT = 0.07  # seconds, to connect and for each answer
RETRY_AFTER = 1.0  # seconds between attempts to reach it again
LOCAL_ENTRIES = 200_000


class Breaker:
    """Whether the shared cache is away, as far as this process knows."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_away = False
        self.retry_at = 0.0

    def lets_through(self) -> bool:
        """Let every call through, or while it is away one each second."""
        with self.lock:
            now = time.monotonic()
            if self.is_away and now < self.retry_at:
                return False
            self.retry_at = now + RETRY_AFTER
            return True

    def report(self, *, is_away: bool) -> None:
        with self.lock:
            has_changed = is_away != self.is_away
            self.is_away = is_away
            self.retry_at = time.monotonic() + RETRY_AFTER
        if has_changed and is_away:
            logger.warning("The shared cache is away; this process counts by itself.")
        elif has_changed:
            logger.warning("The shared cache is back.")


breaker = Breaker()


def shared_or_local(name: str) -> Callable[..., Any]:
    """Make a method that asks Redis, or this process's memory while Redis is away."""

    def call(self: "SharedCache", *args: Any, **kwargs: Any) -> Any:
        if breaker.lets_through():
            try:
                answer = getattr(RedisCache, name)(self, *args, **kwargs)
            except RedisError:
                breaker.report(is_away=True)
            else:
                breaker.report(is_away=False)
                return answer
        return getattr(self.local, name)(*args, **kwargs)

    return call


class Client(RedisCacheClient):
    """Django's makes a client anew for each command, and asks twice to increment."""

    @functools.cached_property
    def kept(self) -> redis.Redis:
        client: redis.Redis = super().get_client(write=True)
        return client

    def get_client(self, key: Any = None, *, write: bool = False) -> redis.Redis:
        return self.kept

    def incr(self, key: Any, delta: int) -> int:
        """Raise ValueError where there is no such key, as every cache of Django's does."""
        pipeline = self.kept.pipeline(transaction=False)
        pipeline.exists(key)
        pipeline.incr(key, delta)
        exists, value = pipeline.execute()
        if not exists:
            self.kept.delete(key)
            raise ValueError(key)
        return int(value)


class SharedCache(RedisCache):
    """
    Redis; while it is away, the memory of this process.

    Counts then are each process's own, so limits still hold for each. Nothing is carried over when
    it comes back. A call that finds it away is late by `LONGEST_WAIT`, one each second.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        params["OPTIONS"] = {
            "socket_connect_timeout": LONGEST_WAIT,
            "socket_timeout": LONGEST_WAIT,
            "retry": Retry(NoBackoff(), 0),
        }
        super().__init__(server, params)
        self._class = Client
        self.local = LocMemCache("shared-cache", {"OPTIONS": {"MAX_ENTRIES": LOCAL_ENTRIES}})

    @property
    def is_away(self) -> bool:
        return breaker.is_away

    add = shared_or_local("add")
    get = shared_or_local("get")
    set = shared_or_local("set")
    touch = shared_or_local("touch")
    delete = shared_or_local("delete")
    incr = shared_or_local("incr")
    has_key = shared_or_local("has_key")
    get_many = shared_or_local("get_many")
    set_many = shared_or_local("set_many")
    delete_many = shared_or_local("delete_many")
    clear = shared_or_local("clear")
