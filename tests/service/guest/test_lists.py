"""Lists of an app in any order: each row once, in the ORM's order, by pages and by cursors."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.db.models import Count, F, QuerySet
from django.db.models.functions import Lower
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from conftest import API
from tests.service.guest.models import Customer, Order, Place, Restaurant
from tests.service.guest.views import OrderViewSet

pytestmark = [pytest.mark.urls("tests.service.guest.project"), pytest.mark.django_db]
GUEST = f"{API}/guest"


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """Create orders with equal and missing keys, and end pages after the second."""
    monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 4)
    monkeypatch.setattr("api.pagination.DEEP_OFFSET", 1)
    customers = [Customer.objects.create(name=name) for name in ("Ada", "bob", "Cy")]
    return Order.objects.bulk_create(
        Order(
            customer=customers[number % 3],
            number=f"{'aB'[number % 2]}{number % 4}-{number}",
            rank=number % 3,
            total=number % 2,
            weight=(number % 4) / 3,
            due=datetime.date(2026, 1, 1 + number % 3) if number % 4 else None,
            secret=f"text {number % 5}",
        )
        for number in range(13)
    )


def walk(client: APIClient, url: str) -> tuple[list[int], bool]:
    """Follow `next`; return the keys of all rows, and whether a cursor was offered."""
    found: list[int] = []
    has_cursor = False
    while url:
        response = client.get(url)
        assert response.status_code == 200, response.content
        body = response.json()
        found += [row["id"] for row in body["results"]]
        has_cursor |= "cursor=" in (body["next"] or "")
        url = body["next"]
    return found, has_cursor


def assert_in_order(client: APIClient, expected: list[int], query: str, *, cursor: bool) -> None:
    found, has_cursor = walk(client, f"{GUEST}/orders/?limit=2&{query}")

    assert has_cursor == cursor
    assert found == (expected if cursor else expected[:4])


@pytest.mark.parametrize(
    ("ordering", "cursor"),
    [
        ("rank", True),
        ("-rank", True),
        ("-rank,-number", True),
        ("total", True),
        ("-weight", True),
        ("weight,total,number", True),
        ("id", True),
        ("-id", True),
        ("number,id,rank", True),
        ("rank,-number", False),
        ("-due", False),
        ("due,number", False),
        ("customer", False),
    ],
)
def test_the_order_of_a_client(
    client: APIClient, orders: list[Order], ordering: str, cursor: bool
) -> None:
    keys = ordering.split(",")
    last = "-pk" if keys[-1].startswith("-") else "pk"
    expected = list(Order.objects.order_by(*keys, last).values_list("pk", flat=True))

    assert_in_order(client, expected, f"ordering={ordering}", cursor=cursor)


@pytest.mark.parametrize(
    ("ordering", "cursor"),
    [
        (["rank"], True),
        (["-rank", "-number"], True),
        (["-due", "number"], False),
        (["customer"], False),
        (["secret"], False),
        ([F("due").asc(nulls_last=True)], False),
        ([F("rank").desc()], False),
        ([Lower("number")], False),
        (["?"], False),
        ([], True),
    ],
)
def test_the_default_order_of_a_model(
    client: APIClient,
    orders: list[Order],
    monkeypatch: pytest.MonkeyPatch,
    ordering: list[Any],
    cursor: bool,
) -> None:
    monkeypatch.setattr(Order._meta, "ordering", ordering)
    is_descending = ordering in (["-rank", "-number"], [F("rank").desc()])
    expected = Order.objects.order_by(*ordering, "-pk" if is_descending else "pk")

    if ordering == ["?"]:
        found, has_cursor = walk(client, f"{GUEST}/orders/?limit=2")
        assert (len(found), has_cursor) == (4, False)
    else:
        assert_in_order(client, list(expected.values_list("pk", flat=True)), "", cursor=cursor)


QUERYSETS: dict[str, tuple[Callable[[], QuerySet[Any]], bool]] = {
    "annotated": (lambda: Order.objects.annotate(n=Count("customer")).order_by("n"), False),
    "annotated-field": (lambda: Order.objects.annotate(n=Count("customer")).order_by("rank"), True),
    "joined": (lambda: Order.objects.select_related("customer").order_by("rank"), True),
    "distinct": (lambda: Order.objects.filter(customer__orders__rank=1).distinct(), False),
    "distinct-on": (
        lambda: Order.objects.order_by("customer_id", "pk").distinct("customer"),
        False,
    ),
    "reversed": (lambda: Order.objects.order_by("rank", "pk").reverse(), False),
    "reversed-default": (lambda: Order.objects.reverse(), False),
    "sliced": (lambda: Order.objects.order_by("rank", "pk")[:11], False),
    "sliced-short": (lambda: Order.objects.order_by("rank", "pk")[:3], False),
    "union": (lambda: Order.objects.filter(rank=1).union(Order.objects.filter(rank=2)), False),
    "extra": (lambda: Order.objects.extra(order_by=["-rank", "number"]), False),
    "none": (lambda: Order.objects.none(), False),
    "deferred": (lambda: Order.objects.defer("rank").order_by("rank"), True),
}


@pytest.mark.parametrize("name", QUERYSETS)
def test_any_queryset(
    client: APIClient, orders: list[Order], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    build, cursor = QUERYSETS[name]
    monkeypatch.setattr(OrderViewSet, "get_queryset", lambda view: build())
    monkeypatch.setattr(OrderViewSet, "filter_backends", [])
    rows = [order.pk for order in build()]

    found, has_cursor = walk(client, f"{GUEST}/orders/?limit=2")
    body = client.get(f"{GUEST}/orders/?limit=3").json()
    rejected = client.get(f"{GUEST}/orders/?cursor=x")

    assert has_cursor == cursor
    assert len(found) == len(set(found)) == (len(rows) if cursor else min(len(rows), 4))
    assert set(found) <= set(rows)
    assert (body["count"], body["count_capped"]) == (min(len(rows), 4), len(rows) > 4)
    assert rejected.status_code == 400
    if name in {"reversed", "sliced", "sliced-short", "extra"}:
        assert found == rows[:4]


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: Order.objects.order_by("rank").values("rank").distinct(), 3),
        (lambda: Order.objects.order_by("rank").values("rank").annotate(n=Count("pk")), 3),
        (lambda: Order.objects.values_list("rank", flat=True), 4),
        (lambda: Customer.objects.annotate(rank=F("orders__rank")).distinct(), 3),
        (lambda: Order.objects.raw("SELECT * FROM guest_order ORDER BY id"), 4),
        (lambda: list(Order.objects.all()), 4),
    ],
)
def test_rows_that_are_not_of_the_model(
    client: APIClient,
    orders: list[Order],
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[], Any],
    count: int,
) -> None:
    monkeypatch.setattr(OrderViewSet, "get_queryset", lambda view: build())
    monkeypatch.setattr(OrderViewSet, "filter_backends", [])
    monkeypatch.setattr(OrderViewSet, "get_serializer", Rows)

    body = client.get(f"{GUEST}/orders/?limit=2").json()
    last = client.get(f"{GUEST}/orders/?limit=2&page=2").json()

    assert (body["count"], body["previous"]) == (count, None)
    assert len(body["results"]) == 2
    assert len(last["results"]) == count - 2
    assert "cursor" not in (last["next"] or "")


class Rows:
    def __init__(self, rows: Any, many: bool) -> None:
        self.data = [str(row) for row in rows]


def test_a_model_with_a_parent(client: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 2)
    Place.objects.create(name="no restaurant")
    for number in range(5):
        Restaurant.objects.create(name=f"name {number % 2}")
    url: str | None = f"{GUEST}/restaurants/?limit=1"
    found = []

    while url:
        body = client.get(url).json()
        found += [row["id"] for row in body["results"]]
        url = body["next"]

    assert found == list(Restaurant.objects.order_by("name", "pk").values_list("pk", flat=True))


class TestFilters:
    def test_the_backends_filter_search_and_order(
        self, client: APIClient, orders: list[Order]
    ) -> None:
        ada = Customer.objects.get(name="Ada")

        def found(query: str) -> list[int]:
            return [row["id"] for row in client.get(f"{GUEST}/orders/?{query}").json()["results"]]

        assert set(found(f"customer={ada.pk}")) == {o.pk for o in orders if o.customer == ada}
        assert set(found("search=bob")) == {o.pk for o in orders if o.customer.name == "bob"}
        assert set(found("at_least=2")) == {o.pk for o in orders if o.rank == 2}
        assert found(f"customer={ada.pk}&search=B&ordering=-rank,number")

    def test_a_search_across_a_relation_counts_each_row_once(
        self, client: APIClient, orders: list[Order]
    ) -> None:
        body = client.get(f"{GUEST}/customers/?search=-&ordering=name").json()

        assert (body["count"], len(body["results"])) == (3, 3)

    def test_a_search_of_many_words_is_bounded(
        self, client: APIClient, orders: list[Order]
    ) -> None:
        response = client.get(f"{GUEST}/customers/?search={'+'.join(['a'] * 2000)}")

        assert response.status_code in {200, 400}


class TestPaginators:
    """DRF's own paginators work as documented."""

    @pytest.mark.parametrize("name", ["number", "offset", "cursor"])
    def test_every_row_is_on_one_page(
        self, client: APIClient, orders: list[Order], name: str
    ) -> None:
        found, _ = walk(client, f"{GUEST}/pages/{name}")

        assert sorted(found) == sorted(order.pk for order in orders)

    @pytest.mark.parametrize(
        "query", ["number?page=9", "number?page=" + "9" * 30, "cursor?cursor=x", "number?page=x"]
    )
    def test_a_page_that_does_not_exist_is_a_404(
        self, client: APIClient, orders: list[Order], query: str
    ) -> None:
        assert client.get(f"{GUEST}/pages/{query}").status_code == 404

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("query", ["offset=" + "9" * 30, "limit=x", "limit=" + "9" * 30])
    def test_an_offset_of_any_size(
        self, client: APIClient, orders: list[Order], query: str
    ) -> None:
        assert client.get(f"{GUEST}/pages/offset?{query}").status_code in {200, 400}

    def test_a_list_without_pages(self, client: APIClient, orders: list[Order]) -> None:
        assert len(client.get(f"{GUEST}/pages/none").json()) == len(orders)


