"""What signs in, refreshes, proves and changes a password."""

import uuid
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed

from accounts import passkeys, tokens
from accounts.identities import LONGEST_EMAIL
from accounts.models import Event, PasskeyProof, Proof, Session, Ticket, User
from accounts.models.codes import Code
from accounts.models.proofs import PASSWORD
from accounts.rejections import require_factor
from accounts.serializers.fields import (
    CodeField,
    CookieField,
    EmailField,
    MFATokenField,
    NewPasswordField,
    PasswordField,
    RefreshTokenField,
    TicketField,
    missing_proof,
    validate_new_password,
)
from accounts.serializers.passkeys import AssertionField
from accounts.serializers.users import UserSerializer
from accounts.tokens import LONGEST_TOKEN
from api.fields import StringField
from api.requests import django_request


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Alice", {"identity": "alice", "password": "a sunny day in May"}, request_only=True
        )
    ]
)
class LoginSerializer(serializers.Serializer[User]):
    identity = StringField(
        max_length=LONGEST_EMAIL, help_text="Username or e-mail address, in any letter case."
    )
    password = PasswordField()
    cookie = CookieField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        request = django_request(self.context["request"])
        user = authenticate(request, username=attrs["identity"], password=attrs["password"])
        if user is None:
            raise AuthenticationFailed(code="invalid_credentials")
        return {"user": user}


class PasswordChangeSerializer(serializers.Serializer[User]):
    """The caller's new password; or, where there is no caller, that of the user who is named."""

    identity = StringField(
        max_length=LONGEST_EMAIL,
        required=False,
        help_text="Whose password, where there is no token.",
    )
    current_password = PasswordField()
    new_password = NewPasswordField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        request = self.context["request"]
        caller = request.user if request.user.is_authenticated else None
        if caller:
            validate_new_password(attrs["new_password"], caller)
        identity = caller.username if caller else attrs["identity"]
        user = authenticate(
            django_request(request), username=identity, password=attrs["current_password"]
        )
        if user is None and caller:
            wrong = serializers.ErrorDetail(_("The password is wrong."), code="invalid")
            raise serializers.ValidationError({"current_password": [wrong]})
        if user is None:
            raise AuthenticationFailed(code="invalid_credentials")
        if not caller:  # Not before: a stranger would learn what a user's attributes are.
            require_factor(user, PASSWORD)
            self.validate_for(user, attrs["new_password"])
        return {**attrs, "user": user}

    def validate_for(self, user: User, password: str) -> None:
        try:
            validate_new_password(password, user)
        except serializers.ValidationError:
            # The current password was right, and that is always recorded.
            Event.objects.record_rejection(user, "new password rejected")
            raise


class ReauthenticationSerializer(serializers.Serializer[User]):
    """The password, and a code if the user has a second factor; or a passkey instead of both."""

    password = PasswordField(required=False)
    code = CodeField(required=False)
    credential = AssertionField(required=False)
    cookie = CookieField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        reject_both(attrs, "credential", "password", "code")
        request: Any = self.context["request"]
        if "credential" in attrs:
            passkeys.count_attempt(django_request(request), request.user)
            return {"user": request.user, "proof": PasskeyProof(data=attrs["credential"])}
        if "password" not in attrs:
            raise serializers.ValidationError({"password": [missing_proof()]})
        return self.validate_password_and_code(request, attrs["password"], attrs.get("code"))

    def validate_password_and_code(
        self, request: Any, password: str, code: str | None
    ) -> dict[str, Any]:
        if request.user.has_second_factor and code is None:
            raise serializers.ValidationError({"code": [missing_proof()]})
        user = authenticate(
            django_request(request), username=request.user.username, password=password
        )
        if user is None:
            wrong = serializers.ErrorDetail(_("The password is wrong."), code="invalid")
            raise serializers.ValidationError({"password": [wrong]})
        needs_code = user.has_second_factor and code is not None
        return {"user": user, "proof": Code(code=str(code)) if needs_code else PASSWORD}


