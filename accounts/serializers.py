from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from drf_spectacular.utils import (
    OpenApiExample,
    extend_schema_field,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.fields import get_error_detail

from accounts.identities import LONGEST_EMAIL, canonical_email, username_validator
from accounts.models import Event, Session, User
from accounts.passwords import MAXIMUM_LENGTH
from accounts.tokens import LONGEST_TOKEN
from api.fields import LineField, StringField
from api.requests import django_request
from api.serializers import ModelSerializer

TAKEN = {
    "accounts_user_username_unique": ("username", "A user with this username already exists."),
    "accounts_user_email_unique": ("email", "A user with this e-mail address already exists."),
}


class EmailField(StringField, serializers.EmailField):
    """An e-mail address in its canonical form."""

    def normalize(self, text: str) -> str:
        text = super().normalize(text)
        return canonical_email(text) if text.strip() else text


@extend_schema_field(
    {"type": "string", "format": "password", "minLength": 1, "maxLength": MAXIMUM_LENGTH}
)
class PasswordField(StringField):
    """A password as typed; its length is checked before anything is hashed."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"write_only": True, "trim_whitespace": False, "max_length": MAXIMUM_LENGTH}
        super().__init__(**kwargs)


@extend_schema_field(
    {"type": "string", "format": "password", "minLength": 8, "maxLength": MAXIMUM_LENGTH}
)
class NewPasswordField(PasswordField):
    """A password that keeps the rules which do not depend on its user."""

    def run_validators(self, value: Any) -> None:
        try:
            validate_password(value)
        except ValidationError as error:
            raise serializers.ValidationError(get_error_detail(error)) from error


class UserSerializer(ModelSerializer):
    """A user as the users themselves see it."""

    username = StringField(min_length=3, max_length=50, validators=[username_validator])
    email = EmailField(max_length=LONGEST_EMAIL)
    names = LineField(max_length=150, allow_blank=True, required=False)

    class Meta:
        model = User
        fields = ["id", "username", "email", "names", "date_joined"]
        read_only_fields = ["id", "date_joined"]

    def validate_username(self, username: str) -> str:
        """Reserve names that look official; only staff give them, in the console."""
        is_new = self.instance is None or username != self.instance.username
        if is_new and username.lower() in settings.RESERVED_USERNAMES:
            raise serializers.ValidationError("This username is reserved.", code="reserved")
        return username

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Report identities that are taken; `save` reports those taken since, in a race."""
        taken = {}
        for field, message in TAKEN.values():
            user = User.objects.with_identity(attrs[field]) if field in attrs else None
            if user and user != self.instance:
                taken[field] = [serializers.ErrorDetail(message, code="unique")]
                if self.instance:  # An update tells about one address or name at a time.
                    break
        if taken:
            raise serializers.ValidationError(taken)
        return attrs

    def save(self, **kwargs: Any) -> User:
        try:
            user: User = super().save(**kwargs)
        except IntegrityError as error:
            field, message = TAKEN[error.__cause__.diag.constraint_name]  # type: ignore[union-attr]
            detail = serializers.ErrorDetail(message, code="unique")
            raise serializers.ValidationError({field: [detail]}) from error
        return user


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
    password = NewPasswordField()

    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "password"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        user = User(**{name: text for name, text in attrs.items() if name != "password"})
        validate_new_password(attrs["password"], user, field="password")
        return attrs

    def create(self, validated_data: dict[str, Any]) -> User:
        return User.objects.create_user(**validated_data)


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
            wrong = serializers.ErrorDetail("The password is wrong.", code="invalid")
            raise serializers.ValidationError({"current_password": [wrong]})
        if user is None:
            raise AuthenticationFailed(code="invalid_credentials")
        if not caller:  # Not before: a stranger would learn what a user's attributes are.
            self.validate_for(user, attrs["new_password"])
        return {**attrs, "user": user}

    def validate_for(self, user: User, password: str) -> None:
        try:
            validate_new_password(password, user)
        except serializers.ValidationError:
            # The current password was right, and that is always recorded.
            Event.objects.record_rejection(user, "new password rejected")
            raise


def validate_new_password(password: str, user: User, *, field: str = "new_password") -> None:
    """Check a password against its user's attributes, which are validated ones."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise serializers.ValidationError({field: get_error_detail(error)}) from error


class RefreshSerializer(serializers.Serializer[Session]):
    # A string that is somewhat too long for a token is an invalid token, so a 401.
    refresh_token = StringField(max_length=4 * LONGEST_TOKEN, trim_whitespace=False)


class TokenPairSerializer(serializers.Serializer[Session]):
    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.ChoiceField(["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds left of the access token.")
    refresh_expires_in = serializers.IntegerField(help_text="Seconds left of the refresh token.")


class LoginResponseSerializer(TokenPairSerializer):
    user = UserSerializer()


class RevokedSessionsSerializer(serializers.Serializer[Session]):
    revoked = serializers.IntegerField(help_text="How many sessions were ended.")


class SessionSerializer(ModelSerializer):
    current = serializers.SerializerMethodField(help_text="Whether it is the caller's session.")

    class Meta:
        model = Session
        fields = ["id", "current", "user_agent", "device", "ip_address"]
        fields += ["created_at", "last_used_at", "expires_at"]

    def get_current(self, session: Session) -> bool:
        return bool(session == self.context["request"].auth)


class EventSerializer(ModelSerializer):
    """What happened, as the user may know it: not from where somebody else did it."""

    event = serializers.ChoiceField(Event.Kind.choices, source="kind")
    session = serializers.UUIDField(source="session_id", allow_null=True)
    device = serializers.SerializerMethodField(help_text="Of the session, or of who asked.")
    ip_address = serializers.SerializerMethodField()
    new_device = serializers.BooleanField(source="is_new_device")

    class Meta:
        model = Event
        fields = ["id", "event", "detail", "created_at", "session", "device", "ip_address"]
        fields += ["new_device"]

    def get_device(self, event: Event) -> str:
        return event.device if event.is_own or event.session_id else ""

    def get_ip_address(self, event: Event) -> str | None:
        return event.ip_address if event.is_own else None
