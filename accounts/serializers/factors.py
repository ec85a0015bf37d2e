"""Second factors: what adds one, and what the user keeps of it."""

from typing import Any

from rest_framework import serializers

from accounts.models import User
from accounts.serializers.fields import CodeField


class TOTPSerializer(serializers.Serializer[User]):
    """The secret of an authenticator app, which is shown once."""

    secret = serializers.CharField(help_text="Base 32, to type into an authenticator app.")
    uri = serializers.CharField(help_text="`otpauth://…`, to show as a QR code.")


class TOTPConfirmationSerializer(serializers.Serializer[User]):
    code = CodeField()


class RecoveryCodesSerializer(serializers.Serializer[User]):
    """Recovery codes, which can never be read again."""

    recovery_codes: Any = serializers.ListField(child=serializers.CharField())


class FirstRecoveryCodesSerializer(serializers.Serializer[User]):
    """Recovery codes with the first factor; null with any other."""

    recovery_codes: Any = serializers.ListField(child=serializers.CharField(), allow_null=True)
