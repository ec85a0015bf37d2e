from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from catalog.models import Product
from conftest import API, SignIn, User

PRODUCT = f"{API}/product"
MARKS = "a" + "\u0315\u0327" * 16  # PostgreSQL sorts a run of combining marks


@pytest.fixture
def product(user: User) -> Product:
    return Product.objects.create(owner=user, title="Lamp", description="A lamp.", amount=3)


class TestCreate:
    def test_the_owner_is_the_caller_whatever_the_body_says(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        body = {"title": " Ｌamp ", "amount": 3, "owner": stranger.pk, "id": 7, "created_at": "x"}

        response = sign_in(user).post(PRODUCT, body)

        product = Product.objects.get()
        assert response.status_code == 201
        assert set(response.json()) == {
            "id", "title", "description", "amount", "owner", "created_at", "updated_at",
        }  # fmt: skip
        assert (product.title, product.description, product.amount) == ("Lamp", "", 3)
        assert product.owner == user
        assert product.pk != 7

    def test_a_description_is_kept_as_it_is(self, user: User, sign_in: SignIn) -> None:
        text = "  one\n\n\ttwo ﬁ  "

        response = sign_in(user).post(PRODUCT, {"title": "x", "amount": 0, "description": text})

        assert response.json()["description"] == text

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"title": None}, "title", "null"),
            ({"title": "  "}, "title", "blank"),
            ({"title": "x" * 201}, "title", "max_length"),
            ({"title": "\ufdfa" * 12}, "title", "max_length"),
            ({"title": 5}, "title", "invalid"),
            ({"title": "a\x00b"}, "title", "invalid"),
            ({"title": MARKS}, "title", "invalid"),
            ({"description": MARKS}, "description", "invalid"),
            ({"junk": {"deep": ["a\x00b"]}}, "junk", "invalid"),
            ({"description": "x" * 10_001}, "description", "max_length"),
            ({"description": None}, "description", "null"),
            ({"description": 5}, "description", "invalid"),
            ({"amount": None}, "amount", "null"),
            ({"amount": -1}, "amount", "min_value"),
            ({"amount": 2**31}, "amount", "max_value"),
            ({"amount": 10**30}, "amount", "max_value"),
            ({"amount": "3"}, "amount", "invalid"),
            ({"amount": True}, "amount", "invalid"),
            ({"amount": 1.5}, "amount", "invalid"),
            ({"amount": [1]}, "amount", "invalid"),
        ],
    )
    def test_invalid_values_are_reported_by_field_and_code(
        self, user: User, sign_in: SignIn, changes: dict[str, Any], field: str, code: str
    ) -> None:
        response = sign_in(user).post(PRODUCT, {"title": "Lamp", "amount": 3} | changes)

        assert response.status_code == 400
        errors = [(error["field"], error["code"]) for error in response.json()["errors"]]
        assert errors == [(field, code)]
        assert not Product.objects.exists()

    def test_title_and_amount_are_required(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).post(PRODUCT, {})

        errors = {(error["field"], error["code"]) for error in response.json()["errors"]}
        assert errors == {("title", "required"), ("amount", "required")}

    def test_the_ends_of_the_ranges_are_inside(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        for amount in (0, 2**31 - 1):
            body = {"title": "x" * 200, "description": "x" * 10_000, "amount": amount}
            assert device.post(PRODUCT, body).status_code == 201


class TestRead:
    def test_anonymous_clients_may_read(
        self,
        client: APIClient,
        product: Product,
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        with django_assert_num_queries(1):
            response = client.get(f"{PRODUCT}/{product.pk}")

        assert response.status_code == 200
        assert response.json()["owner"] == product.owner_id
        assert "Cache-Control" not in response.headers

    @pytest.mark.parametrize("name", ["0", "999999", "9" * 30, "-1", "abc", "1.5", "%00", "1%00"])
    def test_an_unknown_id_is_not_found(self, client: APIClient, db: None, name: str) -> None:
        response = client.get(f"{PRODUCT}/{name}")

        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


class TestChange:
    def test_the_owner_may(self, user: User, product: Product, sign_in: SignIn) -> None:
        device = sign_in(user)

        response = device.patch(f"{PRODUCT}/{product.pk}", {"amount": 4})

        assert response.status_code == 200
        assert response.json()["title"] == "Lamp"
        assert response.json()["amount"] == 4
        assert response.json()["updated_at"] > response.json()["created_at"]
        assert device.delete(f"{PRODUCT}/{product.pk}").status_code == 204
        assert device.get(f"{PRODUCT}/{product.pk}").status_code == 404

    def test_the_owner_stays(
        self, user: User, stranger: User, product: Product, sign_in: SignIn
    ) -> None:
        body = {"owner": stranger.pk, "id": 7, "created_at": "2000-01-01T00:00:00Z"}

        assert sign_in(user).patch(f"{PRODUCT}/{product.pk}", body).status_code == 200

        after = Product.objects.get()
        assert (after.pk, after.owner, after.created_at) == (product.pk, user, product.created_at)

    @pytest.mark.parametrize("field", ["title", "description"])
    def test_a_long_run_of_combining_marks_is_rejected(
        self, user: User, product: Product, sign_in: SignIn, field: str
    ) -> None:
        response = sign_in(user).patch(f"{PRODUCT}/{product.pk}", {field: MARKS})

        errors = [(error["field"], error["code"]) for error in response.json()["errors"]]
        assert (response.status_code, errors) == (400, [(field, "invalid")])
        product.refresh_from_db()
        assert (product.title, product.description) == ("Lamp", "A lamp.")

    def test_others_may_not(self, stranger: User, product: Product, sign_in: SignIn) -> None:
        device = sign_in(stranger)

        for response in (
            device.patch(f"{PRODUCT}/{product.pk}", {"amount": 4}),
            device.delete(f"{PRODUCT}/{product.pk}"),
        ):
            assert response.status_code == 403
            assert response.json()["code"] == "permission_denied"
        product.refresh_from_db()
        assert product.amount == 3

    @pytest.mark.parametrize("is_staff", [True, False])
    @pytest.mark.parametrize("codename", ["change_product", "delete_product", "view_product"])
    def test_staff_may_what_their_permissions_name(
        self,
        make_user: Callable[..., User],
        product: Product,
        sign_in: SignIn,
        codename: str,
        is_staff: bool,
    ) -> None:
        member = make_user("member", is_staff=is_staff)
        member.user_permissions.add(Permission.objects.get(codename=codename))
        device = sign_in(member)

        patched = device.patch(f"{PRODUCT}/{product.pk}", {"amount": 4}).status_code
        deleted = device.delete(f"{PRODUCT}/{product.pk}").status_code

        assert patched == (200 if is_staff and codename == "change_product" else 403)
        assert deleted == (204 if is_staff and codename == "delete_product" else 403)

    def test_put_is_not_a_method_here(self, user: User, product: Product, sign_in: SignIn) -> None:
        response = sign_in(user).put(f"{PRODUCT}/{product.pk}", {"title": "x", "amount": 1})

        assert response.status_code == 405
        assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
