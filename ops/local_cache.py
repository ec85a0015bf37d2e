"""A cache in the process's memory, limited to JSON values as the shared cache is."""

import base64
import json
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpResponse

# The key of a JSON object that represents a response.
RESPONSE = "django.http.HttpResponse"


class JSONSerializer:
    """
    Store values as JSON. Unpickling would execute code from anyone who can write to Redis.

    Responses are stored too, for `cache_page` and Django's cache middleware, without cookies.
    """

    def dumps(self, value: Any) -> str:
        if isinstance(value, HttpResponse):
            content = base64.b64encode(value.content).decode()
            value = {RESPONSE: [value.status_code, dict(value.items()), content]}
        return json.dumps(value)

    def loads(self, data: bytes | str) -> Any:
        """Return the value; raise ValueError or RecursionError if it was not written by `dumps`."""
        value = json.loads(data)
        return read_response(value) if isinstance(value, dict) and RESPONSE in value else value


def read_response(value: dict[str, Any]) -> HttpResponse:
    try:
        status, headers, content = value[RESPONSE]
        return HttpResponse(base64.b64decode(content), status=status, headers=headers)
    except (TypeError, AttributeError) as error:
        raise ValueError("not a response") from error


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
