"""Models as Django's documentation writes them: the default ordering in `Meta`."""

import uuid
from pathlib import PurePath

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F


class ReversedField(models.TextField):
    """A field with converters, as an encrypted field has."""

    def from_db_value(self, value, expression, connection):
        return value and value[::-1]

    def get_prep_value(self, value):
        return value and value[::-1]


class Snippet(models.Model):
    """The model of DRF's tutorial."""

    created = models.DateTimeField(auto_now_add=True)
    title = models.CharField(max_length=100, blank=True, default="")
    code = models.TextField()
    linenos = models.BooleanField(default=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, related_name="snippets", on_delete=models.CASCADE, null=True
    )

    class Meta:
        ordering = ["created"]


class Customer(models.Model):
    name = models.CharField(max_length=50, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    @property
    def label(self):
        return f"Customer {self.name}"


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="orders")
    number = models.CharField(max_length=20)
    rank = models.IntegerField(default=0)
    total = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    weight = models.FloatField(default=0)
    due = models.DateField(null=True, blank=True)
    secret = ReversedField(default="")
    state = models.CharField(max_length=20, default="open")

    class Meta:
        ordering = ["-due", "number"]
        constraints = [
            models.UniqueConstraint(F("customer"), F("number"), name="guest_order_number"),
            models.CheckConstraint(condition=models.Q(total__gte=0), name="guest_order_total"),
        ]

    def __str__(self):
        return self.number

    @property
    def label(self):
        return f"Order {self.number}"

    def cancel(self):
        if self.state != "open":
            raise ValidationError({"state": ValidationError("It is closed.", code="closed")})
        self.state = "cancelled"
        self.save()


class Place(models.Model):
    name = models.CharField(max_length=50)


class Restaurant(Place):
    """A model with a table of its own and a primary key that is a relation."""

    serves_pizza = models.BooleanField(default=False)

    class Meta:
        ordering = ["name"]


def photo_path(photo, name):
    """Return a path that nobody guesses, with a suffix that does not depend on the client."""
    return f"photos/{uuid.uuid4()}{PurePath(name).suffix}"


class Photo(models.Model):
    """A file of a user; an order has one, so that uploads do not accumulate."""

    order = models.OneToOneField(Order, models.CASCADE, related_name="photo")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    name = models.CharField(max_length=100)
    file = models.FileField(upload_to=photo_path)
