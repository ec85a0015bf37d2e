from rest_framework import serializers

from tests.service.guest.models import Customer, Order, Restaurant, Snippet


class SnippetSerializer(serializers.HyperlinkedModelSerializer):
    owner = serializers.ReadOnlyField(source="owner.username", default=None)

    class Meta:
        model = Snippet
        fields = ["url", "id", "title", "code", "linenos", "owner"]


class CustomerSerializer(serializers.ModelSerializer):
    class Meta:
        model = Customer
        fields = "__all__"
        extra_kwargs = {"name": {"validators": []}}


class OrderSerializer(serializers.ModelSerializer):
    label = serializers.ReadOnlyField()
    customer_label = serializers.ReadOnlyField(source="customer.label")

    class Meta:
        model = Order
        fields = ["id", "customer", "number", "rank", "total", "weight", "due", "state", "label",
                  "customer_label"]  # fmt: skip
        extra_kwargs = {"total": {"validators": [], "min_value": None}}


class NumberSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ["number"]


class RestaurantSerializer(serializers.ModelSerializer):
    class Meta:
        model = Restaurant
        fields = ["id", "name", "serves_pizza"]
