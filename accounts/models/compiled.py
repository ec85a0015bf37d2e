"""
SQL compiled from the ORM once per process, for the query of every authenticated request.

The ORM takes longer to compile it than PostgreSQL to run it.
"""

from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models


class CompiledQuery:
    """The statement and the columns of a `values_list()`, and the ORM's values of its rows."""

    def __init__(self, queryset: models.QuerySet[Any, Any]) -> None:
        compiler = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        self.statement, self.parameters = compiler.as_sql()
        columns: Any = compiler.select
        self.columns = ", ".join(sql for _, (sql, _), _ in columns)
        # Of an encrypted field, for example; a backend has some for JSON.
        self.converters = compiler.get_converters([expression for expression, *_ in columns])

    def values(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for place, (converters, expression) in self.converters.items():
            for convert in converters:
                values[place] = convert(values[place], expression, connection)
        return values
