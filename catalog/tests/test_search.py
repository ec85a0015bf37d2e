"""The results of a search, and the number of rows that it reads."""

import itertools
import sys
import unicodedata
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Upper
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from catalog.models import Product, has_trigram
from catalog.tests.test_lists import PRODUCT, rejected, walk
from conftest import SignIn

ORDERINGS = ["created_at", "-created_at", "title", "-title", "amount", "-amount"]
# The rows that a step of a search reads in these tests, and the rows of the table.
ROWS, TABLE = 100, 4_000
# The first rows of the list, a sample, the rows of the index, the same rows to sort, and a page.
MOST_ROWS = ROWS + ROWS + ROWS + 1 + ROWS + 11
PRODUCTS = """
    INSERT INTO catalog_product (owner_id, title, description, amount, created_at, updated_at)
    SELECT %s, lpad(n::text, 6, '0') || ' banana',
           CASE WHEN n %% 2 = 0 THEN 'even brass' ELSE 'uneven' END
           || CASE WHEN n %% 3 = 0 THEN ' lamp' ELSE '' END
           || CASE WHEN n %% 499 = 0 THEN ' zirconium' ELSE '' END
           || CASE WHEN n <= %s THEN ' ancient' ELSE ' modern' END,
           n, timestamptz '2026-01-01' + n * interval '1 s', now()
      FROM generate_series(1, %s) n
"""


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.search.SEARCH_ROWS", ROWS)
    monkeypatch.setattr("api.search.SAMPLE_PAGES", 5)


