"""Pages of the console list a bounded number of rows."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from pytest_django import Settings

from accounts.models import User
from console.site import ConsoleSite
from console.tests.samples import Order, Part, Sample
from tests.articles.models import Article
from tests.rig.search import SearchedQuerySet

MANY = 25_000


def add_articles(owner: User, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO articles_article"
            " (owner_id, title, description, amount, created_at, updated_at)"
            " SELECT %s, 'Lamp ' || n, '', 1, now(), now() FROM generate_series(1, %s) n",
            [owner.pk, number],
        )


def rows_read(queries: CaptureQueriesContext) -> list[str]:
    """Return the statements that read articles without a LIMIT."""
    return [
        query["sql"][:300]
        for query in queries
        if "SELECT" in query["sql"]
        and 'FROM "articles_article"' in query["sql"]
        and "LIMIT" not in query["sql"]
    ]


@pytest.mark.heavy
class TestDeletion:
    def test_a_user_with_many_articles_is_shown_and_deleted(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_articles(user, MANY)
        page = f"/admin/accounts/user/{user.pk}/delete/"

        with CaptureQueriesContext(
            connection,
        ) as queries:
            shown = console.get(page)

        text = shown.content.decode()
        assert (text.count("Lamp "), len(text) < 30_000) == (20, True)
        assert "and more than 9,981 more articles" in text
        assert "more than 10,000" in text
        assert not rows_read(queries)
        assert console.post(page, {"post": "yes"}).status_code == 302
        assert not Article.objects.exists()
        assert not User.objects.filter(pk=user.pk).exists()

    def test_users_with_many_articles_are_shown_and_deleted(
        self,
        console: Client,
        user: User,
        make_user: Callable[..., User],
    ) -> None:
        users = [user, *(make_user(f"user{n}") for n in range(30))]
        add_articles(users[-1], MANY)
        body = {"action": "delete_selected", "_selected_action": [user.pk for user in users]}

        with CaptureQueriesContext(connection) as queries:
            text = console.post("/admin/accounts/user/", body).content.decode()

        assert text.count("Lamp ") == 20
        assert "and 11 more users" in text
        assert "Users: 31" in text
        assert not rows_read(queries)
        console.post("/admin/accounts/user/", body | {"post": "yes"})
        assert list(User.objects.values_list("username", flat=True)) == ["boss"]

    def test_many_articles_are_shown_and_deleted(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_articles(user, 500)
        body = {"action": "delete_selected", "_selected_action": [Article.objects.first().pk]}
        body |= {"select_across": "1"}

        text = console.post("/admin/articles/article/", body).content.decode()

        assert "and 480 more articles" in text
        console.post("/admin/articles/article/", body | {"post": "yes"})
        assert not Article.objects.exists()

    def test_an_action_on_too_many_rows_is_rejected(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_articles(user, 1_001)
        body = {"action": "delete_selected", "_selected_action": [Article.objects.first().pk]}

        page = console.post(
            "/admin/articles/article/", body | {"select_across": "1", "post": "yes"}, follow=True
        )

        assert b"An action is limited to 1,000 rows. No row was changed." in page.content
        assert Article.objects.count() == 1_001

    def test_it_names_what_staff_may_not_delete(
        self, user: User, make_user: Callable[..., User]
    ) -> None:
        clerk = make_user("clerk", is_staff=True)
        names = ["view_user", "change_user", "delete_user"]
        clerk.user_permissions.set(Permission.objects.filter(codename__in=names))
        add_articles(user, 30)
        browser = Client()
        browser.force_login(clerk)
        page = f"/admin/accounts/user/{user.pk}/delete/"

        assert "Cannot delete" in browser.get(page).content.decode()
        assert browser.post(page, {"post": "yes"}).status_code == 403

        assert User.objects.filter(pk=user.pk).exists()

    def test_a_protected_row_is_named_and_kept(
        self,
        console: Client,
        sample: Sample,
    ) -> None:
        Order.objects.create(sample=sample, title="Order 17")
        Part.objects.create(sample=sample, title="Bulb")
        page = f"/admin/health/sample/{sample.pk}/delete/"

        assert "Order 17" in console.get(page).content.decode()
        console.post(page, {"post": "yes"})

        assert Sample.objects.exists()

    def test_a_row_that_is_protected_meanwhile_is_a_conflict(
        self,
        console: Client,
        sample: Sample,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        delete = Sample.delete

        def order_meanwhile(self: Sample) -> Any:
            Order.objects.create(sample=self, title="Order 17")
            return delete(self)

        monkeypatch.setattr(Sample, "delete", order_meanwhile)

        page = console.post(f"/admin/health/sample/{sample.pk}/delete/", {"post": "yes"})

        assert (page.status_code, b"others refer to it" in page.content) == (409, True)
        assert Sample.objects.exists()

    def test_a_row_without_a_page_is_named(self, console: Client, user: User) -> None:
        user.groups.add(Group.objects.create(name="Readers"))

        page = console.get(f"/admin/accounts/user/{user.pk}/delete/").content.decode()

        assert "<li>User-group relationship: " in page

    def test_nothing_selected_is_nothing_deleted(
        self,
        console: Client,
        user: User,
    ) -> None:
        body = {"action": "delete_selected", "_selected_action": ["0"], "post": "yes"}

        page = console.post("/admin/accounts/user/", body)

        assert (page.status_code, list(get_messages(page.wsgi_request))) == (302, [])


class TestLists:
    def test_a_filter_lists_the_first_of_many_rows(
        self,
        console: Client,
        sample: Sample,
    ) -> None:
        Sample.objects.bulk_create(Sample(title=f"S{n}", at=sample.at) for n in range(150))
        for one in Sample.objects.order_by("-pk")[:2]:
            Order.objects.create(sample=one, title=f"Of {one}")

        page = console.get("/admin/health/order/").content.decode()
        last = Sample.objects.latest("pk")
        found = console.get("/admin/health/order/", {"sample__id__exact": last.pk})

        assert page.count("?sample__id__exact=") == 100
        assert "sample (the first 100)" in page
        assert "1 order" in found.content.decode()

    def test_facets_are_not_counted(self, console: Client) -> None:
        page = console.get("/admin/accounts/user/", {"_facets": "True"})

        assert (page.status_code, b"Show counts" in page.content) == (200, False)

    @pytest.mark.parametrize(
        "query",
        [
            "username__regex=a",
            "id__contains=1",
            "sessions__user_agent__regex=a",
            "pk__regex=1",
            "device_count__gte=x",
            "device_count__regex=(a%2B)%2B",
            "device_count=1",
            "password__gte=bcrypt",
            "names__gte=a",
            "sessions__id__isnull=0",
            "groups__name__gte=a",
        ],
    )
    def test_a_lookup_without_a_filter_is_rejected(
        self,
        console: Client,
        query: str,
    ) -> None:
        assert console.get(f"/admin/accounts/user/?{query}").status_code == 400

    @pytest.mark.parametrize(
        "query",
        ["is_staff__exact=1", "groups__id__exact=1", "groups__isnull=True", "id__in=1,2", "pk=1"],
    )
    def test_a_filter_and_a_key_are_allowed(self, console: Client, query: str) -> None:
        assert console.get(f"/admin/accounts/user/?{query}").status_code == 200

    def test_a_filter_with_a_parameter_of_its_own_is_allowed(self, console: Client) -> None:
        assert console.get("/admin/accounts/session/?state=active").status_code == 200

    def test_a_list_without_filters_allows_its_related_rows(
        self, console: Client, sample: Sample
    ) -> None:
        assert console.get("/admin/health/part/?state=active").status_code == 400
        assert console.get("/admin/health/part/?number=1").status_code == 400
        assert console.get(f"/admin/health/part/?sample={sample.pk}").status_code == 200

    def test_a_search_takes_six_words(self, console: Client) -> None:
        path = "/admin/articles/article/"

        assert console.get(path, {"q": "a b c d e f"}).status_code == 200
        assert console.get(path, {"q": "a b c d e f g"}).status_code == 400

    def test_a_filter_that_does_not_exist_shows_no_list(
        self,
        console: Client,
    ) -> None:
        for query in ("nothing=1", "id__exact=abc", "id=1&p=99"):
            page = console.get(f"/admin/accounts/user/?{query}")
            assert page.status_code == (200 if "p=" in query else 400)


class SearchedAdmin(admin.ModelAdmin):
    search_fields = ["title"]

    def get_queryset(self, request: HttpRequest) -> SearchedQuerySet:
        return SearchedQuerySet(Article)


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ("zirconium", "1 article"),
        ("nothing", "0 articles"),
        ("lamp", "Too many rows match"),
        ("%%%", "A word has letters only."),
        (" ", "301 articles"),
    ],
)
def test_a_list_is_searched_as_in_the_api(
    console: Client,
    user: User,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    search: str,
    text: str,
) -> None:
    monkeypatch.setattr("api.search.SEARCH_ROWS", 100)
    site = ConsoleSite()
    site.register(Article, SearchedAdmin)
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [path("admin/", site.urls)]})
    Article.objects.bulk_create(Article(owner=user, title="lamp", amount=1) for _ in range(300))
    Article.objects.create(owner=user, title="zirconium", amount=1)

    page = console.get("/admin/articles/article/", {"q": search}).content.decode()

    assert text in page


class TestUserPage:
    def test_it_counts_no_more_than_the_lists_do(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_articles(user, MANY)

        with CaptureQueriesContext(connection) as queries:
            page = console.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()

        assert "10,000 articles" in page
        assert f"/admin/articles/article/?owner={user.pk}" in page
        assert not rows_read(queries)
        found = console.get(f"/admin/articles/article/?owner={user.pk}").content.decode()
        assert "10000 articles" in found

    def test_it_leads_to_no_list_that_staff_may_not_see(
        self, user: User, make_user: Callable[..., User]
    ) -> None:
        clerk = make_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename="view_user"))
        browser = Client()
        browser.force_login(clerk)

        page = browser.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()

        assert "articles/article" not in page
