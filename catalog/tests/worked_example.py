"""What the worked example of CONTRIBUTING.md adds to the list of products."""

import json
from typing import Any

from rest_framework.test import APIClient

from api.views import schema
from catalog.models import Product
from conftest import API


def test_the_new_filter_selects_and_is_documented(user: Any, client: APIClient) -> None:
    for amount in (1, 2, 3):
        Product.objects.create(owner=user, title="Lamp", amount=amount)

    found = client.get(f"{API}/product?min_amount=2").json()["results"]

    assert sorted(product["amount"] for product in found) == [2, 3]
    assert client.get(f"{API}/product?min_amount=x").status_code == 400
    parameters = json.loads(schema())["paths"][f"{API}/product"]["get"]["parameters"]
    assert "min_amount" in {parameter["name"] for parameter in parameters}