@pytest.fixture
def products(user: Any, few_rows: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(PRODUCTS, [user.pk, TABLE // 2, TABLE])
        cursor.execute("SELECT gin_clean_pending_list('catalog_product_search')")
        cursor.execute("ANALYZE catalog_product")


def rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
            " WHERE relname = 'catalog_product'"
        )
        return int(cursor.fetchone()[0])


class TestTitles:
    def test_every_way_in_stores_the_normal_form(
        self, user: Any, make_user: Any, sign_in: SignIn
    ) -> None:
        typed, stored = " Cafe\u0301 ﬁne Ｌamp ", "Café fine Lamp"
        boss = make_user("boss", is_staff=True, is_superuser=True)
        browser = Client()
        browser.force_login(boss)
        form = {"title": typed, "description": "", "amount": 1, "owner": user.pk}

        sign_in(user).post(PRODUCT, {"title": typed, "amount": 1})
        browser.post("/admin/catalog/product/add/", form)
        Product.objects.create(owner=user, title=typed, amount=1)
        Product.objects.bulk_create([Product(owner=user, title=typed, amount=1)])
        Product.objects.create(owner=user, title="x", amount=1)
        Product.objects.filter(title="x").update(title=typed)
        changed = Product(owner=user, title=typed, amount=1)
        changed.full_clean()

        titles = list(Product.objects.values_list("title", flat=True))
        assert titles == [stored] * 5
        assert changed.title == stored
        assert Product.objects.filter(title=typed).count() == 5

    def test_an_instance_has_the_title_that_was_saved(self, user: Any) -> None:
        assert Product.objects.create(owner=user, title=" ﬁne ", amount=1).title == "fine"

    def test_an_expression_is_left_to_the_database(self, user: Any) -> None:
        product = Product.objects.create(owner=user, title="lamp", amount=1)
        product.title = Upper("title")
        product.save()

        product.refresh_from_db()
        assert product.title == "LAMP"

    def test_a_blank_title_is_not_valid(self, user: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            Product(owner=user, title=" \u3000 ", amount=1).full_clean()

        assert set(caught.value.message_dict) == {"title"}

    def test_a_title_that_is_too_long_is_not_normalized(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[int] = []
        normalize = unicodedata.normalize

        def watch(form: Any, text: str) -> str:
            seen.append(len(text))
            return normalize(form, text)

        monkeypatch.setattr("unicodedata.normalize", watch)

        for length in (800, 801, 500_000):
            with pytest.raises(ValidationError):
                Product(owner=user, title="x" * length, amount=1).full_clean()

        assert max(seen) == 800

    def test_a_title_may_be_absent(self, user: Any) -> None:
        with pytest.raises(ValidationError):
            Product(owner=user, title=None, amount=1).full_clean()


class TestForms:
    @pytest.mark.parametrize(
        ("stored", "searches"),
        [
            ("Cafe\u0301 noir", ["Café", "CAFÉ", "cafe\u0301", "CAFE\u0301"]),
            ("ﬁne oﬃce", ["ﬁne", "oﬃce", "fine office", "FINE"]),
            ("Ｌａｍｐ", ["Ｌａｍｐ", "lamp", "ｌａｍｐ"]),
            ("Straße", ["Straße", "STRASSE", "STRAẞE", "strasse", "aße"]),
            ("STRASSE", ["straße", "STRAẞE"]),
            ("STRAẞE", ["straße", "Strasse"]),
            ("ΕΤΑΙΡΟΣ", ["εταιρος", "εταιροσ", "Εταιρος", "ΡΟΣ"]),
            ("εταιρος", ["ΕΤΑΙΡΟΣ", "ΡΟΣ"]),
            ("ΐδιος", ["Ϊ́διος", "ΐδιος", "\u03b9\u0308\u0301διος"]),
            ("İstanbul", ["İstanbul", "i\u0307stanbul"]),
            ("новогодняя ёлка", ["ЁЛКА", "НОВОГОДНЯЯ"]),
            ("한국어 책상", ["한국어", unicodedata.normalize("NFD", "한국어")]),
            ("漢字漢字", ["漢字漢", "字漢字"]),
            ("हिन्दी", ["हिन्दी"]),
            (
                "100% a_bcd back\\slash 'quote",
                ["100%", "a_bcd", "back\\slash", "'quote", "k\\slash"],
            ),
        ],
    )
    def test_what_was_stored_is_found_in_any_form(
        self, client: APIClient, user: Any, stored: str, searches: list[str]
    ) -> None:
        Product.objects.create(owner=user, title=stored, amount=1)
        Product.objects.create(owner=user, title="Other", description=stored, amount=1)
        Product.objects.create(owner=user, title="100 percent aXbcd backXslash", amount=1)

        counts = {search: client.get(PRODUCT, {"search": search}).json() for search in searches}

        assert {search: body.get("count") for search, body in counts.items()} == dict.fromkeys(
            searches, 2
        )

    def test_a_word_does_not_match_across_title_and_description(
        self, client: APIClient, user: Any
    ) -> None:
        Product.objects.create(owner=user, title="table", description="spoon", amount=1)

        assert client.get(PRODUCT, {"search": "lespo"}).json()["count"] == 0
        assert client.get(PRODUCT, {"search": "spoon table"}).json()["count"] == 1

    def test_a_change_is_found_immediately(self, client: APIClient, user: Any) -> None:
        product = Product.objects.create(owner=user, title="table", amount=1)
        product.title = "Kettle"
        product.save()

        assert client.get(PRODUCT, {"search": "table"}).json()["count"] == 0
        assert client.get(PRODUCT, {"search": "kettle"}).json()["count"] == 1


class TestWords:
    @pytest.mark.parametrize(
        ("search", "code"),
        [
            ("ab", "word_too_short"),
            ("lamp ab", "word_too_short"),
            ("%%%", "word_too_short"),
            ("---", "word_too_short"),
            ("___", "word_too_short"),
            ("a_b", "word_too_short"),
            ("ab-cd", "word_too_short"),
            ("🙂🙂🙂", "word_too_short"),
            ("e\u0301e\u0301", "word_too_short"),
            ("\u0301\u0301\u0301", "word_too_short"),
            ("one two three four five six seven", "too_many_words"),
            ("\ufdfa" * 2, "too_many_words"),
            ("x" * 201, "max_length"),
            ("㌀" * 67, "max_length"),
        ],
    )
    def test_what_an_index_cannot_find_is_rejected(
        self, client: APIClient, db: None, search: str, code: str
    ) -> None:
        response = client.get(PRODUCT, {"search": search})

        assert rejected(response) == ["search"]
        assert response.json()["errors"][0]["code"] == code

    @pytest.mark.parametrize(
        "search", ["abc", "a1b", "-abc-", "123", "one two three four five six", "  ", "x" * 200]
    )
    def test_the_rest_is_accepted(self, client: APIClient, db: None, search: str) -> None:
        assert client.get(PRODUCT, {"search": search}).status_code == 200

    def test_each_accepted_word_gives_the_index_something_to_find(self, db: None) -> None:
        letters = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isalnum()]
        words = {unicodedata.normalize("NFKC", 3 * letter) for letter in letters}
        accepted = [word for word in words if " " not in word and has_trigram(word)]

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT word FROM unnest(%s::text[]) word"
                " WHERE cardinality(catalog_trigrams(left(catalog_fold(word), 8))) = 0",
                [accepted],
            )
            assert cursor.fetchall() == []
        assert len(accepted) > 100_000


@pytest.mark.heavy
class TestBounds:
    def test_a_search_reads_a_bounded_number_of_rows(
        self, client: APIClient, products: None
    ) -> None:
        searches = [
            "brass",  # every second row
            "brass lamp",
            "brass zirconium",  # common and rare
            "zirconium",
            "even uneven brass modern lamp banana",
            "uneven brass",  # both common, never together
            "ancient",  # all at one end
            "modern",
            "bananana",  # all trigrams are in each row, the word is in none
            "nothing",
        ]
        read, counts = {}, {}
        for search, ordering in itertools.product(searches, ORDERINGS):
            before = rows_read()
            response = client.get(PRODUCT, {"search": search, "ordering": ordering})
            read[search, ordering] = rows_read() - before
            assert response.status_code == 200
            counts[search] = (response.json()["count"], response.json()["count_capped"])

        assert max(read.values()) <= MOST_ROWS, read
        assert counts["zirconium"] == (TABLE // 499, False)
        assert counts["brass zirconium"] == (TABLE // 499 // 2, False)
        assert counts["nothing"] == (0, False)
        assert counts["brass"] == (ROWS // 2, True)

    def test_following_next_visits_every_match_once(
        self, client: APIClient, products: None
    ) -> None:
        old = Q(amount__lte=TABLE // 2)
        searches = {
            "brass lamp": Q(amount__in=range(0, TABLE + 1, 6)),
            "zirconium": Q(amount__in=range(0, TABLE + 1, 499)),
            "ancient zirconium": Q(amount__in=range(0, TABLE + 1, 499)) & old,
            "ancient": old,  # behind long stretches without a match
        }
        for (search, condition), ordering in itertools.product(
            searches.items(), ["-created_at", "title"]
        ):
            expected = Product.objects.filter(condition).order_by(ordering)

            found = walk(client, {"search": search, "limit": 100, "ordering": ordering})

            assert found == list(expected.values_list("pk", flat=True))

    def test_a_page_by_cursor_reads_a_bounded_number_of_rows_and_counts_as_usual(
        self, client: APIClient, products: None
    ) -> None:
        page = client.get(PRODUCT, {"search": "ancient"}).json()
        assert (page["count"], page["count_capped"], page["results"]) == (0, True, [])
        before = rows_read()

        page = client.get(page["next"]).json()

        assert rows_read() - before <= MOST_ROWS + ROWS
        assert (page["count"], page["count_capped"], page["previous"]) == (0, True, None)

    def test_pages_of_a_bounded_search_end_and_a_cursor_leads_on(
        self, client: APIClient, products: None
    ) -> None:
        pages = [
            client.get(PRODUCT, {"search": "brass", "limit": 20, "page": n}) for n in (1, 3, 4)
        ]

        assert [page.status_code for page in pages] == [200, 200, 404]
        assert "page=2" in pages[0].json()["next"]
        assert len(pages[1].json()["results"]) == ROWS // 2 - 40
        assert "cursor=" in pages[1].json()["next"]

    def test_an_owner_with_few_products_is_searched_wholly(
        self, client: APIClient, products: None, stranger: Any
    ) -> None:
        for amount in range(20):
            Product.objects.create(owner=stranger, title="Brass thing", amount=amount)

        page = client.get(PRODUCT, {"search": "brass", "owner": stranger.pk}).json()

        assert (page["count"], page["count_capped"]) == (20, False)

    def test_rare_words_of_an_owner_with_many_products_are_counted(
        self, client: APIClient, products: None, user: Any, stranger: Any
    ) -> None:
        Product.objects.create(owner=stranger, title="Zirconium", amount=1)

        page = client.get(PRODUCT, {"search": "zirconium", "owner": user.pk, "limit": 5}).json()
        rest = client.get(page["next"]).json()

        assert (page["count"], page["count_capped"]) == (TABLE // 499, False)
        assert len(page["results"]) + len(rest["results"]) == TABLE // 499

    def test_a_search_does_not_change_the_settings_of_its_transaction(
        self, client: APIClient, products: None
    ) -> None:
        client.get(PRODUCT, {"search": "zirconium"})

        with connection.cursor() as cursor:
            cursor.execute("SHOW enable_seqscan")
            assert cursor.fetchone() == ("on",)

    def test_a_short_list_is_searched_in_two_statements(
        self, client: APIClient, user: Any, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        Product.objects.create(owner=user, title="Lamp", amount=1)

        with django_assert_num_queries(2):
            assert client.get(PRODUCT, {"search": "lamp"}).json()["count"] == 1


class TestConsole:
    @pytest.fixture
    def browser(self, make_user: Any) -> Client:
        browser = Client()
        browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
        return browser

    def test_the_list_is_searched_within_the_same_bounds(
        self, browser: Client, products: None
    ) -> None:
        expected = {
            "zirconium": f"{TABLE // 499} products",
            "bananana": "0 products",
            "brass": "Too many rows match",
            "uneven brass": "0 products",
            "%%%": "Each word needs three consecutive letters or digits.",
        }
        for search, text in expected.items():
            before = rows_read()
            page = browser.get("/admin/catalog/product/", {"q": search}).content.decode()
            assert text in page, search
            assert rows_read() - before <= MOST_ROWS, search
        page = browser.get("/admin/catalog/product/", {"q": " "}).content.decode()
        assert f"{TABLE} products" in page


def test_a_text_that_grows_when_it_is_folded_keeps_a_bounded_size(user: Any) -> None:
    product = Product.objects.create(
        owner=user, title="Lamp", description="\ufdfa" * 10_000, amount=1
    )

    product.refresh_from_db(fields=["search_text"])

    assert len(product.search_text) == 12_000
