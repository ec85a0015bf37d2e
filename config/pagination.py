"""
Lists whose cost does not grow with the table.

The count stops at 10,000, pages end there, and a cursor that names the last row walks on: it
compares (key, id) as one row, which an index on the two serves however many keys are equal.
"""

import functools
import hashlib
import re
from typing import Any, NoReturn

from django.core import signing
from django.db import connections
from django.db.models import BooleanField, F, Func, Model, QuerySet, Value
from django.db.models.lookups import GreaterThan, LessThan
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

MAXIMUM_COUNT = 10_000
MAXIMUM_LIMIT = 100
DEFAULT_LIMIT = 10


class Row(Func):
    function = "ROW"
    output_field = BooleanField()


class BoundedPagination(BasePagination):
    """
    Page through a queryset that is ordered by one field and the primary key, both one way.

    A cursor is bound to the queryset's own SQL, so whatever filters a view knows are part of it;
    a filter by time should therefore use the database's clock (`Now()`).
    """

    def paginate_queryset(  # type: ignore[override]
        self,
        queryset: QuerySet[Any],
        request: Request,
        view: APIView | None = None,
    ) -> list[Any]:
        self.url = request.build_absolute_uri()
        self.limit = whole_number(request, "limit", DEFAULT_LIMIT, high=MAXIMUM_LIMIT)
        self.previous: str | None = None
        self.next: str | None = None
        self.is_whole = False  # Whether what is shown is all there is, and needs no count.
        keyset = Keyset(queryset, self.limit)
        if "cursor" in request.query_params:
            rows = self.read_cursor(request, keyset)
        else:
            rows = self.read_page(request, keyset)
        if self.is_whole:
            self.count = len(rows)
        else:
            self.count = bounded_count(queryset)
        return rows

    def read_page(self, request: Request, keyset: "Keyset") -> list[Any]:
        page = whole_number(request, "page", 1)
        start = (page - 1) * self.limit
        if start >= MAXIMUM_COUNT:
            raise NotFound
        rows = list(keyset.page(start))
        self.is_whole = page == 1 and len(rows) <= self.limit
        if start and not rows:
            raise NotFound
        if page > 1:
            self.previous = self.link(page=page - 1)
        if len(rows) > self.limit and page * self.limit < MAXIMUM_COUNT:
            self.next = self.link(page=page + 1)
        elif len(rows) > self.limit:
            self.next = self.link(cursor=keyset.cursor(rows[self.limit - 1]))
        return rows[: self.limit]

    def read_cursor(self, request: Request, keyset: "Keyset") -> list[Any]:
        if "page" in request.query_params:
            refuse("cursor", "A cursor and a page exclude each other.")
        rows = list(keyset.after(request.query_params["cursor"])[: self.limit + 1])
        if len(rows) > self.limit:
            self.next = self.link(cursor=keyset.cursor(rows[self.limit - 1]))
        return rows[: self.limit]

    def link(self, **parameters: Any) -> str:
        url = remove_query_param(remove_query_param(self.url, "page"), "cursor")
        for name, value in parameters.items():
            url = replace_query_param(url, name, value)
        return url

    def get_paginated_response(self, data: Any) -> Response:
        return Response(
            {
                "count": min(self.count, MAXIMUM_COUNT),
                "count_capped": self.count > MAXIMUM_COUNT,
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
                    "description": f"Whether there are more than {MAXIMUM_COUNT:,}.",
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
    """Count the rows as far as is told; `count()` takes twice as long to write its SQL."""
    rows = queryset.order_by().values("pk")[: MAXIMUM_COUNT + 1]
    # One that can't have rows, such as `none()`, is counted as well.
    statement, parameters = rows.query.get_compiler(rows.db, elide_empty=False).as_sql()
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({statement}) AS found", parameters)  # noqa: S608
        return int(cursor.fetchone()[0])


class Keyset:
    """The order of a queryset, and the cursors that name a place in it."""

    def __init__(self, queryset: QuerySet[Any], limit: int) -> None:
        self.queryset = queryset
        key, primary_key = map(str, queryset.query.order_by)
        self.comparison = LessThan if key.startswith("-") else GreaterThan
        self.fields = [field_of(queryset.model, name) for name in (key, primary_key)]
        self.limit = limit

    @functools.cached_property
    def fingerprint(self) -> str:
        bound = f"{self.queryset.query} LIMIT {self.limit}".encode()
        return hashlib.sha256(bound).hexdigest()[:16]

    def page(self, start: int) -> QuerySet[Any]:
        """Return a page and the row behind it; what is passed over is read from the index alone."""
        rows = self.queryset[start : start + self.limit + 1]
        return self.queryset.filter(pk__in=rows.values("pk")) if start else rows

    def cursor(self, row: Model) -> str:
        values = [field.value_to_string(row) for field in self.fields]
        return signing.dumps([self.fingerprint, *values], salt=__name__)

    def after(self, cursor: str) -> QuerySet[Any]:
        """Return what follows the row that a cursor names; a cursor of another list is a 400."""
        try:
            fingerprint, *values = signing.loads(cursor, salt=__name__)
        except signing.BadSignature:
            fingerprint, values = None, []
        if fingerprint != self.fingerprint:
            refuse("cursor", "The cursor does not belong to this list.")
        place = Row(*(Value(f.to_python(v), f) for f, v in zip(self.fields, values, strict=True)))
        columns = Row(*(F(field.attname) for field in self.fields))
        return self.queryset.filter(self.comparison(columns, place))


def field_of(model: type[Model], name: str) -> Any:
    name = name.removeprefix("-")
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def whole_number(request: Request, name: str, default: int, high: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or not int(text) or (high and int(text) > high):
        most = "" if high is None else f" to {high}"
        refuse(name, f"This must be a whole number from 1{most}.")
    return int(text)


def refuse(name: str, text: str) -> NoReturn:
    raise ValidationError({name: [ErrorDetail(text, code="invalid")]})


def parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
