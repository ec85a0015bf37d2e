"""Which filters and lookups the lists of the console have."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest

MAXIMUM_CHOICES = 100  # of a filter
# The lookups of filters, date hierarchies and links. Others, such as a regular expression or one
# that the column's type does not support, fail in the database or read the whole table.
LOOKUPS = frozenset({"exact", "isnull", "in", "gt", "gte", "lt", "lte", "year", "month", "day"})


class BoundedRelatedFilter(admin.RelatedFieldListFilter):
    """A filter by a related row, with a bounded number of choices."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.lookup_choices) == MAXIMUM_CHOICES:
            self.title = f"{self.title} (the first {MAXIMUM_CHOICES})"

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: admin.ModelAdmin
    ) -> list[tuple[Any, Any]]:
        ordering = self.field_admin_ordering(field, request, model_admin)
        rows = field.related_model._default_manager.order_by(*ordering)[:MAXIMUM_CHOICES]
        return [(getattr(row, field.target_field.attname), str(row)) for row in rows]


admin.FieldListFilter.register(
    lambda field: field.remote_field, BoundedRelatedFilter, take_priority=True
)


def is_allowed(model_admin: admin.ModelAdmin, lookup: str, request: HttpRequest) -> bool:
    """
    Return whether a list may be filtered by a lookup.

    These are the filters of the list, its rows and the related rows that links name. Django also
    allows every field of the model, such as the hash of a password, and every annotation.
    """
    entries = model_admin.get_list_filter(request)
    filters: list[Any] = [
        entry[0] if isinstance(entry, list | tuple) else entry for entry in entries
    ]
    if lookup in {getattr(filter_class, "parameter_name", None) for filter_class in filters}:
        return True
    options = model_admin.opts
    fields = (*options.concrete_fields, *options.many_to_many)
    names = {field.name for field in fields if field.is_relation}
    names |= {options.pk.name, model_admin.date_hierarchy or options.pk.name}
    names |= {split_lookup(model_admin.model, name)[0] for name in filters if isinstance(name, str)}
    path, comparisons = split_lookup(model_admin.model, lookup)
    return path in names and LOOKUPS.issuperset(comparisons)


def split_lookup(model: type[Model], lookup: str) -> tuple[str, list[str]]:
    """Return the path of fields in a lookup, without the key of a related row, and what follows."""
    options: Any = model._meta
    path: list[str] = []
    parts = lookup.split(LOOKUP_SEP)
    while parts and options:
        try:
            field = options.get_field(options.pk.name if parts[0] == "pk" else parts[0])
        except FieldDoesNotExist:
            break
        parts = parts[1:]
        if not path or not getattr(field, "primary_key", False):
            path.append(field.name)
        options = field.related_model and field.related_model._meta
    return LOOKUP_SEP.join(path), parts
