"""API tokens, as lists show them and as they are created."""

from datetime import timedelta
from typing import Any

from rest_framework import serializers

from accounts.models import ApiToken
from accounts.models.api_tokens import LONGEST_LIFETIME
from api.fields import LineField, StrictIntegerField
from api.serializers import ModelSerializer


class ScopeField(serializers.ChoiceField):
    """A scope as a string; DRF's own field converts a value of any type to text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ApiToken.Scope.choices, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input="")
        return super().to_internal_value(data)


class ApiTokenSerializer(ModelSerializer):
    class Meta:
        model = ApiToken
        fields = ["id", "name", "scope", "created_at", "expires_at", "last_used_at"]


class NewApiTokenSerializer(ApiTokenSerializer):
    """A token that is being created; `token` is in the response to this request only."""

    name = LineField(max_length=50)
    scope = ScopeField(help_text="`read` allows safe methods only.")
    expires_in_days = StrictIntegerField(
        min_value=1, max_value=LONGEST_LIFETIME.days, write_only=True
    )
    token = serializers.CharField(source="text", read_only=True)

    class Meta(ApiTokenSerializer.Meta):
        fields = [*ApiTokenSerializer.Meta.fields, "expires_in_days", "token"]

    def create(self, validated_data: dict[str, Any]) -> ApiToken:
        lifetime = timedelta(days=validated_data.pop("expires_in_days"))
        return ApiToken.objects.issue(lifetime=lifetime, **validated_data)
