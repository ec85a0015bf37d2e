"""Lists in any order, with any statistics, and cursors of bounded length."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.db.models import Count, F, QuerySet
from django.db.models.functions import Lower
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory

from accounts.models import Event, Session, User
from api.keysets import in_total_order
from api.pagination import BoundedPagination
from conftest import API, SignIn
from tests.articles.models import Article

LONGEST_REQUEST_LINE = 4094  # gunicorn's


def read(queryset: QuerySet[Any], **parameters: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the rows of a page, and the body around them."""
    pagination = BoundedPagination()
    request = Request(APIRequestFactory().get("/", parameters))
    rows = pagination.paginate_queryset(queryset, request)
    return rows, pagination.get_paginated_response(rows).data


def walk(queryset: QuerySet[Any], **parameters: Any) -> list[Any]:
    """Follow `next` to the end and return every row on the way."""
    rows, body = read(queryset, **parameters)
    while body["next"]:
        query = parse_qs(urlsplit(body["next"]).query)
        more, body = read(queryset, **query)
        rows += more
    return rows


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages end after 20 rows instead of 10,000."""
    monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 20)


@pytest.fixture
def articles(user: User, stranger: User) -> list[Article]:
    return Article.objects.bulk_create(
        Article(owner=(user, stranger)[n % 2], title=f"Lamp {n % 5}", amount=n % 7)
        for n in range(60)
    )


ONE_WAY: list[tuple[Any, ...]] = [
    (), ("title",), ("-title",), ("amount", "title"), ("-amount", "-title"), ("-amount", "-id"),
    ("id",), ("-pk",), ("pk", "title"), ("owner_id",), ("created_at", "amount", "title"),
]  # fmt: skip
OTHERS: list[tuple[Any, ...]] = [
    ("title", "-amount"), ("-title", "pk"), ("owner",), ("owner__username",), (Lower("title"),),
    (F("title").desc(),), (F("title").asc(nulls_last=True), "pk"),
]  # fmt: skip


class TestOrders:
    @pytest.mark.parametrize("order", ONE_WAY, ids=str)
    def test_one_direction_can_be_walked_to_the_end(
        self, articles: list[Article], short: None, order: tuple[Any, ...]
    ) -> None:
        queryset = Article.objects.order_by(*order)

        found = walk(queryset, limit=7)

        assert found == list(in_total_order(queryset))
        assert {article.pk for article in found} == {article.pk for article in articles}

    @pytest.mark.parametrize("order", OTHERS, ids=str)
    def test_any_other_order_has_pages_and_no_cursor(
        self, articles: list[Article], short: None, order: tuple[Any, ...]
    ) -> None:
        queryset = Article.objects.order_by(*order)

        found = walk(queryset, limit=10)

        assert found == list(in_total_order(queryset)[:20])
        assert len({article.pk for article in found}) == 20
        with pytest.raises(ValidationError):
            read(queryset, cursor="x")

    def test_equal_keys_go_by_the_primary_key_in_their_direction(
        self, articles: list[Article]
    ) -> None:
        rows, _ = read(Article.objects.order_by("-title"), limit=100)

        assert rows == sorted(articles, key=lambda row: (row.title, row.pk), reverse=True)

    def test_a_random_order_has_pages(self, articles: list[Article]) -> None:
        rows, body = read(Article.objects.order_by("?"), limit=10)

        assert len(rows) == 10
        assert body["count"] == 60

    def test_the_order_of_the_model_is_the_default(self, db: None) -> None:
        assert Permission._meta.ordering

        found = walk(Permission.objects.all(), limit=5)

        assert [p.pk for p in found] == [p.pk for p in Permission.objects.order_by(
            *Permission._meta.ordering, "pk"
        )]  # fmt: skip

    def test_an_order_that_has_nulls_has_pages_and_no_cursor(self, db: None, short: None) -> None:
        Event.objects.bulk_create(Event(kind="refused") for _ in range(30))

        assert len(walk(Event.objects.order_by("user_id"), limit=10)) == 20

    def test_rows_that_are_no_instances_have_pages(
        self, articles: list[Article], short: None
    ) -> None:
        by_owner = Article.objects.values("owner").annotate(n=Count("pk")).order_by("owner")
        union = Article.objects.filter(amount=1).union(Article.objects.filter(amount=2))

        assert [row["n"] for row in walk(by_owner, limit=1)] == [30, 30]
        assert len(walk(Article.objects.values("title", "id").order_by("title", "id"))) == 20
        assert len(walk(union.order_by("id"), limit=4)) == 18

    @pytest.mark.parametrize("parameters", [{"page": 7}, {"page": 500}, {"page": 2000}])
    def test_a_page_past_the_end_is_not_found(
        self, articles: list[Article], parameters: dict[str, Any]
    ) -> None:
        with pytest.raises(NotFound):
            read(Article.objects.order_by("title"), **parameters)

    def test_a_list_that_cannot_have_rows_rejects_a_cursor(self, db: None) -> None:
        with pytest.raises(ValidationError):
            read(Article.objects.none(), cursor="x")


class TestCursors:
    @pytest.fixture(autouse=True)
    def narrow(self, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.search.SEARCH_ROWS", 15)

    def test_a_link_fits_a_request_line_for_any_keys(self, client: APIClient, user: User) -> None:
        ideographs = [chr(n) for n in range(0x20000, 0x2A6D0)]
        words = ["".join(random.sample(ideographs, 32)) for _ in range(6)]
        emoji = "".join(chr(n) for n in range(0x1F300, 0x1F300 + 200))
        for title in (" ".join(words), emoji):
            Article.objects.bulk_create(
                Article(owner=user, title=title, amount=1) for _ in range(40)
            )
        links = []

        for parameters in (
            {"search": " ".join(words), "ordering": "-title", "limit": 15},
            {"ordering": "-title"},
        ):
            page = client.get(f"{API}/articles", {**parameters, "owner": user.pk}).json()
            while page["next"]:
                links.append(page["next"])
                page = client.get(page["next"]).json()

        lines = [link.removeprefix("http://testserver") for link in links]
        assert max(len(line) for line in lines if "cursor=" in line) < LONGEST_REQUEST_LINE - 100

    def test_long_keys_are_walked_with_a_short_cursor(self, user: User) -> None:
        Article.objects.bulk_create(
            Article(owner=user, title="x", description=f"{n // 4:03}" + "🙂" * 9_000, amount=1)
            for n in range(50)
        )
        queryset = Article.objects.order_by("description")
        _, body = read(queryset, page=2)

        assert len(body["next"]) < 400
        assert walk(queryset) == list(queryset.order_by("description", "pk"))

    @pytest.mark.parametrize("change", ["delete", "update"])
    def test_a_cursor_to_a_long_key_ends_with_its_row(self, user: User, change: str) -> None:
        Article.objects.bulk_create(
            Article(owner=user, title="x", description="x" * 999, amount=1) for n in range(50)
        )
        queryset = Article.objects.order_by("description")
        rows, body = read(queryset, page=2)
        row = Article.objects.filter(pk=rows[-1].pk)
        row.delete() if change == "delete" else row.update(description="y")

        with pytest.raises(ValidationError):
            read(queryset, cursor=parse_qs(urlsplit(body["next"]).query)["cursor"][0])

    def test_a_title_from_before_normalization_is_a_place_too(self, user: User) -> None:
        Article.objects.bulk_create(
            Article(owner=user, title=f"{n:02}", amount=1) for n in range(50)
        )
        with connection.cursor() as cursor:
            cursor.execute("UPDATE articles_article SET title = title || U&'e\\0301'")
        queryset = Article.objects.order_by("title")

        assert walk(queryset) == list(queryset)

    @pytest.mark.parametrize("tampered", ["x", "", "a:b:c", "x" * 4000])
    def test_an_invalid_cursor_is_rejected(self, user: User, tampered: str) -> None:
        with pytest.raises(ValidationError):
            read(Article.objects.all(), cursor=tampered)

    @pytest.mark.parametrize(
        "parameters",
        [{"cursor": "x", "page": "1"}, {"page": "0"}, {"page": "x"}, {"limit": "101"}],
    )
    def test_an_invalid_parameter_is_rejected(self, db: None, parameters: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            read(Article.objects.order_by("title"), **parameters)


def rows_read(call: Callable[[], Any], table: str) -> int:
    """Count the rows of a table that PostgreSQL reads for a call."""
    with transaction.atomic(), connection.cursor() as cursor:
        statement = (
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"
        )
        cursor.execute(statement, [table])
        before = cursor.fetchone()[0]
        call()
        cursor.execute(statement, [table])
        return int(cursor.fetchone()[0] - before)


TABLES = ["articles_article", "accounts_session", "accounts_event"]


@pytest.mark.heavy
class TestStatistics:
    """Rows of an owner without statistics, because they are newer than the last ANALYZE."""

    @pytest.fixture
    def stale(self, transactional_db: None, make_user: Callable[..., User]) -> Any:
        others = User.objects.bulk_create(
            User(username=f"u{n}", email=f"u{n}@example.com") for n in range(1_000)
        )
        now = timezone.now()
        fields = {
            "ip_address": "::1",
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + timedelta(days=1),
        }

        def fill(owners: list[User], each: int) -> None:
            rows = [owner for owner in owners for _ in range(each)]
            Article.objects.bulk_create(Article(owner=o, title="x", amount=1) for o in rows)
            Session.objects.bulk_create(Session(user=o, **fields) for o in rows)
            Event.objects.bulk_create(Event(kind="refused", user_id=o.pk) for o in rows)

        with connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            fill(others, 1)
            cursor.execute(f"VACUUM ANALYZE {', '.join(TABLES)}")
            user = make_user("alice")
            fill([user], 5_000)
            yield user
            for table in TABLES:
                cursor.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")

    def test_page_50_reads_the_rows_up_to_it(
        self, stale: User, sign_in: SignIn, settings: Settings, make_user: Callable[..., User]
    ) -> None:
        settings.SESSION_LIMIT = 0
        device = sign_in(stale)
        browser = Client()
        browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
        page = {"limit": 100, "page": 50}
        calls = {
            "articles_article": lambda: device.get(f"{API}/articles", {**page, "owner": stale.pk}),
            "accounts_session": lambda: device.get(f"{API}/auth/sessions", page),
            "accounts_event": lambda: device.get(f"{API}/auth/events", page),
        }
        for table, call in calls.items():
            responses: list[Any] = []
            read = rows_read(lambda call=call, to=responses: to.append(call()), table)
            assert len(responses[0].json()["results"]) == 100
            # The rows up to the page, and once more to count them.
            assert read <= 2 * 5_001 + 10, table
        query = {"owner__id__exact": stale.pk, "p": 50}
        console = lambda: browser.get("/admin/articles/article/", query)  # noqa: E731 - as the calls above
        assert rows_read(console, "articles_article") <= 4 * 5_001
