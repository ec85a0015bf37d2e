from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from api.fields import LineField, QueryIntegerField, StrictIntegerField, StringField
from api.serializers import ModelSerializer, Serializer
from tests.articles.models import LARGEST_AMOUNT, Article

ORDERINGS = ("-created_at", "created_at", "-title", "title", "-amount", "amount")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Lamp",
            {"title": "Brass lamp", "description": "Warm light.", "amount": 3},
            request_only=True,
        )
    ]
)
class ArticleSerializer(ModelSerializer):
    title = LineField(max_length=200)
    description = StringField(
        max_length=10_000, allow_blank=True, required=False, trim_whitespace=False
    )
    amount = StrictIntegerField(min_value=0, max_value=LARGEST_AMOUNT)
    owner = serializers.IntegerField(source="owner_id", read_only=True)

    class Meta:
        model = Article
        fields = ["id", "title", "description", "amount", "owner", "created_at", "updated_at"]


NO_FILTERS: dict[str, Any] = {"ordering": ORDERINGS[0]}


class ArticleFilterSerializer(Serializer):
    """The query parameters of the list."""

    owner = QueryIntegerField(
        min_value=1, max_value=2**63 - 1, required=False, help_text="The id of a user."
    )
    ordering = serializers.ChoiceField(ORDERINGS, default=ORDERINGS[0])
