"""A cache in the process's memory, limited to JSON values as the shared cache is."""

import json
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.locmem import LocMemCache


class JSONSerializer:
    """Store values as JSON. Unpickling would execute code from anyone who can write to Redis."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, data: bytes | str) -> Any:
        return json.loads(data)


serializer = JSONSerializer()


class LocalCache(LocMemCache):
    """Convert values as Redis does, so that development rejects what production rejects."""

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
