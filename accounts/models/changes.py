import copy
from collections.abc import Collection, Iterable
from datetime import date
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from django.db import DatabaseError, models

# The types of most columns. A value of another type, such as JSON, may be changed in place.
IMMUTABLE = (str, int, float, bytes, date, UUID, Decimal, type(None))


class RowDeletedError(DatabaseError):
    """The row was deleted since it was read."""


class ChangesModel(models.Model):
    """
    A model that knows which of its fields changed since its row was read.

    A form, a shell or `manage.py changepassword` may wait between reading and saving. To write the
    whole row, as Django does, undoes what others changed meanwhile.
    """

    # The names and the values of the columns that were read; compared only when a row is saved.
    read: tuple[Collection[str], Collection[Any]] = ((), ())

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls,
        db: str | None,
        field_names: Collection[str],
        values: Collection[Any],
        **options: Any,
    ) -> Self:
        row = super().from_db(db, field_names, values, **options)
        row.read = field_names, as_read(values)
        return row

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Any] | None = None,
    ) -> None:
        names = None if fields is None else set(fields)
        super().refresh_from_db(using, names, from_queryset)
        self.remember(names)

    def remember(self, names: Collection[str] | None = None) -> None:
        """Take the present values of these fields, or of all, as the stored ones."""
        known = self.column_values()
        values = dict(zip(*self.read, strict=True))
        values |= {name: known[name] for name in known if names is None or name in names}
        self.read = tuple(values), as_read(values.values())

    def changed_fields(self) -> set[str]:
        read = dict(zip(*self.read, strict=True))
        return {
            name
            for name, value in self.column_values().items()
            if name not in read or read[name] != value
        }

    def column_values(self) -> dict[str, Any]:
        """Return the values of the columns, without those that were not read yet."""
        names = [field.attname for field in self._meta.concrete_fields]
        return {name: self.__dict__[name] for name in names if name in self.__dict__}


def as_read(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return values that stay as they were read."""
    return tuple(v if isinstance(v, IMMUTABLE) else copy.deepcopy(v) for v in values)
