"""Concurrent changes of products and their owners, with threads and commits."""

from collections.abc import Callable
from typing import Any

import pytest

from catalog.models import Product
from catalog.serializers import ProductSerializer
from conftest import API, SignIn, User
from tests.rig.load import at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("lifted_limits")]


def test_an_account_that_is_deleted_leaves_no_product_behind(
    make_user: Callable[..., User], sign_in: SignIn
) -> None:
    for n in range(5):
        user = make_user(f"user{n}")
        device, other = sign_in(user), sign_in(user)

        created, deleted = at_once(
            lambda other=other: other.post(f"{API}/product", {"title": "Lamp", "amount": 1}),
            lambda device=device, user=user: device.delete(f"{API}/users/{user.pk}"),
        )

        assert deleted.status_code == 204
        assert created.status_code in {201, 401}
        assert not Product.objects.exists()
        assert not User.objects.exists()


def test_a_product_of_a_deleted_owner_is_rejected(
    user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = ProductSerializer.validate

    def leave_meanwhile(self: ProductSerializer, attrs: Any) -> Any:
        User.objects.get(pk=user.pk).delete()
        return validate(self, attrs)

    device = sign_in(user)
    monkeypatch.setattr(ProductSerializer, "validate", leave_meanwhile)

    response = device.post(f"{API}/product", {"title": "Lamp", "amount": 1})

    assert response.status_code == 401
    assert response.json()["code"] == "token_not_valid"
    assert not Product.objects.exists()


def test_a_product_that_is_deleted_while_it_changes_stays_deleted(
    user: User, sign_in: SignIn
) -> None:
    device, other = sign_in(user), sign_in(user)
    for _ in range(10):
        url = f"{API}/product/{Product.objects.create(owner=user, title='Lamp', amount=1).pk}"

        changed, deleted = at_once(
            lambda url=url: device.patch(url, {"amount": 2}),
            lambda url=url: other.delete(url),
        )

        assert changed.status_code in {200, 404}
        assert deleted.status_code == 204
        assert not Product.objects.exists()
