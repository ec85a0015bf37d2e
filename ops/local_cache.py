"""A cache in one process's memory, for the values that the shared cache can hold: JSON."""

import json
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.locmem import LocMemCache


class JSONSerializer:
    """Store values as JSON: to read a pickle is to run whatever was written to Redis."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, data: bytes | str) -> Any:
        return json.loads(data)


serializer = JSONSerializer()


class LocalCache(LocMemCache):
    """Return values as Redis would, so that development finds what production cannot store."""

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return super().add(key, as_stored(value), timeout, version)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        super().set(key, as_stored(value), timeout, version)


def as_stored(value: Any) -> Any:
    return serializer.loads(serializer.dumps(value))
