"""The matches of a search, where it reads only a part of the table."""

from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from accounts.models import User
from tests.articles.models import Article

# The rows that a step of a search reads in these tests, and the rows of the table.
ROWS, TABLE = 100, 4_000
ARTICLES = """
    INSERT INTO articles_article (owner_id, title, description, amount, created_at, updated_at)
    SELECT %s, lpad(n::text, 6, '0') || CASE WHEN n %% 2 = 0 THEN ' even brass' ELSE ' uneven' END
           || CASE WHEN n %% 3 = 0 THEN ' lamp' ELSE '' END
           || CASE WHEN n %% 499 = 0 THEN ' zirconium' ELSE '' END
           || CASE WHEN n <= %s THEN ' ancient' ELSE ' modern' END,
           repeat('x', 200), n, timestamptz '2026-01-01' + n * interval '1 s', now()
      FROM generate_series(1, %s) n
"""
SEARCHED = "/searched"

pytestmark = pytest.mark.heavy


@pytest.fixture
def articles(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.search.SEARCH_ROWS", ROWS)
    monkeypatch.setattr("api.search.SAMPLE_PAGES", 5)
    with connection.cursor() as cursor:
        # A sample of a table that rows of earlier tests have bloated would find none.
        cursor.execute("TRUNCATE articles_article")
        cursor.execute(ARTICLES, [user.pk, TABLE // 2, TABLE])
        cursor.execute("ANALYZE articles_article")


def walk(client: APIClient, parameters: dict[str, Any]) -> list[int]:
    """Follow `next` to the end and return every id on the way."""
    page = client.get(SEARCHED, parameters).json()
    found = [row["id"] for row in page["results"]]
    while page["next"]:
        page = client.get(page["next"]).json()
        found += [row["id"] for row in page["results"]]
    return found


@pytest.mark.parametrize(
    ("search", "count", "is_capped"),
    [
        ("zirconium", TABLE // 499, False),
        ("lamp zirconium", 0, True),
        ("zirconium lamp", TABLE // 499 // 3, False),
        ("nothing", 0, False),
        ("brass", ROWS // 2, True),
        ("uneven brass", 0, True),
        ("ancient", 0, True),
        ("", TABLE, False),
    ],
)
def test_rare_matches_are_counted_and_common_ones_only_in_part(
    client: APIClient, articles: None, search: str, count: int, is_capped: bool
) -> None:
    page = client.get(SEARCHED, {"search": search, "ordering": "-created_at"}).json()

    assert (page["count"], page["count_capped"]) == (count, is_capped)


@pytest.mark.parametrize("ordering", ["-created_at", "title", "-amount"])
@pytest.mark.parametrize("search", ["brass lamp", "zirconium", "ancient zirconium", "ancient"])
def test_following_next_visits_every_match_once(
    client: APIClient, articles: None, search: str, ordering: str
) -> None:
    expected = Article.objects.order_by(ordering)
    for word in search.split():
        expected = expected.filter(title__contains=word)

    found = walk(client, {"search": search, "limit": 100, "ordering": ordering})

    assert found == list(expected.values_list("pk", flat=True))


def test_pages_of_a_bounded_search_end_and_a_cursor_leads_on(
    client: APIClient, articles: None
) -> None:
    pages = [client.get(SEARCHED, {"search": "brass", "limit": 20, "page": n}) for n in (1, 3, 4)]

    assert [page.status_code for page in pages] == [200, 200, 404]
    assert "page=2" in pages[0].json()["next"]
    assert len(pages[1].json()["results"]) == ROWS // 2 - 40
    assert "cursor=" in pages[1].json()["next"]


def test_a_short_list_is_searched_whole_behind_a_cursor_too(
    client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 2)
    for amount in range(5):
        Article.objects.create(owner=user, title="Brass lamp", amount=amount)

    found = walk(client, {"search": "lamp", "limit": 1, "ordering": "amount"})

    assert found == list(Article.objects.order_by("amount").values_list("pk", flat=True))


def test_rare_matches_within_the_queryset_are_counted(
    client: APIClient, articles: None, user: User, stranger: User
) -> None:
    Article.objects.create(owner=stranger, title="Some zirconium", amount=1)
    given = {"search": "zirconium", "owner": user.pk, "limit": 5}

    page = client.get(SEARCHED, given).json()
    rest = client.get(page["next"]).json()

    assert (page["count"], page["count_capped"]) == (TABLE // 499, False)
    assert len(page["results"]) + len(rest["results"]) == TABLE // 499


def test_a_short_list_is_searched_in_two_statements(
    client: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    Article.objects.create(owner=user, title="Brass lamp", amount=1)

    with django_assert_num_queries(2):
        assert client.get(SEARCHED, {"search": "lamp"}).json()["count"] == 1


def test_a_search_does_not_change_the_settings_of_its_transaction(
    client: APIClient, articles: None
) -> None:
    client.get(SEARCHED, {"search": "zirconium"})

    with connection.cursor() as cursor:
        cursor.execute("SHOW enable_seqscan")
        assert cursor.fetchone() == ("on",)
