"""Passkeys: their representation, and the credentials with which browsers add and use them."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed

from accounts import passkeys
from accounts.models import Passkey, PasskeyProof, User
from accounts.serializers.fields import CookieField
from accounts.serializers.webauthn import AssertionSerializer, AttestationSerializer
from api.fields import LineField
from api.requests import django_request
from api.serializers import ModelSerializer


def wrong_passkey() -> serializers.ErrorDetail:
    return serializers.ErrorDetail(_("This passkey could not be verified."), code="invalid")


class CredentialField(serializers.Field[Any, Any, Any, Any]):
    """A credential of a passkey, as it was sent: the model reads it, and rejects all junk alike."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(write_only=True, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return super().run_validation(serializers.empty if data is None else data)

    def to_internal_value(self, data: Any) -> Any:
        return data


@extend_schema_field(AssertionSerializer)
class AssertionField(CredentialField):
    pass


@extend_schema_field(AttestationSerializer)
class AttestationField(CredentialField):
    pass


class PasskeySerializer(ModelSerializer):
    synced = serializers.BooleanField(
        read_only=True, help_text="Whether it may be backed up, so several devices may have it."
    )

    class Meta:
        model = Passkey
        fields = ["id", "name", "created_at", "last_used_at", "synced"]
        read_only_fields = ["created_at", "last_used_at"]


class NewPasskeySerializer(PasskeySerializer):
    """A passkey that was created, with recovery codes if it is the user's first factor."""

    name = LineField(min_length=1, max_length=50)
    credential = AttestationField()
    recovery_codes = serializers.ListField(
        child=serializers.CharField(), allow_null=True, read_only=True
    )

    class Meta(PasskeySerializer.Meta):
        fields = [*PasskeySerializer.Meta.fields, "credential", "recovery_codes"]


class PasskeySignInSerializer(serializers.Serializer[User]):
    credential = AssertionField()
    cookie = CookieField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        data = attrs["credential"]
        user = passkeys.identify(django_request(self.context["request"]), data)
        if user is None:
            raise AuthenticationFailed(code="invalid_credentials")
        return {"user": user, "proof": PasskeyProof(data=data)}
