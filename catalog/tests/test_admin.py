from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.models import Product
from conftest import API, SignIn, User


def console_of(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def test_a_list_costs_the_same_for_many(
    make_user: Callable[..., User], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(12):
        Product.objects.create(owner=make_user(f"user{n}"), title="Lamp", amount=1)
    console = console_of(make_user("boss", is_staff=True, is_superuser=True))

    with django_assert_max_num_queries(8):
        response = console.get("/admin/catalog/product/")

    assert response.status_code == 200
    assert b"user11" in response.content


def test_the_catalog_group_manages_products_and_sees_no_users(
    user: User, make_user: Callable[..., User], sign_in: SignIn
) -> None:
    # Tests that commit remove the rows that migrations created.
    import_module("catalog.migrations.0002_catalog_group").make_group(apps, None)
    carl = make_user("carl", is_staff=True)
    carl.groups.set(Group.objects.filter(name="Catalog"))
    address = f"{API}/product/{Product.objects.create(owner=user, title='Lamp', amount=1).pk}"

    index = console_of(carl).get("/admin/")

    assert b"Products" in index.content
    assert b"Active sessions" not in index.content
    assert console_of(carl).get("/admin/catalog/product/").status_code == 200
    device = sign_in(carl)
    assert "email" not in device.get(f"{API}/users/{user.pk}").json()
    assert device.patch(address, {"amount": 2}).status_code == 200
    assert device.delete(address).status_code == 204


@pytest.mark.parametrize("field", ["title", "description"])
def test_forms_reject_unsafe_text(make_user: Callable[..., User], field: str) -> None:
    boss = make_user("boss", is_staff=True, is_superuser=True)
    product = Product.objects.create(owner=boss, title="Lamp", amount=1)
    form = {"title": "Lamp", "description": "", "amount": 1, "owner": boss.pk}
    console = console_of(boss)

    for page in ("add", f"{product.pk}/change"):
        body = form | {field: "a" + "\u0315\u0327" * 16}
        response = console.post(f"/admin/catalog/product/{page}/", body)
        assert "At most 30 combining marks in a row are allowed." in response.content.decode()

    product.refresh_from_db()
    assert (product.title, product.description) == ("Lamp", "")
    assert Product.objects.count() == 1


def test_the_string_of_a_product_is_its_title() -> None:
    assert str(Product(title="Lamp")) == "Lamp"


def test_seeddemo_adds_products(db: None) -> None:
    for _ in range(2):
        call_command("seeddemo", users=3, sessions=0, events=0, products=30, force=True)

    assert Product.objects.count() == 60
    assert Product.objects.values("owner").distinct().count() == 3
