"""The API and the console page of articles."""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.test import Client
from rest_framework.test import APIClient

from conftest import API, SignIn, User
from tests.articles.models import Article
from tests.articles.serializers import ArticleSerializer

ROUTE = f"{API}/articles"
BODY = {"title": "Lamp", "amount": 3}


@pytest.fixture
def row(user: User) -> Article:
    return Article.objects.create(owner=user, **BODY)


class TestRead:
    def test_anonymous_clients_may_read(self, client: APIClient, row: Article) -> None:
        page = client.get(ROUTE).json()

        assert page["count"] == 1
        assert page["results"] == [client.get(f"{ROUTE}/{row.pk}").json()]
        assert page["results"][0].keys() == {
            "id", "title", "description", "amount", "owner", "created_at", "updated_at",
        }  # fmt: skip

    @pytest.mark.parametrize("ordering", ["created_at", "-created_at", "title", "-amount"])
    def test_a_list_is_ordered(self, client: APIClient, user: User, ordering: str) -> None:
        for amount in (2, 1, 3):
            Article.objects.create(owner=user, title=f"Lamp {amount}", amount=amount)
        expected = Article.objects.order_by(ordering).values_list("pk", flat=True)

        page = client.get(ROUTE, {"ordering": ordering}).json()

        assert [found["id"] for found in page["results"]] == list(expected)

    def test_a_list_is_filtered_by_owner(
        self, client: APIClient, row: Article, stranger: User
    ) -> None:
        Article.objects.create(owner=stranger, **BODY)

        page = client.get(ROUTE, {"owner": row.owner_id}).json()

        assert [found["id"] for found in page["results"]] == [row.pk]

    def test_an_export_has_those_of_the_user(
        self, client: APIClient, user: User, row: Article, stranger: User, sign_in: SignIn
    ) -> None:
        Article.objects.create(owner=stranger, **BODY)

        export = json.loads(sign_in(user).get(f"{API}/users/me/export").getvalue())

        assert export["articles"] == [client.get(f"{ROUTE}/{row.pk}").json()]

    @pytest.mark.parametrize("name", ["0", "9" * 30, "-1", "abc", "%00"])
    def test_an_unknown_id_is_not_found(self, client: APIClient, db: None, name: str) -> None:
        assert client.get(f"{ROUTE}/{name}").status_code == 404


class TestCreate:
    def test_a_valid_body_is_stored(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).post(ROUTE, BODY | {"id": 7, "created_at": "x"})

        row = Article.objects.get()
        assert response.status_code == 201
        assert (row.title, row.description, row.amount) == ("Lamp", "", 3)
        assert row.pk != 7
        assert row.owner == user

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"title": "  "}, "blank"),
            ({"title": "x" * 201}, "max_length"),
            ({"title": "a\x00b"}, "invalid"),
            ({"description": "x" * 10_001}, "max_length"),
            ({"amount": -1}, "min_value"),
            ({"amount": 2**31}, "max_value"),
            ({"amount": "3"}, "invalid"),
        ],
    )
    def test_an_invalid_value_is_reported_by_field_and_code(
        self, user: User, sign_in: SignIn, changes: dict[str, Any], code: str
    ) -> None:
        response = sign_in(user).post(ROUTE, BODY | changes)

        assert response.status_code == 400
        errors = [(error["field"], error["code"]) for error in response.json()["errors"]]
        assert errors == [(next(iter(changes)), code)]
        assert not Article.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_one_of_a_deleted_owner_is_rejected(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(user)

        def leave_meanwhile(self: ArticleSerializer, attrs: Any) -> Any:
            User.objects.get(pk=user.pk).delete()
            return attrs

        monkeypatch.setattr(ArticleSerializer, "validate", leave_meanwhile)

        assert device.post(ROUTE, BODY).status_code == 401
        assert not Article.objects.exists()


class TestChange:
    def test_the_owner_may(self, user: User, row: Article, sign_in: SignIn) -> None:
        device = sign_in(user)

        response = device.patch(f"{ROUTE}/{row.pk}", {"amount": 4})

        assert (response.status_code, response.json()["amount"]) == (200, 4)
        assert device.delete(f"{ROUTE}/{row.pk}").status_code == 204
        assert device.get(f"{ROUTE}/{row.pk}").status_code == 404

    def test_others_may_not(self, stranger: User, row: Article, sign_in: SignIn) -> None:
        device = sign_in(stranger)

        for response in (
            device.patch(f"{ROUTE}/{row.pk}", {"amount": 4}),
            device.delete(f"{ROUTE}/{row.pk}"),
        ):
            assert response.status_code == 403
        assert Article.objects.get().amount == 3

    @pytest.mark.parametrize(("method", "path"), [("post", ""), ("patch", "/1"), ("delete", "/1")])
    def test_a_write_needs_a_token(
        self, client: APIClient, db: None, method: str, path: str
    ) -> None:
        assert getattr(client, method)(f"{ROUTE}{path}").status_code == 401


def test_the_group_manages_them_in_the_console_and_the_api(
    row: Article, make_user: Callable[..., User], sign_in: SignIn
) -> None:
    # Tests that commit remove the rows that migrations created.
    import_module("tests.articles.migrations.0002_group").make_group(apps, None)
    carl = make_user("carl", is_staff=True)
    carl.groups.set(Group.objects.filter(name="Articles"))
    browser = Client()
    browser.force_login(carl)

    assert "Lamp" in browser.get("/admin/articles/article/").content.decode()
    assert browser.get(f"/admin/articles/article/{row.pk}/change/").status_code == 200
    assert sign_in(carl).delete(f"{ROUTE}/{row.pk}").status_code == 204
