"""The shared cache in Redis, and this process's memory while Redis is unavailable."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from ops.local_cache import LocalCache, serializer

logger = logging.getLogger(__name__)

LONGEST_WAIT = 0.07  # seconds, to connect and for each response
RETRY_AFTER = 1.0  # seconds between attempts to reach Redis again
LOCAL_ENTRIES = 200_000
STARTED_COUNT_TIMEOUT = 3600  # seconds


class Breaker:
    """A circuit breaker; it is open while Redis is unavailable, as far as this process knows."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_open = False
        self.retry_at = 0.0

    def allows_call(self) -> bool:
        """Allow every call, or while open one per second."""
        with self.lock:
            now = time.monotonic()
            if self.is_open and now < self.retry_at:
                return False
            self.retry_at = now + RETRY_AFTER
            return True

    def report(self, error: RedisError | None = None) -> None:
        """Open where a call failed, else close; log a change once."""
        with self.lock:
            has_changed = self.is_open != (error is not None)
            self.is_open = error is not None
            self.retry_at = time.monotonic() + RETRY_AFTER
        if has_changed and error:
            text = "The shared cache is unavailable (%s: %s); this process counts by itself."
            logger.warning(text, type(error).__name__, error)
        elif has_changed:
            logger.warning("The shared cache is available again.")


breaker = Breaker()


def shared_or_local(name: str) -> Callable[..., Any]:
    """Make a method that uses Redis, or this process's memory while Redis is unavailable."""

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
    """Django's creates a redis.Redis for each command and needs two round trips to increment."""

    @functools.cached_property
    def kept(self) -> redis.Redis:
        client: redis.Redis = super().get_client(write=True)
        return client

    def get_client(self, key: Any = None, *, write: bool = False) -> redis.Redis:
        return self.kept

    def get(self, key: Any, default: Any) -> Any:
        return self.get_many([key]).get(key, default)

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Leave out and delete a value that is not JSON; MGET leaves out what is no string."""
        keys = list(keys)
        values = {}
        for key, data in zip(keys, self.kept.mget(keys), strict=True):
            try:
                if data is not None:
                    values[key] = serializer.loads(data)
            except (ValueError, RecursionError):
                self.kept.delete(key)
        return values

    def incr(self, key: Any, delta: int) -> int:
        """Raise ValueError where the key is missing, as Django's do, or is no number."""
        pipeline = self.kept.pipeline(transaction=False)
        pipeline.exists(key)
        pipeline.incr(key, delta)
        try:
            exists, value = pipeline.execute()
        except ResponseError as error:
            if type(error) is not ResponseError:  # A right, memory or a writable server is missing.
                raise
            # It is no number. A server that rejects every command rejects the next one too.
            exists = value = 0
        if not exists:
            self.kept.delete(key)
            raise ValueError(key)
        return int(value)


class SharedCache(RedisCache):
    """
    Redis, or this process's memory while Redis is unavailable.

    Each process then counts by itself, so limits still hold for each. Nothing is copied back. A
    call that finds Redis unavailable is delayed by `LONGEST_WAIT`, at most one per second.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        params["OPTIONS"] = {
            "serializer": serializer,
            "socket_connect_timeout": LONGEST_WAIT,
            "socket_timeout": LONGEST_WAIT,
            "retry": Retry(NoBackoff(), 0),
        }
        super().__init__(server, params)
        # Private in Django. Without it values are JSON all the same, by the serializer.
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
        Increment a counter wherever it is.

        `add` creates a counter and `incr` raises it; Redis may become unavailable or available
        between the two. A counter of Redis is then started here; one of this process goes on.
        """
        try:
            return int(self.increment(key, delta, version=version))
        except ValueError:
            if self.is_unavailable and delta > 0:
                self.local.add(key, 0, STARTED_COUNT_TIMEOUT, version=version)
            return self.local.incr(key, delta, version=version)
