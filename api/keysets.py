"""
The total order of a list, and cursors that name a place in it.

A cursor compares the keys of the order and the primary key as one row, which an index on them
serves however many keys are equal.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NoReturn

from django.core import signing
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import BooleanField, F, Func, Q, QuerySet, Value
from django.db.models.lookups import GreaterThan, LessThan
from rest_framework.exceptions import ErrorDetail, ValidationError

# The most characters that all keys of a cursor may have, since it is part of a request line.
LONGEST_KEYS = 256
# Types whose values survive a conversion to text and back.
KEY_TYPES = (
    models.BooleanField,
    models.CharField,
    models.DateField,
    models.DecimalField,
    models.FloatField,
    models.IntegerField,
    models.TextField,
    models.TimeField,
    models.UUIDField,
)


class Row(Func):
    function = "ROW"
    output_field = BooleanField()


def compiled(queryset: QuerySet[Any]) -> tuple[str, Any]:
    """Return the SQL of a queryset, even of one without rows such as `none()`."""
    statement, parameters = queryset.query.get_compiler(queryset.db, elide_empty=False).as_sql()
    return statement, parameters


def in_total_order(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Append the primary key where the order lacks it, in the direction of the key before it."""
    query = queryset.query
    if query.combinator or isinstance(query.group_by, tuple):
        return queryset  # Here a primary key would change what is selected.
    meta = queryset.model._meta
    keys = list(query.order_by or (query.default_ordering and meta.ordering) or ())
    if not {"pk", meta.pk.name, meta.pk.attname} & set(map(name_of, keys)):
        keys.append("-pk" if keys and is_descending(keys[-1]) else "pk")
    return queryset if query.order_by == tuple(keys) else queryset.order_by(*keys)


def is_descending(key: Any) -> bool:
    return key.startswith("-") if isinstance(key, str) else getattr(key, "descending", False)


def name_of(key: Any) -> str:
    return str(key).removeprefix("-")


def cursor_fields(queryset: QuerySet[Any]) -> list[Any]:
    """Return the fields of the order up to the primary key; none where a cursor would be wrong."""
    query, keys = queryset.query, queryset.query.order_by
    is_of_models = query.default_cols and not query.combinator
    if not is_of_models or len(set(map(is_descending, keys))) != 1:
        return []
    fields = [key_field(queryset.model, name_of(key)) for key in keys]
    ends = [place for place, field in enumerate(fields, 1) if field and field.primary_key]
    fields = fields[: ends[0]] if ends else []
    return fields if all(fields) else []


def key_field(model: type[models.Model], name: str) -> Any:
    """Return the field that orders rows by its own values, none of them null."""
    try:
        field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    # The name of a relation stands for the ordering of the related model.
    is_own = not field.is_relation or name in {"pk", field.attname}
    return field if is_own and not field.null and isinstance(key_type(field), KEY_TYPES) else None


def key_type(field: Any) -> Any:
    """Return how a key is compared: text as it is stored, whatever a field would make of it."""
    field = getattr(field, "target_field", field)
    return models.TextField() if isinstance(field, models.CharField | models.TextField) else field


class Keyset:
    """An ordered list, and the cursors that name a place in it."""

    def __init__(
        self, queryset: QuerySet[Any], limit: int, conditions: tuple[Q, Q] | None = None
    ) -> None:
        self.queryset = queryset
        self.limit = limit
        self.conditions = conditions
        self.fields = cursor_fields(queryset)
        self.names = [field.attname for field in self.fields]

    @functools.cached_property
    def fingerprint(self) -> str:
        match = self.conditions[0] if self.conditions else Q()
        return digest([*compiled(self.queryset.filter(match)), self.limit])

    def values(self, row: Any) -> list[Any]:
        return [getattr(row, name) for name in self.names]

    def cursor(self, values: list[Any]) -> str:
        """Name the place behind a row by its keys, or by its primary key if they are long."""
        keys = [str(value) for value in values]
        is_short = sum(map(len, keys)) <= LONGEST_KEYS
        place = [keys, ""] if is_short else [keys[-1:], digest(keys)]
        return signing.dumps([self.fingerprint, *place], salt=__name__, compress=True)

    def place(self, cursor: str) -> Q:
        """Select what follows the row that a cursor names. Reject a cursor of another list."""
        try:
            fingerprint, keys, checksum = signing.loads(cursor, salt=__name__)
        except signing.BadSignature:
            fingerprint, keys, checksum = None, [], ""
        if fingerprint != self.fingerprint:
            reject("cursor", "The cursor does not belong to this list.")
        if checksum:
            keys = self.keys_of(keys[0], checksum)
        types = map(key_type, self.fields)
        return self.behind([t.to_python(key) for t, key in zip(types, keys, strict=True)])

    def behind(self, values: Sequence[Any]) -> Q:
        """Select what follows the row that has these keys."""
        row = Row(*(Value(v, key_type(f)) for v, f in zip(values, self.fields, strict=True)))
        comparison = LessThan if is_descending(self.queryset.query.order_by[0]) else GreaterThan
        return Q(comparison(Row(*map(F, self.names)), row))

    def keys_of(self, pk: str, checksum: str) -> list[str]:
        """Read the keys of a row, if they still are what they were."""
        rows = self.queryset.model._base_manager.using(self.queryset.db).filter(pk=pk)
        keys = [str(value) for value in rows.values_list(*self.names).first() or ()]
        if digest(keys) != checksum:
            reject("cursor", "The row at the cursor has changed. Start again.")
        return keys


def digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def reject(name: str, text: str) -> NoReturn:
    raise ValidationError({name: [ErrorDetail(text, code="invalid")]})
