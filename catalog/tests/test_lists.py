from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from catalog.models import Product
from conftest import API, User

PRODUCT = f"{API}/product"


def add(owner: User, count: int, **fields: Any) -> list[Product]:
    """Add products with distinct titles; `amount` and `created_at` repeat, to make ties."""
    now = timezone.now()
    return Product.objects.bulk_create(
        Product(
            **{
                "owner": owner,
                "title": f"Product {n:05}",
                "amount": n % 3,
                "created_at": now - timedelta(seconds=n // 4),
                **fields,
            }
        )
        for n in range(count)
    )


def walk(client: APIClient, parameters: dict[str, Any]) -> list[int]:
    """Follow `next` to the end and return every id on the way."""
    page = client.get(PRODUCT, parameters).json()
    found = [product["id"] for product in page["results"]]
    while page["next"]:
        page = client.get(page["next"]).json()
        found += [product["id"] for product in page["results"]]
    return found


def rejected(response: Any) -> list[str]:
    assert response.status_code == 400, response.content
    assert response.json()["code"] == "validation_error"
    return [error["field"] for error in response.json()["errors"]]


class TestPages:
    def test_the_shape(self, client: APIClient, user: User) -> None:
        add(user, 25)

        pages = [client.get(PRODUCT, {"page": n}).json() for n in (1, 2, 3)]

        assert [len(page["results"]) for page in pages] == [10, 10, 5]
        assert {page["count"] for page in pages} == {25}
        assert {page["count_capped"] for page in pages} == {False}
        assert [page["previous"] is None for page in pages] == [True, False, False]
        assert [page["next"] is None for page in pages] == [False, False, True]
        assert client.get(pages[0]["next"]).json() == pages[1]
        assert client.get(pages[2]["previous"]).json() == pages[1]

    def test_it_costs_two_statements(
        self, client: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        add(user, 25)

        with django_assert_num_queries(2):
            client.get(PRODUCT, {"page": 2, "search": "product"})

    def test_an_empty_list_has_a_first_page(self, client: APIClient, db: None) -> None:
        body = client.get(PRODUCT).json()

        assert body == {
            "count": 0, "count_capped": False, "next": None, "previous": None, "results": [],
        }  # fmt: skip

    def test_links_keep_the_other_parameters_and_lose_the_slash(
        self, client: APIClient, user: User
    ) -> None:
        add(user, 3)

        body = client.get(f"{PRODUCT}/?limit=2&search=product&ordering=title").json()

        link = urlsplit(body["next"])
        assert link.path == PRODUCT
        assert parse_qs(link.query) == {
            "limit": ["2"], "search": ["product"], "ordering": ["title"], "page": ["2"],
        }  # fmt: skip

    @pytest.mark.parametrize("page", ["4", "1001", "9" * 18, "9" * 19, "9" * 4000])
    def test_a_page_past_the_end_is_not_found(
        self, client: APIClient, user: User, page: str
    ) -> None:
        add(user, 25)

        response = client.get(PRODUCT, {"page": page})

        assert response.status_code == 404
        assert response.json()["code"] == "not_found"

    @pytest.mark.parametrize("name", ["limit", "owner"])
    @pytest.mark.parametrize("value", ["9" * 19, "9" * 4000])
    def test_a_number_above_its_limit_is_reported(
        self, client: APIClient, db: None, name: str, value: str
    ) -> None:
        assert rejected(client.get(PRODUCT, {name: value})) == [name]

    def test_leading_zeros_do_not_change_a_number(self, client: APIClient, user: User) -> None:
        add(user, 25)

        body = client.get(PRODUCT, {"page": "0" * 30 + "2", "limit": "0020"}).json()

        assert len(body["results"]) == 5

    @pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "1e1", "١", "0" * 30])
    @pytest.mark.parametrize("name", ["page", "limit", "owner"])
    def test_invalid_numbers_are_reported(
        self, client: APIClient, db: None, name: str, value: str
    ) -> None:
        assert rejected(client.get(PRODUCT, {name: value})) == [name]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("limit", "101"),
            ("owner", str(2**63)),
            ("ordering", "password"),
            ("ordering", "owner__password"),
            ("ordering", "title,amount"),
            ("ordering", ""),
            ("search", "ab"),
            ("search", "lamp ab"),
            ("search", "x" * 201),
            ("cursor", "x"),
            ("cursor", ""),
            ("title", "\x00"),
        ],
    )
    def test_invalid_values_are_reported(
        self, client: APIClient, db: None, name: str, value: str
    ) -> None:
        assert rejected(client.get(PRODUCT, {name: value})) == [name]

    def test_limit_reaches_100(self, client: APIClient, user: User) -> None:
        add(user, 101)

        assert len(client.get(PRODUCT, {"limit": 100}).json()["results"]) == 100