class SecondFactorSerializer(serializers.Serializer[Session]):
    """The token of a sign-in that waits for its factor, and what proves the factor."""

    mfa_token = MFATokenField()
    code = CodeField(required=False)
    credential = AssertionField(required=False)
    cookie = CookieField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        reject_both(attrs, "credential", "code")
        if attrs.get("code") is None and "credential" not in attrs:
            text = _("Send a code or a credential.")
            raise serializers.ValidationError(serializers.ErrorDetail(text, code="invalid"))
        return attrs

    def proof_with(self, ticket: Ticket) -> Proof:
        """Return what was sent as a proof that uses up the ticket, too."""
        if "credential" in self.validated_data:
            return PasskeyProof(data=self.validated_data["credential"], ticket=ticket)
        return Code(code=self.validated_data["code"], ticket=ticket)


def reject_both(attrs: dict[str, Any], name: str, *others: str) -> None:
    """Raise ValidationError for one proof beside others: it would not be clear which one counts."""
    if name in attrs and any(attrs.get(other) is not None for other in others):
        text = _("Send one proof, not several.")
        raise serializers.ValidationError(serializers.ErrorDetail(text, code="invalid"))


class RefreshSerializer(serializers.Serializer[Session]):
    # A string that is somewhat too long for a token is an invalid token, so a 401.
    refresh_token = RefreshTokenField(max_length=4 * LONGEST_TOKEN)
    cookie = CookieField()


class TokenPairSerializer(serializers.Serializer[Session]):
    """A session's pair: a new access token, and the current refresh token."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField(required=False, help_text="Absent if it is in a cookie.")
    token_type = serializers.ChoiceField(["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds left of the access token.")
    refresh_expires_in = serializers.IntegerField(help_text="Seconds left of the refresh token.")

    def to_representation(self, instance: Session) -> dict[str, Any]:
        now = instance.now or timezone.now()
        access_expires_at = min(now + settings.ACCESS_TOKEN_LIFETIME, instance.expires_at)
        ids: Any = {"user_id": instance.user_id, "session_id": instance.pk}
        return {
            "access_token": tokens.write(
                tokens.AccessToken,
                **ids,
                token_id=uuid.uuid4(),
                issued_at=now,
                expires_at=access_expires_at,
                authenticated_at=instance.authenticated_at,
                methods=instance.methods,
            ),
            "refresh_token": tokens.write(
                tokens.RefreshToken,
                **ids,
                token_id=instance.token_id,
                issued_at=instance.last_used_at,
                expires_at=instance.expires_at,
            ),
            "token_type": "Bearer",
            "expires_in": seconds_between(now, access_expires_at),
            "refresh_expires_in": seconds_between(now, instance.expires_at),
        }


def seconds_between(start: datetime, end: datetime) -> int:
    """Count as tokens do, which carry whole seconds."""
    return int(end.timestamp()) - int(start.timestamp())


class LoginResponseSerializer(TokenPairSerializer):
    user = UserSerializer()

    def to_representation(self, instance: Session) -> dict[str, Any]:
        pair = super().to_representation(instance)
        return {**pair, "user": UserSerializer(instance.user).data}


class ForgotPasswordSerializer(serializers.Serializer[User]):
    identity = StringField(
        max_length=LONGEST_EMAIL, help_text="Username or e-mail address, in any letter case."
    )


class PasswordResetSerializer(serializers.Serializer[User]):
    token = TicketField(Ticket.Purpose.RESET, Ticket.Purpose.UNDO, Ticket.Purpose.FORCE)
    new_password = NewPasswordField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        validate_new_password(attrs["new_password"], attrs["token"].user)
        return attrs


class RegistrationEmailSerializer(serializers.Serializer[User]):
    email = EmailField(max_length=LONGEST_EMAIL)
