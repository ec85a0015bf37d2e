"""Deletion over relations that this project does not have, but a project made from it may."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import CASCADE, PROTECT, RESTRICT, SET_NULL, ProtectedError, RestrictedError
from django.test.utils import isolate_apps

from accounts.models import batches


@pytest.fixture
def shop(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Customers with orders, lines, invoices, notes and vouchers: tables for the time of a test."""
    monkeypatch.setattr(batches, "BATCH", 2)
    with isolate_apps("accounts"):
        customer = table("Customer")
        tables = [
            customer,
            table("Member", customer),  # its row is a customer's
            order := table(
                "Order",
                customer=models.ForeignKey(customer, CASCADE),
                follows=models.ForeignKey("self", CASCADE, null=True),
            ),
            table("Line", order=models.ForeignKey(order, CASCADE)),
            table("Invoice", order=models.ForeignKey(order, PROTECT)),
            table(
                "Voucher",
                customer=models.ForeignKey(customer, CASCADE),
                order=models.ForeignKey(order, RESTRICT),
            ),
            table("Note", order=models.ForeignKey(order, SET_NULL, null=True)),
        ]
        with connection.schema_editor() as editor:
            for model in tables:
                editor.create_model(model)
        yield SimpleNamespace(**{model.__name__: model for model in tables})


def table(name: str, base: Any = models.Model, **fields: Any) -> Any:
    options = type("Meta", (), {"app_label": "accounts"})
    return type(name, (base,), {"__module__": __name__, "Meta": options, **fields})


def delete(customer: Any) -> None:
    batches.delete_referring_rows(customer)
    customer.delete()


def fill(shop: SimpleNamespace) -> Any:
    """Return a customer with five orders of three lines each, and leave one of somebody else."""
    for _ in range(2):
        customer = shop.Customer.objects.create()
        for _ in range(5):
            order = shop.Order.objects.create(customer=customer)
            for _ in range(3):
                shop.Line.objects.create(order=order)
            shop.Note.objects.create(order=order)
    return customer


def numbers(shop: SimpleNamespace) -> list[int]:
    return [model.objects.count() for model in (shop.Customer, shop.Order, shop.Line)]


def test_rows_of_rows_are_deleted_in_batches(shop: SimpleNamespace) -> None:
    customer = fill(shop)
    deleted = []

    def check(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("DELETE"):
            deleted.append(context["cursor"].rowcount)
        return result

    with connection.execute_wrapper(check):
        delete(customer)

    assert numbers(shop) == [1, 5, 15]
    assert max(deleted) == 2
    assert shop.Note.objects.filter(order=None).count() == 5


def test_a_protected_row_stops_the_deletion(shop: SimpleNamespace) -> None:
    customer = fill(shop)
    shop.Invoice.objects.create(order=customer.order_set.first())

    with pytest.raises(ProtectedError):
        delete(customer)


def test_a_restricted_row_stops_the_deletion(shop: SimpleNamespace) -> None:
    customer = fill(shop)
    other = shop.Customer.objects.exclude(pk=customer.pk).get()
    shop.Voucher.objects.create(customer=other, order=customer.order_set.first())

    with pytest.raises(RestrictedError):
        delete(customer)


def test_a_restricted_row_that_is_deleted_too_stops_nothing(shop: SimpleNamespace) -> None:
    customer = fill(shop)
    for order in customer.order_set.all():
        shop.Voucher.objects.create(customer=customer, order=order)

    delete(customer)

    assert numbers(shop) == [1, 5, 15]
    assert not shop.Voucher.objects.exists()


def test_rows_that_refer_to_each_other_are_deleted(shop: SimpleNamespace) -> None:
    customer = fill(shop)
    first, *others = customer.order_set.order_by("pk")
    for order in others:
        order.follows = first
        order.save()
    first.follows = others[-1]
    first.save()

    delete(customer)

    assert numbers(shop) == [1, 5, 15]


def test_a_child_row_is_deleted_with_its_parent(shop: SimpleNamespace) -> None:
    member = shop.Member.objects.create()
    shop.Order.objects.create(customer=member)

    delete(shop.Customer.objects.get())

    assert numbers(shop) == [0, 0, 0]
    assert not shop.Member.objects.exists()
