"""
Search a table of any size by reading a bounded number of its rows.

A search is a pair of conditions. `match` selects the matching rows. `index` is true for every
matching row, and one index evaluates it without reading rows (such as `@>` with GIN). A search
takes at most three steps:

1. Read the first rows of the list, in its order. A short list is complete after this step.
2. Read a sample of the table. If too many rows match to count them, return the result of step 1:
   its count, and a cursor after its last row. A page may be short, but the cursors visit every row.
3. Otherwise read the rows that the index finds. If they are few, they are complete: sort and count
   them. If they are too many, return the result of step 1.

Step 1 needs an index on the ordering, step 3 an index for `index`. No step depends on PostgreSQL's
statistics.
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

# The most rows that each step reads.
SEARCH_ROWS = 2_000
# The pages of the table in a sample. A page has some dozens of rows.
SAMPLE_PAGES = 20


class AnyOf(Func):
    """`__in` with one parameter for all values."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY ("
    output_field = BooleanField()


@dataclass(frozen=True)
class Matches:
    """The primary keys of matching rows, in order."""

    pks: list[Any]
    count: int
    is_capped: bool = False
    last: list[Any] | None = None  # The keys of the last row read, if rows are left.


class Search:
    """A search of an ordered queryset; `keys` are the columns that its cursors compare."""

    def __init__(self, queryset: QuerySet[Any], conditions: tuple[Q, Q], keys: list[str]) -> None:
        self.queryset = queryset
        self.conditions = conditions
        self.keys = keys

    def find(self, position: Q | None) -> Matches:
        """Return the matches after a position; `count` is the count of the whole list."""
        start = self.read_first(self.queryset)
        if position is None and not start.is_capped:
            return start
        pks = self.read_all(start)
        if pks is not None:
            return self.sort(pks, position)
        if position is None:
            return start
        return replace(
            self.read_first(self.queryset.filter(position)), count=start.count, is_capped=True
        )

    def sort(self, pks: list[Any], position: Q | None) -> Matches:
        """Sort matching rows, without those that the queryset does not select."""
        # No LIMIT: with one, PostgreSQL would scan the index of the ordering.
        array = Value(pks, ArrayField(self.queryset.model._meta.pk))
        rows = self.queryset.filter(AnyOf(F("pk"), array)).values_list("pk", flat=True)
        found = list(rows)
        return Matches(found if position is None else list(rows.filter(position)), len(found))

    def read_all(self, start: Matches) -> list[Any] | None:
        """Return all matches in any order, or None if they are too many."""
        if not start.is_capped:
            return start.pks
        if self.is_common():
            return None
        found = find_by_index(self.queryset, self.conditions)
        return None if found.is_capped else found.pks

    def read_first(self, queryset: QuerySet[Any]) -> Matches:
        """Return the matches among the first rows."""
        return read(queryset, self.conditions[0], SEARCH_ROWS, self.keys)

    def is_common(self) -> bool:
        """Return whether a sample shows that too many rows match to count them."""
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
        # Rows that were inserted together share pages, so one page is no sample.
        return bool(pages > 1 and count * scale > 2 * SEARCH_ROWS)


def find_by_index(queryset: QuerySet[Any], conditions: tuple[Q, Q]) -> Matches:
    """Return the matches among the rows that the index finds in the whole table, in any order."""
    match, index = conditions
    rows = queryset.model._default_manager.using(queryset.db).filter(index).order_by()
    with forced_index_scan(queryset.db):
        return read(rows, match, SEARCH_ROWS + 1)


def read(rows: QuerySet[Any], match: Q, most: int, keys: Sequence[str] = ()) -> Matches:
    """Read at most `most` rows and return the matches among them, in one statement."""
    decided = rows.annotate(search_match=ExpressionWrapper(match, BooleanField()))
    statement, parameters = compiled(decided.values_list("pk", "search_match", *keys)[:most])
    names = ["pk", "search_match", *(f"key_{number}" for number, _ in enumerate(keys))]
    lasts = [f"(array_agg({name}))[count(*)]" for name in names[2:]]
    columns = ", ".join(["count(*)", "array_agg(pk) FILTER (WHERE search_match)", *lasts])
    with connections[rows.db].cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM ({statement}) AS found ({', '.join(names)})",  # noqa: S608 - compiled SQL
            parameters,
        )
        count, pks, *last = cursor.fetchone()
    is_capped = count == most
    return Matches(pks or [], len(pks or []), is_capped, last if is_capped else None)


@contextlib.contextmanager
def forced_index_scan(using: str) -> Iterator[None]:
    """
    Prevent a sequential scan, which PostgreSQL prefers for common words.

    More memory keeps bitmaps exact. A lossy bitmap would recheck each row of a page.
    """
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT set_config('enable_seqscan', 'off', true), set_config('work_mem', '64MB', true)"
        )
        yield
        # A rollback also resets the settings within the caller's transaction.
        transaction.set_rollback(True, using=using)
