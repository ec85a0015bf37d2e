"""
Search a table of any size by reading a bounded number of its rows.

A search is a pair of conditions. The first one, `match`, decides about a row. The second one,
`index`, holds wherever `match` holds, and one index decides it without reading rows (such as `@>`
by GIN). A search takes at most three steps:

1. Read the first rows of the list, in its order. This is all of a short list.
2. Read a sample of the table. If so many rows match that they would not be counted, the result of
   step 1 stands: the count is what it found, and a cursor continues behind its last row. A page may
   be short, but the walk visits every row.
3. Otherwise read the rows that the index names. If they are few, they are all: sort, count. If they
   are too many after all, the result of step 1 stands.

Step 1 needs an index on the ordering, and step 3 one for `index`. Nothing here depends on what
PostgreSQL's statistics know.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import connections, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Func, Q, QuerySet, Value
from django.db.models.expressions import RawSQL

from api.keysets import compiled

# How many rows each step reads at most.
SEARCH_ROWS = 2_000
# How many pages of the table a sample has; a page has some dozens of rows.
SAMPLE_PAGES = 20


class AnyOf(Func):
    """As `__in`, with one parameter for all values."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY ("
    output_field = BooleanField()


@dataclass(frozen=True)
class Found:
    """The primary keys of matching rows, in order."""

    pks: list[Any]
    count: int
    is_capped: bool = False
    last: list[Any] | None = None  # The keys of the last row read, where not all rows were.


class Search:
    """A search of an ordered queryset; `keys` are the names that its cursors compare."""

    def __init__(self, queryset: QuerySet[Any], conditions: tuple[Q, Q], keys: list[str]) -> None:
        self.queryset = queryset
        self.conditions = conditions
        self.keys = keys

    def find(self, place: Q | None) -> Found:
        """Find what matches behind a place; `count` is of the whole list."""
        start = self.walk(self.queryset)
        if place is None and not start.is_capped:
            return start
        pks = self.complete(start)
        if pks is not None:
            return self.sort(pks, place)
        if place is None:
            return start
        return replace(self.walk(self.queryset.filter(place)), count=start.count, is_capped=True)

    def sort(self, pks: list[Any], place: Q | None) -> Found:
        """Sort rows that are known to match, and leave out what the queryset does not select."""
        # Without a LIMIT: for its sake PostgreSQL would walk the ordering's index instead.
        array = Value(pks, ArrayField(self.queryset.model._meta.pk))
        rows = self.queryset.filter(AnyOf(F("pk"), array)).values_list("pk", flat=True)
        found = list(rows)
        return Found(found if place is None else list(rows.filter(place)), len(found))

    def complete(self, start: Found) -> list[Any] | None:
        """Return all rows that match, in any order, if they are few enough to be known."""
        if not start.is_capped:
            return start.pks
        if self.is_common():
            return None
        found = indexed(self.queryset, self.conditions)
        return None if found.is_capped else found.pks

    def walk(self, queryset: QuerySet[Any]) -> Found:
        """Look for what matches among the first rows."""
        return read(queryset, self.conditions[0], SEARCH_ROWS, self.keys)

    def is_common(self) -> bool:
        """Tell from a sample whether more rows of the table match than could be counted."""
        model, using = self.queryset.model, self.queryset.db
        table = connections[using].ops.quote_name(model._meta.db_table)
        rows = model._base_manager.using(using).annotate(
            search_match=ExpressionWrapper(self.conditions[0], BooleanField()),
            search_page=RawSQL(f"({table}.ctid::text::point)[0]", ()),  # noqa: S611 - a quoted name
        )
        statement, parameters = compiled(rows.values("search_match", "search_page"))
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_relation_size(%s) / 8192", [table])
            scale = max(1, cursor.fetchone()[0] / SAMPLE_PAGES)
            sample = f"FROM {table} TABLESAMPLE SYSTEM ({100 / scale}) REPEATABLE (1)"
            statement = statement.replace(f"FROM {table}", sample, 1)
            cursor.execute(
                "SELECT count(*), count(DISTINCT search_page)"  # noqa: S608 - the ORM's own SQL
                f" FROM ({statement} LIMIT {SEARCH_ROWS}) AS sample"
                " WHERE search_match",
                parameters,
            )
            count, pages = cursor.fetchone()
        # Rows that came together share pages: one page says nothing about the table.
        return bool(pages > 1 and count * scale > 2 * SEARCH_ROWS)


def indexed(queryset: QuerySet[Any], conditions: tuple[Q, Q]) -> Found:
    """Find what matches among the rows of the whole table that the index names, in any order."""
    match, index = conditions
    rows = queryset.model._default_manager.using(queryset.db).filter(index).order_by()
    with only_by_index(queryset.db):
        return read(rows, match, SEARCH_ROWS + 1)


def read(rows: QuerySet[Any], match: Q, most: int, keys: Sequence[str] = ()) -> Found:
    """Read at most so many rows and find what matches among them, in one statement."""
    decided = rows.annotate(search_match=ExpressionWrapper(match, BooleanField()))
    statement, parameters = compiled(decided.values_list("pk", "search_match", *keys)[:most])
    names = ["pk", "search_match", *(f"key_{number}" for number, _ in enumerate(keys))]
    lasts = [f"(array_agg({name}))[count(*)]" for name in names[2:]]
    columns = ", ".join(["count(*)", "array_agg(pk) FILTER (WHERE search_match)", *lasts])
    with connections[rows.db].cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM ({statement}) AS found ({', '.join(names)})",  # noqa: S608
            parameters,
        )
        count, pks, *last = cursor.fetchone()
    is_capped = count == most
    return Found(pks or [], len(pks or []), is_capped, last if is_capped else None)


@contextlib.contextmanager
def only_by_index(using: str) -> Iterator[None]:
    """
    Keep PostgreSQL from scanning the table until enough rows match, as it does for common words.

    Memory keeps a bitmap exact: for a lossy one, each row of a page would be checked again.
    """
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT set_config('enable_seqscan', 'off', true), set_config('work_mem', '64MB', true)"
        )
        yield
        # The settings end here, in a transaction of the caller too.
        transaction.set_rollback(True, using=using)
