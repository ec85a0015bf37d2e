"""
DRF's serializers, with fields that are built once per class.

DRF builds the fields of a serializer for each instance and inspects all of them for each row. These
classes build them once, and read values that need no context directly from their source. Fields are
declared as in DRF.
"""

import copy
import functools
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from rest_framework import ISO_8601, serializers
from rest_framework.settings import api_settings

Serializing = Any  # an instance of one of the classes below
Reader = Callable[[Serializing, Any], Any]


class FieldsPerClass:
    """A mixin that caches the fields of a DRF serializer class."""

    __class__: Any  # mypy considers a class unhashable

    def get_fields(self) -> dict[str, Any]:
        return copy.deepcopy(fields_of(self.__class__))

    def build_fields(self) -> dict[str, Any]:
        """Build the fields as DRF does."""
        fields: dict[str, Any] = super().get_fields()  # type: ignore[misc]  # the method of DRF
        return fields

    def to_representation(self, instance: Any) -> dict[str, Any]:
        try:
            return {name: read(self, instance) for name, read in readers_of(self.__class__)}
        except AttributeError:
            # DRF handles mappings, defaults and skipped fields, or raises its error.
            return super().to_representation(instance)  # type: ignore[misc, no-any-return]  # DRF


# Without docstrings: the OpenAPI document would show them as descriptions of subclasses.
class Serializer(FieldsPerClass, serializers.Serializer[Any]):
    pass


class ModelSerializer(FieldsPerClass, serializers.ModelSerializer[Any]):
    pass


@functools.cache
def fields_of(serializer: type[Serializing]) -> dict[str, Any]:
    fields: dict[str, Any] = serializer().build_fields()
    return fields


@functools.cache
def readers_of(serializer: type[Serializing]) -> list[tuple[str, Reader]]:
    fields = serializer().fields
    return [(name, reader(field)) for name, field in fields.items() if not field.write_only]


def reader(field: Any) -> Reader:
    """Return a function that reads one field of an instance."""
    represent = representation(field)
    if represent is None:
        return functools.partial(read_through_field, field.field_name)
    get = attrgetter(field.source)

    def read(serializer: Serializing, instance: Any) -> Any:
        value = get(instance)
        if callable(value):
            value = value()
        return None if value is None else represent(value)

    return read


def read_through_field(name: str, serializer: Serializing, instance: Any) -> Any:
    field = serializer.fields[name]
    value = field.get_attribute(instance)
    return None if value is None else field.to_representation(value)


def representation(field: Any) -> Callable[[Any], Any] | None:
    """Return a function for DRF's representation, or None if it needs the field or its context."""
    method = type(field).to_representation
    if field.source == "*":
        return None
    if method is serializers.CharField.to_representation:
        return str
    if method is serializers.IntegerField.to_representation or is_plain_bigint(field):
        return int
    if method is serializers.DateTimeField.to_representation and has_default_format(field):
        return unchanged  # The renderer uses the same format.
    return None


def is_plain_bigint(field: Any) -> bool:
    return isinstance(field, serializers.BigIntegerField) and not getattr(
        field, "coerce_to_string", api_settings.COERCE_BIGINT_TO_STRING
    )


def has_default_format(field: Any) -> bool:
    return bool(getattr(field, "format", api_settings.DATETIME_FORMAT) == ISO_8601)


def unchanged(value: Any) -> Any:
    return value