class TestSequences:
    """A page of a list in memory."""

    def test_the_pages_of_a_list(self, client: APIClient) -> None:
        first = client.get(f"{GUEST}/pages/names").json()
        last = client.get(f"{GUEST}/pages/names?page=3").json()

        assert (first["count"], first["count_capped"]) == (25, False)
        assert "page=2" in first["next"]
        assert (last["results"][-1], last["next"]) == ("name 24", None)

    @pytest.mark.parametrize(
        ("query", "status"), [("page=4", 404), ("page=99999", 404), ("cursor=x", 400)]
    )
    def test_a_page_that_does_not_exist(self, client: APIClient, query: str, status: int) -> None:
        assert client.get(f"{GUEST}/pages/names?{query}").status_code == status


@pytest.mark.django_db(databases=["default", "second"], transaction=True)
def test_a_list_of_a_second_database(
    client: APIClient, orders: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_queryset(view: OrderViewSet) -> QuerySet[Order]:
        return Order.objects.using("second").order_by("rank")

    monkeypatch.setattr(OrderViewSet, "get_queryset", get_queryset)
    expected = Order.objects.order_by("rank", "pk").values_list("pk", flat=True)

    with CaptureQueriesContext(connections["default"]) as on_default:
        found, has_cursor = walk(client, f"{GUEST}/orders/?limit=2")

    assert (found, has_cursor) == (list(expected), True)
    assert not [query for query in on_default.captured_queries if "guest" in query["sql"]]
