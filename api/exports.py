"""
Exports: all that is stored about a user as one JSON document, in flat memory.

An app adds its parts by a method of its `AppConfig`: `export(user)` yields the name of each part
and its value, an object or the rows of a queryset.
"""

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from rest_framework.exceptions import APIException
from rest_framework.utils.encoders import JSONEncoder

from api.keysets import Keyset, in_total_order

BATCH = 500  # rows of a statement
CHUNK = 64 * 1024  # characters
# Each export takes a thread for as long as its client reads. Others must remain for requests.
PLACES = threading.BoundedSemaphore(2)

encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class ExportBusyError(APIException):
    """The process has no place for another export; `wait` is in seconds."""

    status_code = 503
    default_code = "service_unavailable"
    wait = 10


class Export:
    """The chunks of a JSON object with these parts; it takes a place until it is closed."""

    def __init__(self, parts: Iterable[tuple[str, Any]]) -> None:
        if not PLACES.acquire(blocking=False):
            raise ExportBusyError
        # It releases once, even if the response is never sent.
        self.close = weakref.finalize(self, PLACES.release)
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        chunk, size = [], 0
        for text in texts(self.parts):
            chunk.append(text)
            size += len(text)
            if size >= CHUNK:
                yield "".join(chunk).encode()
                chunk, size = [], 0
        yield "".join(chunk).encode()


def texts(parts: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the JSON of an object, each row by itself."""
    yield "{"
    for number, (name, value) in enumerate(parts):
        yield f"{',' if number else ''}{encode(name)}:"
        if isinstance(value, Mapping):
            yield encode(value)
        else:
            yield "["
            for index, row in enumerate(value):
                yield f"{',' if index else ''}{encode(row)}"
            yield "]"
    yield "}"


def parts_of(user: Any) -> list[tuple[str, Any]]:
    """Return the parts of all apps; raise ImproperlyConfigured if two have the same name."""
    exporting = [app for app in apps.get_app_configs() if hasattr(app, "export")]
    parts = [part for app in exporting for part in app.export(user)]
    names = [name for name, _ in parts]
    if len(names) > len(set(names)):
        raise ImproperlyConfigured(f"Parts of the export have the same name: {names}")
    return parts


def rows(queryset: QuerySet[Any], serializer: type[Any]) -> Iterator[Any]:
    """
    Return an iterator of a queryset's rows in its order, each as the serializer represents it.

    Each batch is a statement of its own, so a client that reads slowly holds no transaction open,
    and PgBouncer may assign another connection. An index should serve the queryset's conditions
    and its order, in which a change of a row must not move it back: the row would be missing.
    Raises ImproperlyConfigured for an order that a cursor cannot follow.
    """
    keyset = Keyset(in_total_order(queryset), BATCH)
    if not keyset.fields:
        raise ImproperlyConfigured(
            f"An export cannot follow the order {keyset.queryset.query.order_by}"
        )
    return map(serializer().to_representation, read(keyset))


def read(keyset: Keyset) -> Iterator[Any]:
    batch = list(keyset.queryset[: keyset.limit])
    while batch:
        yield from batch
        after = keyset.after(keyset.values(batch[-1]))
        is_last = len(batch) < keyset.limit
        batch = [] if is_last else list(keyset.queryset.filter(after)[: keyset.limit])
