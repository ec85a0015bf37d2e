"""Permissions for products, and their deletion with the owner."""

import pytest
from rest_framework.test import APIClient

from catalog.models import Product
from conftest import API, SignIn, User
from tests.rig.api_tokens import issue_token, using

PRODUCT = f"{API}/product"


@pytest.mark.parametrize("header", ["Basic YWxpY2U6cGFzcw==", "Token abc", "x", ""])
def test_another_authorization_scheme_is_anonymous(
    client: APIClient, db: None, header: str
) -> None:
    assert client.get(PRODUCT, HTTP_AUTHORIZATION=header).status_code == 200


@pytest.mark.parametrize("token", ["", "abc", "a.b.c", "x" * 5000])
def test_an_invalid_token_is_rejected_on_a_public_route(
    client: APIClient, db: None, token: str
) -> None:
    response = client.get(PRODUCT, HTTP_AUTHORIZATION=f"Bearer {token}")

    assert response.status_code == 401
    assert response.json()["code"] == "token_not_valid"


@pytest.mark.parametrize(("method", "path"), [("post", ""), ("patch", "/1"), ("delete", "/1")])
def test_a_write_needs_a_token(client: APIClient, db: None, method: str, path: str) -> None:
    response = getattr(client, method)(f"{PRODUCT}{path}")

    assert response.status_code == 401
    assert response.json()["code"] == "not_authenticated"


def test_products_are_deleted_with_their_owner(user: User, stranger: User, sign_in: SignIn) -> None:
    for owner in (user, stranger):
        Product.objects.create(owner=owner, title="Lamp", amount=1)

    assert sign_in(user).delete(f"{API}/users/{user.pk}").status_code == 204

    assert [product.owner for product in Product.objects.all()] == [stranger]


@pytest.mark.parametrize(("scope", "status"), [("read", 403), ("write", 201)])
def test_an_api_token_writes_products_if_its_scope_permits(
    user: User, scope: str, status: int
) -> None:
    machine = using(issue_token(user, scope=scope))

    assert machine.get(PRODUCT).status_code == 200
    response = machine.post(PRODUCT, {"title": "Lamp", "amount": 3})
    assert response.status_code == status
    assert Product.objects.filter(owner=user).count() == (status == 201)


def test_an_api_token_has_no_more_rights_than_its_user(user: User, stranger: User) -> None:
    product = Product.objects.create(owner=stranger, title="Lamp", amount=1)
    machine = using(issue_token(user))

    assert machine.delete(f"{PRODUCT}/{product.pk}").status_code == 403
    assert Product.objects.filter(pk=product.pk).exists()
