"""
Keyset pagination: total orders, and cursors that identify a position in a list.

A cursor compares the keys of the order and the primary key as one row. An index on these columns
serves the comparison, however many keys are equal.
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
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError

# The most characters of all keys in a cursor. A cursor is part of the request line.
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
    """Append the primary key to an order without it, in the direction of the preceding key."""
    query = queryset.query
    if not has_rows_of_model(query) or query.distinct_fields or query.extra_order_by:
        return queryset  # A primary key would change the result, or the order.
    meta = queryset.model._meta
    keys = list(query.order_by or (query.default_ordering and meta.ordering) or ())
    if not {"pk", meta.pk.name, meta.pk.attname} & set(map(name_of, keys)):
        keys.append("-pk" if keys and is_descending(keys[-1]) else "pk")
    return queryset if query.order_by == tuple(keys) else queryset.order_by(*keys)


def has_rows_of_model(query: Any) -> bool:
    """Return whether each row of a query is one row of its model, and can still be ordered."""
    is_grouped = isinstance(query.group_by, tuple)
    is_reduced = query.distinct and not query.default_cols
    return not (query.combinator or query.is_sliced or is_grouped or is_reduced)


def is_descending(key: Any) -> bool:
    return key.startswith("-") if isinstance(key, str) else getattr(key, "descending", False)


def name_of(key: Any) -> str:
    return str(key).removeprefix("-")


def cursor_fields(queryset: QuerySet[Any]) -> list[Any]:
    """Return the fields of the order up to the primary key; [] if a cursor cannot follow it."""
    query, keys = queryset.query, queryset.query.order_by
    selects_models = query.default_cols and has_rows_of_model(query)
    is_changed = query.extra_order_by or query.distinct_fields or not query.standard_ordering
    if not selects_models or is_changed or len(set(map(is_descending, keys))) != 1:
        return []
    fields = [key_field(queryset.model, name_of(key)) for key in keys]
    ends = [position for position, field in enumerate(fields, 1) if field and field.primary_key]
    fields = fields[: ends[0]] if ends else []
    return fields if all(fields) else []


def key_field(model: type[models.Model], name: str) -> Any:
    """
    Return the field of a key, or None if a cursor cannot compare it.

    Such a key is nullable, sorts by other values than its own, or is read as another value than the
    database has.
    """
    try:
        field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    # The name of a relation means the ordering of the related model.
    is_own = not field.is_relation or name in {"pk", field.attname}
    is_raw = not hasattr(field, "from_db_value") and isinstance(key_type(field), KEY_TYPES)
    return field if is_own and is_raw and not field.null else None


def key_type(field: Any) -> Any:
    """Return the type for comparisons. Text is compared as stored, not as the field converts it."""
    field = getattr(field, "target_field", field)
    return models.TextField() if isinstance(field, models.CharField | models.TextField) else field


class Keyset:
    """An ordered queryset and its cursors."""

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
        """Return the cursor after a row: its keys, or its primary key if the keys are long."""
        keys = [str(value) for value in values]
        is_short = sum(map(len, keys)) <= LONGEST_KEYS
        position = [keys, ""] if is_short else [keys[-1:], digest(keys)]
        return signing.dumps([self.fingerprint, *position], salt=__name__, compress=True)

    def position(self, cursor: str) -> Q:
        """Return the condition for rows after a cursor; reject a cursor of another list."""
        if not self.fields:
            reject("cursor", _("This list has no cursors."))
        try:
            fingerprint, keys, checksum = signing.loads(cursor, salt=__name__)
        except signing.BadSignature:
            fingerprint, keys, checksum = None, [], ""
        if fingerprint != self.fingerprint:
            reject("cursor", _("The cursor does not belong to this list."))
        if checksum:
            keys = self.read_keys(keys[0], checksum)
        types = map(key_type, self.fields)
        return self.after([t.to_python(key) for t, key in zip(types, keys, strict=True)])

    def after(self, values: Sequence[Any]) -> Q:
        """Return the condition for rows after the row with these keys."""
        row = Row(*(Value(v, key_type(f)) for v, f in zip(values, self.fields, strict=True)))
        comparison = LessThan if is_descending(self.queryset.query.order_by[0]) else GreaterThan
        return Q(comparison(Row(*map(F, self.names)), row))

    def read_keys(self, pk: str, checksum: str) -> list[str]:
        """Return the keys of a row; raise ValidationError if they have changed since the cursor."""
        rows = self.queryset.model._base_manager.using(self.queryset.db).filter(pk=pk)
        keys = [str(value) for value in rows.values_list(*self.names).first() or ()]
        if digest(keys) != checksum:
            reject("cursor", _("The row at the cursor has changed. Start again."))
        return keys


def digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def reject(name: str, text: str) -> NoReturn:
    raise ValidationError({name: [ErrorDetail(text, code="invalid")]})
