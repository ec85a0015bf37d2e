"""
Lists whose cost does not grow with the table.

The count stops at 10,000, and pages end there. A cursor (see api.keysets) walks on.

A view whose list can be searched sets `search_conditions` (see api.search).
"""

import re
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from api.keysets import Keyset, compiled, in_total_order, reject
from api.search import Search

MAXIMUM_COUNT = 10_000
MAXIMUM_LIMIT = 100
DEFAULT_LIMIT = 10
# From this row on, a page is found by a statement of its own.
DEEP = 1_000


class BoundedPagination(BasePagination):
    """
    Page through a queryset in any order. A primary key that the order lacks is appended.

    Where pages end, `next` contains a cursor if all keys have one direction and none is null.
    A cursor is bound to the SQL of the queryset, which includes the filters of the view.
    A filter by time should therefore use the database's clock (`Now()`).
    """

    def paginate_queryset(  # type: ignore[override]
        self,
        queryset: QuerySet[Any],
        request: Request,
        view: APIView | None = None,
    ) -> list[Any]:
        self.url = request.build_absolute_uri()
        self.limit = whole_number(request, "limit", DEFAULT_LIMIT, high=MAXIMUM_LIMIT)
        self.page = whole_number(request, "page", 1)
        self.start = (self.page - 1) * self.limit
        self.previous = self.link(page=self.page - 1) if self.page > 1 else None
        self.next: str | None = None
        conditions: tuple[Q, Q] | None = getattr(view, "search_conditions", None)
        keyset = Keyset(in_total_order(queryset), self.limit, conditions)
        place = self.place(request, keyset)
        if conditions is None:
            return self.read_list(keyset, place)
        return self.read_search(keyset, place, Search(keyset.queryset, conditions, keyset.names))

    def place(self, request: Request, keyset: Keyset) -> Q | None:
        """Return a condition for what follows the request's cursor, or nothing for a page."""
        cursor = request.query_params.get("cursor")
        if cursor is None:
            if self.start >= MAXIMUM_COUNT:
                raise NotFound
            return None
        if "page" in request.query_params:
            reject("cursor", "A cursor and a page exclude each other.")
        return keyset.place(cursor)

    def read_list(self, keyset: Keyset, place: Q | None) -> list[Any]:
        rows = list(self.rows_from(keyset, place)[: self.limit + 1])
        if self.start and not rows:
            raise NotFound
        has_more = len(rows) > self.limit
        rows = rows[: self.limit]
        if has_more:
            self.next = self.link_behind(keyset, place, keyset.values(rows[-1]))
        # The first page of a short list is all of it, and needs no statement for the count.
        is_whole = place is None and not self.start and not has_more
        count = len(rows) if is_whole else bounded_count(keyset.queryset)
        self.count, self.count_capped = min(count, MAXIMUM_COUNT), count > MAXIMUM_COUNT
        return rows

    def rows_from(self, keyset: Keyset, place: Q | None) -> QuerySet[Any]:
        if place is not None:
            return keyset.queryset.filter(place)
        if self.start < DEEP or not keyset.names:
            return keyset.queryset[self.start :]
        # An index alone finds the row before a page. As a statement of its own: PostgreSQL would
        # repeat a subquery for each row where its statistics expect one.
        before = keyset.queryset.values_list(*keyset.names)[self.start - 1 : self.start]
        keys = next(iter(before), None)
        if keys is None:
            raise NotFound
        return keyset.queryset.filter(keyset.behind(keys))

    def read_search(self, keyset: Keyset, place: Q | None, search: Search) -> list[Any]:
        found = search.find(place)
        end = self.start + self.limit
        rows = list(keyset.queryset.filter(pk__in=found.pks[self.start : end]))
        if self.start and not rows:
            raise NotFound
        self.count, self.count_capped = found.count, found.is_capped
        if len(found.pks) > end:
            self.next = self.link_behind(keyset, place, keyset.values(rows[-1]) if rows else [])
        elif found.last:
            self.next = self.cursor_link(keyset, found.last)
        return rows

    def link_behind(self, keyset: Keyset, place: Q | None, values: list[Any]) -> str | None:
        if place is None and self.start + self.limit < MAXIMUM_COUNT:
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
                    "description": f"Whether there may be more: {MAXIMUM_COUNT:,} are counted, "
                    "and of a search those among the rows that it reads.",
                },
                "next": link,
                "previous": link,
                "results": schema,
            },
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MAXIMUM_LIMIT}
        limit["default"] = DEFAULT_LIMIT
        return [
            parameter("page", {"type": "integer", "minimum": 1, "default": 1}, "From 1."),
            parameter("limit", limit, "How many results a page has."),
            parameter(
                "cursor", {"type": "string"}, "From `next`, where pages end; never beside `page`."
            ),
        ]


def bounded_count(queryset: QuerySet[Any]) -> int:
    """Count rows up to the maximum and one more. `count()` takes twice as long to compile."""
    statement, parameters = compiled(queryset.order_by().values("pk")[: MAXIMUM_COUNT + 1])
    with connections[queryset.db].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({statement}) AS found", parameters)  # noqa: S608
        return int(cursor.fetchone()[0])


def whole_number(request: Request, name: str, default: int, high: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or not int(text) or (high and int(text) > high):
        most = "" if high is None else f" to {high}"
        reject(name, f"This must be a whole number from 1{most}.")
    return int(text)


def parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
