"""What an export has of a user's products."""

import json

from rest_framework.test import APIClient

from catalog.models import Product
from catalog.tests.test_lists import add
from conftest import API, SignIn, User


def test_it_has_the_products_of_the_user_the_oldest_first(
    client: APIClient, user: User, stranger: User, sign_in: SignIn
) -> None:
    add(user, 1_200)
    add(stranger, 3)

    products = json.loads(sign_in(user).get(f"{API}/users/me/export").getvalue())["products"]

    expected = Product.objects.filter(owner=user).order_by("created_at", "pk")
    assert [product["id"] for product in products] == list(expected.values_list("pk", flat=True))
    assert products[0] == client.get(f"{API}/product/{products[0]['id']}").json()