class TestOrdering:
    @pytest.mark.parametrize("ordering", ["created_at", "title", "amount"])
    @pytest.mark.parametrize("sign", ["", "-"])
    def test_ties_go_by_id_in_the_same_direction(
        self, client: APIClient, user: User, ordering: str, sign: str
    ) -> None:
        products = add(user, 20)
        expected = sorted(products, key=lambda p: (getattr(p, ordering), p.pk), reverse=sign == "-")

        found = walk(client, {"ordering": f"{sign}{ordering}", "limit": 7})

        assert found == [product.pk for product in expected]

    def test_the_newest_come_first(self, client: APIClient, user: User) -> None:
        add(user, 5)

        assert walk(client, {}) == walk(client, {"ordering": "-created_at"})


class TestFilters:
    def test_by_owner(self, client: APIClient, user: User, stranger: User) -> None:
        add(user, 2)
        add(stranger, 3)

        assert client.get(PRODUCT, {"owner": stranger.pk}).json()["count"] == 3
        assert client.get(PRODUCT, {"owner": 999_999}).json()["count"] == 0

    @pytest.mark.parametrize(
        ("search", "count"),
        [
            ("lamp", 2),
            ("LAMP", 2),
            ("amp", 2),
            ("lamp brass", 1),
            ("brass   LAMP", 1),
            ("ＬＡＭＰ", 2),
            ("éclair", 1),
            ("ÉCLAIR", 1),
            ("100%", 1),
            ("a_bcd", 1),
            ("back\\slash", 1),
            ("table';", 1),
            ("nothing", 0),
            ("", 6),
        ],
    )
    def test_every_word_matches_in_any_letter_case(
        self, client: APIClient, user: User, search: str, count: int
    ) -> None:
        for title, description in [
            ("Lamp", "of BRASS"),
            ("Lampshade", "paper"),
            ("Éclair", ""),
            ("Cotton", "100% a_bcd"),
            ("Cotton", "100 percent aXbcd"),
            ("back\\slash", "drop table';"),
        ]:
            Product.objects.create(owner=user, title=title, description=description, amount=1)

        assert client.get(PRODUCT, {"search": search}).json()["count"] == count


class TestCursors:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let pages end after 20 rows instead of 10,000."""
        monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 20)

    def test_the_count_stops_and_the_response_tells_it(self, client: APIClient, user: User) -> None:
        add(user, 20)
        exact = client.get(PRODUCT).json()
        add(user, 1)
        capped = client.get(PRODUCT).json()

        assert (exact["count"], exact["count_capped"]) == (20, False)
        assert (capped["count"], capped["count_capped"]) == (20, True)

    def test_pages_end_where_the_count_stops(self, client: APIClient, user: User) -> None:
        add(user, 50)

        assert client.get(PRODUCT, {"page": 2}).status_code == 200
        assert client.get(PRODUCT, {"page": 3}).status_code == 404
        # (page - 1) * limit is below 20, so the page is whole although it goes beyond.
        assert len(client.get(PRODUCT, {"page": 3, "limit": 9}).json()["results"]) == 9
        assert client.get(PRODUCT, {"page": 4, "limit": 9}).status_code == 404

    @pytest.mark.parametrize("ordering", ["created_at", "-created_at", "title", "-amount"])
    @pytest.mark.parametrize("limit", [7, 10])
    def test_following_next_visits_every_row_once(
        self, client: APIClient, user: User, ordering: str, limit: int
    ) -> None:
        products = add(user, 95)

        found = walk(client, {"ordering": ordering, "limit": limit})

        assert len(found) == 95
        assert set(found) == {product.pk for product in products}

    def test_following_next_visits_every_row_with_equal_keys(
        self, client: APIClient, user: User
    ) -> None:
        add(user, 95, amount=7)

        assert len(set(walk(client, {"ordering": "amount", "limit": 10}))) == 95

    def test_concurrent_inserts_and_deletions_do_not_affect_cursors(
        self, client: APIClient, user: User
    ) -> None:
        products = add(user, 60)
        page = client.get(PRODUCT, {"ordering": "title", "page": 2}).json()
        Product.objects.filter(pk=products[19].pk).delete()  # the one that the cursor names
        add(user, 1, title="Product 00000 a")

        after = client.get(page["next"]).json()

        assert after["results"][0]["id"] == products[20].pk
        assert after["previous"] is None
        assert (after["count"], after["count_capped"]) == (20, True)

    def test_it_is_bound_to_its_list(self, client: APIClient, user: User, stranger: User) -> None:
        add(user, 40)
        given = {"ordering": "title", "owner": user.pk, "search": "product", "limit": "10"}
        link = client.get(PRODUCT, given | {"page": 2}).json()["next"]
        cursor = parse_qs(urlsplit(link).query)["cursor"][0]
        assert client.get(PRODUCT, given | {"cursor": cursor}).status_code == 200

        for changes in (
            {"ordering": "-title"},
            {"owner": stranger.pk},
            {"search": "products"},
            {"limit": "11"},
            {"page": "1"},
            {"cursor": cursor[:-1]},
            {"cursor": f"x{cursor}"},
            {"cursor": "x" * 4000},
        ):
            response = client.get(PRODUCT, given | {"cursor": cursor} | changes)
            assert rejected(response) == ["cursor"], changes
