"""The shared cache in Redis, with the process's memory as the fallback."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from ops.local_cache import LocalCache, serializer

logger = logging.getLogger(__name__)

LONGEST_WAIT = 0.07  # seconds, to connect and for each response
RETRY_AFTER = 1.0  # seconds between reconnection attempts
LOCAL_ENTRIES = 200_000
STARTED_COUNT_TIMEOUT = 3600  # seconds


class Breaker:
    """A circuit breaker of this process. It is open while Redis is unavailable."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_open = False
        self.retry_at = 0.0

    def allows_call(self) -> bool:
        """Return whether a call may use Redis: always while closed, once per second while open."""
        with self.lock:
            now = time.monotonic()
            if self.is_open and now < self.retry_at:
                return False
            self.retry_at = now + RETRY_AFTER
            return True

    def report(self, error: RedisError | None = None) -> None:
        """Open after an error, close otherwise, and log each change once."""
        with self.lock:
            has_changed = self.is_open != (error is not None)
            self.is_open = error is not None
            self.retry_at = time.monotonic() + RETRY_AFTER
        if has_changed and error:
            text = "Redis unavailable (%s: %s); rate limits fall back to per-process counters."
            logger.warning(text, type(error).__name__, error)
        elif has_changed:
            logger.warning("Redis available again.")


breaker = Breaker()


def shared_or_local(name: str) -> Callable[..., Any]:
    """Return a method that calls Redis, or the local cache while Redis is unavailable."""

    def call(self: "SharedCache", *args: Any, **kwargs: Any) -> Any:
        if breaker.allows_call():
            try:
                result = getattr(RedisCache, name)(self, *args, **kwargs)
            except RedisError as error:
                breaker.report(error)
            else:
                breaker.report()
                return result
        return getattr(self.local, name)(*args, **kwargs)

    return call


class Client(RedisCacheClient):
    """
    A client with one redis.Redis and increments in one round trip.

    Django's client creates a redis.Redis for each command and increments in two round trips.
    """

    @functools.cached_property
    def shared_client(self) -> redis.Redis:
        client: redis.Redis = super().get_client(write=True)
        return client

    def get_client(self, key: Any = None, *, write: bool = False) -> redis.Redis:
        return self.shared_client

    def get(self, key: Any, default: Any) -> Any:
        return self.get_many([key]).get(key, default)

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return the JSON values; delete others. MGET skips keys that are not strings."""
        keys = list(keys)
        values = {}
        for key, data in zip(keys, self.shared_client.mget(keys), strict=True):
            try:
                if data is not None:
                    values[key] = serializer.loads(data)
            except (ValueError, RecursionError):
                self.shared_client.delete(key)
        return values

    def incr(self, key: Any, delta: int) -> int:
        """Raise ValueError if the key is missing, as Django's caches do, or is not a number."""
        pipeline = self.shared_client.pipeline(transaction=False)
        pipeline.exists(key)
        pipeline.incr(key, delta)
        try:
            exists, value = pipeline.execute()
        except ResponseError as error:
            if type(error) is not ResponseError:  # No permission, out of memory or read-only.
                raise
            # Not a number. If the server rejects all commands, the next one raises the error.
            exists = value = 0
        if not exists:
            self.shared_client.delete(key)
            raise ValueError(key)
        return int(value)


class SharedCache(RedisCache):
    """
    A cache in Redis, or in the process's memory while Redis is unavailable.

    Rate limits then hold for each process. Local values are not copied to Redis. While Redis is
    unavailable, one call per second waits up to `LONGEST_WAIT` for it.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        params["OPTIONS"] = {
            "serializer": serializer,
            "socket_connect_timeout": LONGEST_WAIT,
            "socket_timeout": LONGEST_WAIT,
            "retry": Retry(NoBackoff(), 0),
        }
        super().__init__(server, params)
        # A private name of Django, which has no public one for the client.
        if getattr(self, "_class", None) is not RedisCacheClient:
            raise ImproperlyConfigured("Django's RedisCache is not the one that ops.cache extends.")
        self._class = Client
        self.local = LocalCache("shared-cache", {"OPTIONS": {"MAX_ENTRIES": LOCAL_ENTRIES}})

    @property
    def is_unavailable(self) -> bool:
        return breaker.is_open

    add = shared_or_local("add")
    get = shared_or_local("get")
    set = shared_or_local("set")
    touch = shared_or_local("touch")
    delete = shared_or_local("delete")
    increment = shared_or_local("incr")
    has_key = shared_or_local("has_key")
    get_many = shared_or_local("get_many")
    set_many = shared_or_local("set_many")
    delete_many = shared_or_local("delete_many")
    clear = shared_or_local("clear")

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """
        Increment a counter in Redis or in the local cache.

        Redis may become unavailable or available between `add`, which creates a counter, and
        `incr`. A counter of Redis then starts at 0 locally, and a local counter continues.
        """
        try:
            return int(self.increment(key, delta, version=version))
        except ValueError:
            if self.is_unavailable and delta > 0:
                self.local.add(key, 0, STARTED_COUNT_TIMEOUT, version=version)
            return self.local.incr(key, delta, version=version)
