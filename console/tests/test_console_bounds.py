"""Pages of the console list a bounded number of rows."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from catalog.models import Product
from console.tests.samples import Order, Part, Sample

MANY = 25_000


def add_products(owner: User, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO catalog_product"
            " (owner_id, title, description, amount, created_at, updated_at)"
            " SELECT %s, 'Lamp ' || n, '', 1, now(), now() FROM generate_series(1, %s) n",
            [owner.pk, number],
        )


def rows_read(queries: CaptureQueriesContext) -> list[str]:
    """Return the statements that read products without a LIMIT."""
    return [
        query["sql"][:300]
        for query in queries
        if "SELECT" in query["sql"]
        and 'FROM "catalog_product"' in query["sql"]
        and "LIMIT" not in query["sql"]
    ]


@pytest.mark.heavy
class TestDeletion:
    def test_a_user_with_many_products_is_shown_and_deleted(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_products(user, MANY)
        page = f"/admin/accounts/user/{user.pk}/delete/"

        with CaptureQueriesContext(
            connection,
        ) as queries:
            shown = console.get(page)

        text = shown.content.decode()
        assert (text.count("Lamp "), len(text) < 30_000) == (20, True)
        assert "and more than 9,981 more products" in text
        assert "more than 10,000" in text
        assert not rows_read(queries)
        assert console.post(page, {"post": "yes"}).status_code == 302
        assert not Product.objects.exists()
        assert not User.objects.filter(pk=user.pk).exists()

    def test_users_with_many_products_are_shown_and_deleted(
        self,
        console: Client,
        user: User,
        make_user: Callable[..., User],
    ) -> None:
        users = [user, *(make_user(f"user{n}") for n in range(30))]
        add_products(users[-1], MANY)
        body = {"action": "delete_selected", "_selected_action": [user.pk for user in users]}

        with CaptureQueriesContext(connection) as queries:
            text = console.post("/admin/accounts/user/", body).content.decode()

        assert text.count("Lamp ") == 20
        assert "and 11 more users" in text
        assert "Users: 31" in text
        assert not rows_read(queries)
        console.post("/admin/accounts/user/", body | {"post": "yes"})
        assert list(User.objects.values_list("username", flat=True)) == ["boss"]

    def test_many_products_are_shown_and_deleted(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_products(user, 500)
        body = {"action": "delete_selected", "_selected_action": [Product.objects.first().pk]}
        body |= {"select_across": "1"}

        text = console.post("/admin/catalog/product/", body).content.decode()

        assert "and 480 more products" in text
        console.post("/admin/catalog/product/", body | {"post": "yes"})
        assert not Product.objects.exists()

    def test_an_action_on_too_many_rows_is_rejected(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_products(user, 1_001)
        body = {"action": "delete_selected", "_selected_action": [Product.objects.first().pk]}

        page = console.post(
            "/admin/catalog/product/", body | {"select_across": "1", "post": "yes"}, follow=True
        )

        assert b"An action is limited to 1,000 rows. No row was changed." in page.content
        assert Product.objects.count() == 1_001

    def test_it_names_what_staff_may_not_delete(
        self, user: User, make_user: Callable[..., User]
    ) -> None:
        clerk = make_user("clerk", is_staff=True)
        names = ["view_user", "change_user", "delete_user"]
        clerk.user_permissions.set(Permission.objects.filter(codename__in=names))
        add_products(user, 30)
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
        ["username__regex=a", "id__contains=1", "sessions__user_agent__regex=a", "pk__regex=1"],
    )
    def test_a_lookup_that_reads_the_whole_table_is_rejected(
        self,
        console: Client,
        query: str,
    ) -> None:
        assert console.get(f"/admin/accounts/user/?{query}").status_code == 400

    def test_a_search_takes_six_words(self, console: Client) -> None:
        path = "/admin/catalog/product/"

        assert console.get(path, {"q": "a b c d e f"}).status_code == 200
        assert console.get(path, {"q": "a b c d e f g"}).status_code == 400

    def test_a_filter_that_does_not_exist_shows_no_list(
        self,
        console: Client,
    ) -> None:
        for query in ("nothing=1", "id__exact=abc", "id=1&p=99"):
            page = console.get(f"/admin/accounts/user/?{query}")
            assert page.status_code == (200 if "p=" in query else 400)


class TestUserPage:
    def test_it_counts_no_more_than_the_lists_do(
        self,
        console: Client,
        user: User,
    ) -> None:
        add_products(user, MANY)

        with CaptureQueriesContext(connection) as queries:
            page = console.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()

        assert "10,000 products" in page
        assert f"/admin/catalog/product/?owner={user.pk}" in page
        assert not rows_read(queries)
        found = console.get(f"/admin/catalog/product/?owner={user.pk}").content.decode()
        assert "10000 products" in found

    def test_it_leads_to_no_list_that_staff_may_not_see(
        self, user: User, make_user: Callable[..., User]
    ) -> None:
        clerk = make_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename="view_user"))
        browser = Client()
        browser.force_login(clerk)

        page = browser.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()

        assert "catalog/product" not in page
