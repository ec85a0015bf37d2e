"""Users: their representation, registration, and the email address."""

from typing import Any

from django.conf import settings
from django.db import IntegrityError
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from accounts.identities import LONGEST_EMAIL, username_validator
from accounts.models import AddressReservedError, Ticket, TicketError, User
from accounts.models.addresses import EMAIL_TAKEN
from accounts.models.users import USERNAME_TAKEN
from accounts.serializers.fields import (
    EmailField,
    NewPasswordField,
    TicketField,
    ticket_not_valid,
    validate_new_password,
)
from api.fields import LineField, StringField
from api.serializers import ModelSerializer

TAKEN = {
    "accounts_user_username_unique": ("username", USERNAME_TAKEN),
    "accounts_user_email_unique": ("email", EMAIL_TAKEN),
}


class UserSerializer(ModelSerializer):
    """A user as the users themselves see it."""

    username = StringField(min_length=3, max_length=50, validators=[username_validator])
    email = EmailField(max_length=LONGEST_EMAIL)
    email_verified = serializers.BooleanField(read_only=True)
    names = LineField(max_length=150, allow_blank=True, required=False)

    class Meta:
        model = User
        fields = ["id", "username", "email", "email_verified", "names", "date_joined"]
        read_only_fields = ["id", "date_joined"]

    def validate_username(self, username: str) -> str:
        """Reserve names that look official; only staff give them, in the console."""
        is_new = self.instance is None or username != self.instance.username
        if is_new and username.lower() in settings.RESERVED_USERNAMES:
            raise serializers.ValidationError(_("This username is reserved."), code="reserved")
        return username

    def validate_email(self, email: str) -> str:
        """Reject another address in an update, and ignore the present one, in any letter case."""
        if self.instance is None:
            return email
        if email.lower() != self.instance.email.lower():
            message = _("Change the address with POST /users/me/email.")
            raise serializers.ValidationError(message, code="use_email_change")
        return str(self.instance.email)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Report identities that are taken; `save` reports those taken since, in a race."""
        taken = {
            self.field_of(name): [error]
            for name in attrs
            if (error := self.taken_error(name, attrs[name]))
        }
        if taken:
            raise serializers.ValidationError(taken)
        return attrs

    def field_of(self, name: str) -> str:
        """Return the field of the body that an identity came in."""
        return name

    def taken_error(self, name: str, value: Any) -> serializers.ErrorDetail | None:
        message = dict(TAKEN.values()).get(name)
        user = User.objects.with_identity(value) if message else None
        is_taken = user not in {None, self.instance}
        if name == "email" and self.instance is None:
            is_taken = is_taken or Ticket.objects.reserves(value)
        return (
            serializers.ErrorDetail(str(message), code="unique") if message and is_taken else None
        )

    def save(self, **kwargs: Any) -> User:
        try:
            user: User = super().save(**kwargs)
        except IntegrityError as error:
            name, detail = taken_by(error)
            raise serializers.ValidationError({self.field_of(name): [detail]}) from error
        return user


def taken_by(error: IntegrityError) -> tuple[str, serializers.ErrorDetail]:
    """Return the field whose value is taken, and what to respond."""
    name, message = "email", EMAIL_TAKEN
    if not isinstance(error, AddressReservedError):
        name, message = TAKEN[error.__cause__.diag.constraint_name]  # type: ignore[union-attr]
    return name, serializers.ErrorDetail(str(message), code="unique")


class ProfileSerializer(UserSerializer):
    """
    A user as the caller may see them.

    Others see the fields of `PUBLIC`; the users themselves, and staff who may view users, see all.
    """

    PUBLIC = frozenset({"id", "username", "names"})

    def get_fields(self) -> dict[str, Any]:
        """
        Describe the fields that others do not see as optional.

        On each copy: DRF copies a field from the arguments that it was built with.
        """
        fields = super().get_fields()
        for name in fields.keys() - self.PUBLIC:
            fields[name].read_only = fields[name].required = False
        return fields

    def to_representation(self, instance: User) -> dict[str, Any]:
        data = super().to_representation(instance)
        caller = self.context["request"].user
        if instance == caller or (caller.is_staff and caller.has_perm("accounts.view_user")):
            return data
        return {name: data[name] for name in data if name in self.PUBLIC}


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Alice",
            {
                "username": "alice",
                "email": "alice@example.com",
                "password": "a sunny day in May",
                "names": "Alice Archer",
            },
            request_only=True,
        )
    ]
)
class RegistrationSerializer(UserSerializer):
    """A new user. The ticket of an email, if there is one, names the address and proves it."""

    password = NewPasswordField()
    registration_token = TicketField(Ticket.Purpose.REGISTER, Ticket.Purpose.INVITE, required=True)

    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "password", "registration_token"]

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        body = getattr(self, "initial_data", None)
        has_token = isinstance(body, dict) and "registration_token" in body
        takes_token = has_token or settings.REGISTRATION == "verified"
        fields["registration_token"].required = takes_token
        fields["email"].read_only = takes_token
        # The schema has no body: it describes both as optional, of which one is needed.
        fields["email"].required = body is not None and not takes_token
        return fields

    def field_of(self, name: str) -> str:
        return "registration_token" if self.fields[name].read_only else name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ticket = attrs.pop("registration_token", None)
        if ticket:
            attrs["email"] = ticket.address
        attrs = super().validate(attrs)
        user = User(**{name: text for name, text in attrs.items() if name != "password"})
        validate_new_password(attrs["password"], user, field="password")
        return {**attrs, "ticket": ticket}

    def create(self, validated_data: dict[str, Any]) -> User:
        try:
            return User.objects.register(**validated_data)
        except TicketError as error:
            invalid = {"registration_token": [ticket_not_valid()]}
            raise serializers.ValidationError(invalid) from error


class SecuritySerializer(serializers.Serializer[User]):
    email_verified = serializers.BooleanField()
    pending_email = serializers.EmailField(allow_null=True)
    password_changed_at = serializers.DateTimeField()
    totp = serializers.BooleanField()
    passkeys = serializers.IntegerField(source="passkey_count")
    recovery_codes_left = serializers.IntegerField()
    tokens = serializers.IntegerField(source="api_tokens.active.count", read_only=True)


class EmailChangeSerializer(serializers.Serializer[User]):
    email = EmailField(max_length=LONGEST_EMAIL)

    def validate_email(self, email: str) -> str:
        if email.lower() == self.context["request"].user.email.lower():
            raise serializers.ValidationError(_("This is your address already."), code="unchanged")
        return email


class EmailTokenSerializer(serializers.Serializer[User]):
    token = TicketField(Ticket.Purpose.VERIFY, Ticket.Purpose.CHANGE, own=True)
