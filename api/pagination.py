"""
Pagination whose cost does not grow with the table.

The count stops at 10,000, and so do the pages. A cursor (api.keysets) continues from there.

A view with a searchable list sets `search_conditions` (api.search).
"""

import re
from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from rest_framework.exceptions import NotFound
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from api.keysets import Keyset, compiled, has_rows_of_model, in_total_order, reject
from api.search import Search

MAXIMUM_COUNT = 10_000
MAXIMUM_LIMIT = 100
DEFAULT_LIMIT = 10
# From this offset on, a separate statement finds the start of a page.
DEEP_OFFSET = 1_000


class BoundedPagination(BasePagination):
    """
    Paginate a queryset in any order, or a list; append the primary key if an order lacks it.

    After the last page, `next` contains a cursor if all keys have the same direction and none is
    nullable. A cursor is bound to the SQL of the queryset, including the filters of the view.
    A filter by time should therefore use the database's clock (`Now()`).
    """

    def paginate_queryset(
        self,
        queryset: QuerySet[Any] | Sequence[Any],
        request: Request,
        view: APIView | None = None,
    ) -> list[Any]:
        self.url = request.build_absolute_uri()
        self.limit = positive_integer(request, "limit", DEFAULT_LIMIT, high=MAXIMUM_LIMIT)
        self.page = positive_integer(request, "page", 1)
        self.start = (self.page - 1) * self.limit
        self.previous = self.link(page=self.page - 1) if self.page > 1 else None
        self.next: str | None = None
        if not isinstance(queryset, QuerySet):
            return self.read_sequence(queryset, request)
        conditions: tuple[Q, Q] | None = getattr(view, "search_conditions", None)
        keyset = Keyset(in_total_order(queryset), self.limit, conditions)
        position = self.position(request, keyset)
        if conditions is None:
            return self.read_list(keyset, position)
        return self.read_search(keyset, position, Search(keyset.queryset, conditions, keyset.names))

    def position(self, request: Request, keyset: Keyset) -> Q | None:
        """Return the condition for rows after the request's cursor, or None without a cursor."""
        cursor = request.query_params.get("cursor")
        if cursor is None:
            self.check_start()
            return None
        if "page" in request.query_params:
            reject("cursor", "cursor and page are mutually exclusive.")
        return keyset.position(cursor)

    def check_start(self) -> None:
        if self.start >= MAXIMUM_COUNT:
            raise NotFound

    def read_sequence(self, rows: Sequence[Any], request: Request) -> list[Any]:
        """Read a page of a list, a tuple or a raw query, which have no cursors."""
        if "cursor" in request.query_params:
            reject("cursor", _("This list has no cursors."))
        self.check_start()
        end = self.start + self.limit
        page = list(rows[self.start : end])
        if self.start and not page:
            raise NotFound
        self.count, self.count_capped = min(len(rows), MAXIMUM_COUNT), len(rows) > MAXIMUM_COUNT
        if end < self.count:
            self.next = self.link(page=self.page + 1)
        return page

    def read_list(self, keyset: Keyset, position: Q | None) -> list[Any]:
        rows = list(self.rows_from(keyset, position)[: self.limit + 1])
        if self.start and not rows:
            raise NotFound
        has_more = len(rows) > self.limit
        rows = rows[: self.limit]
        if has_more:
            self.next = self.link_after(keyset, position, keyset.values(rows[-1]))
        # The first page of a short list is the whole list, so it needs no count.
        is_whole = position is None and not self.start and not has_more
        count = len(rows) if is_whole else bounded_count(keyset.queryset)
        self.count, self.count_capped = min(count, MAXIMUM_COUNT), count > MAXIMUM_COUNT
        return rows

    def rows_from(self, keyset: Keyset, position: Q | None) -> QuerySet[Any]:
        if position is not None:
            return keyset.queryset.filter(position)
        if self.start < DEEP_OFFSET or not keyset.names:
            return keyset.queryset[self.start :]
        # An index-only scan finds the row before the page. It is a separate statement, because
        # PostgreSQL repeats a subquery for each row if its statistics expect one row.
        before = keyset.queryset.values_list(*keyset.names)[self.start - 1 : self.start]
        keys = next(iter(before), None)
        if keys is None:
            raise NotFound
        return keyset.queryset.filter(keyset.after(keys))

    def read_search(self, keyset: Keyset, position: Q | None, search: Search) -> list[Any]:
        found = search.find(position)
        end = self.start + self.limit
        rows = list(keyset.queryset.filter(pk__in=found.pks[self.start : end]))
        if self.start and not rows:
            raise NotFound
        self.count, self.count_capped = found.count, found.is_capped
        if len(found.pks) > end:
            self.next = self.link_after(keyset, position, keyset.values(rows[-1]) if rows else [])
        elif found.last:
            self.next = self.cursor_link(keyset, found.last)
        return rows

    def link_after(self, keyset: Keyset, position: Q | None, values: list[Any]) -> str | None:
        if position is None and self.start + self.limit < MAXIMUM_COUNT:
            return self.link(page=self.page + 1)
        return self.cursor_link(keyset, values)

    def cursor_link(self, keyset: Keyset, values: list[Any]) -> str | None:
        return self.link(cursor=keyset.cursor(values)) if values else None

    def link(self, **parameters: Any) -> str:
        url = remove_query_param(remove_query_param(self.url, "page"), "cursor")
        for name, value in parameters.items():
            url = replace_query_param(url, name, value)
        return url

    def get_paginated_response(self, data: Any) -> Response:
        return Response(
            {
                "count": self.count,
                "count_capped": self.count_capped,
                "next": self.next,
                "previous": self.previous,
                "results": data,
            }
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["count", "count_capped", "next", "previous", "results"],
            "properties": {
                "count": {"type": "integer", "minimum": 0, "maximum": MAXIMUM_COUNT},
                "count_capped": {
                    "type": "boolean",
                    "description": "Whether more rows may exist. A list counts up to "
                    f"{MAXIMUM_COUNT:,} rows, a search the matches among the rows that it reads.",
                },
                "next": {
                    **link,
                    "description": "The next page, or null at the end. A page of a search may have "
                    "fewer results than `limit`, or none, before the end.",
                },
                "previous": link,
                "results": schema,
            },
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MAXIMUM_LIMIT}
        limit["default"] = DEFAULT_LIMIT
        return [
            parameter(
                "page", {"type": "integer", "minimum": 1, "default": 1}, "The page number, from 1."
            ),
            parameter("limit", limit, "The number of results on a page."),
            parameter(
                "cursor",
                {"type": "string"},
                "The cursor of `next`. Not allowed with `page`.",
            ),
        ]


def bounded_count(queryset: QuerySet[Any]) -> int:
    """Count at most `MAXIMUM_COUNT` + 1 rows. Django's `count()` takes twice as long to compile."""
    query = queryset.query
    if not query.is_sliced:
        queryset = queryset.order_by()
    if has_rows_of_model(query) and not (query.distinct and query.annotations):
        queryset = queryset.values("pk")
    statement, parameters = compiled(queryset[: MAXIMUM_COUNT + 1])
    with connections[queryset.db].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({statement}) AS found", parameters)  # noqa: S608 - compiled SQL
        return int(cursor.fetchone()[0])


def positive_integer(request: Request, name: str, default: int, high: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = re.fullmatch(r"0*([0-9]*)", text)
    # More digits than 18 are a larger number, whatever they are. Converting many takes long.
    number = int(digits[1][:19]) if digits and digits[1] else 0
    if not number or (high and number > high):
        lowest = _("This must be an integer of at least 1.")
        both = _("This must be an integer of at least 1 and at most %s.") % high
        reject(name, both if high else lowest)
    return number


def parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
