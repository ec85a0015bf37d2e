"""Fields of accounts: addresses, passwords and the tokens of tickets."""

from typing import Any

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import SkipField, empty, get_error_detail

from accounts.identities import canonical_email
from accounts.models import Ticket, TicketError, User
from accounts.models.tickets import TOKEN_LENGTH, read_token
from accounts.passwords import MAXIMUM_LENGTH
from api.fields import StringField


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


def ticket_not_valid() -> serializers.ErrorDetail:
    text = _("This token is not valid. It may have been used, or it has expired.")
    return serializers.ErrorDetail(text, code="ticket_not_valid")


@extend_schema_field({"type": "string", "minLength": TOKEN_LENGTH, "maxLength": TOKEN_LENGTH})
class TicketField(serializers.Field[Ticket, Any, Any, Any]):
    """
    The token of a ticket for one of these purposes; its value is the open ticket.

    A token that is missing or odd, and a ticket that is unknown, used or expired, are one error,
    `ticket_not_valid`. With `own` the ticket must be the caller's. With `required` a missing token
    is an error of its own.
    """

    def __init__(self, *purposes: str, own: bool = False, required: bool = False) -> None:
        super().__init__(write_only=True, required=True)
        self.purposes, self.own, self.is_required = purposes, own, required

    def fail(self, key: str, **kwargs: Any) -> None:  # type: ignore[override]  # always raises
        if key == "required" and self.is_required:
            super().fail(key, **kwargs)
        raise serializers.ValidationError([ticket_not_valid()])

    def to_internal_value(self, data: Any) -> Ticket:
        user = self.context["request"].user if self.own else None
        try:
            return Ticket.objects.find(data, *self.purposes, user=user)
        except TicketError as error:
            raise serializers.ValidationError([ticket_not_valid()]) from error


@extend_schema_field({"type": "string", "minLength": TOKEN_LENGTH, "maxLength": TOKEN_LENGTH})
class MFATokenField(serializers.Field[str, Any, Any, Any]):
    """The token of a sign-in that waits for its factor; only its signature is checked here."""

    def __init__(self) -> None:
        super().__init__(write_only=True)

    def fail(self, key: str, **kwargs: Any) -> None:  # type: ignore[override]  # always raises
        raise serializers.ValidationError([ticket_not_valid()])

    def to_internal_value(self, data: Any) -> str:
        try:
            read_token(data, [Ticket.Purpose.MFA])
        except TicketError as error:
            raise serializers.ValidationError([ticket_not_valid()]) from error
        return str(data)


def wrong_code() -> serializers.ErrorDetail:
    return serializers.ErrorDetail(_("The code is wrong, or was used before."), code="invalid")


def missing_proof() -> serializers.ErrorDetail:
    text = serializers.Field.default_error_messages["required"]
    return serializers.ErrorDetail(str(text), code="required")


@extend_schema_field({"type": "string", "examples": ["123456", "0123-4567-89AB-CDEF-GHJK-MNPQ"]})
class CodeField(serializers.Field[str, Any, Any, Any]):
    """A code of an authenticator app, or a recovery code; a malformed one is a wrong one."""

    default_error_messages = {"invalid": _("Not a valid string.")}

    def __init__(self, *, required: bool = True) -> None:
        super().__init__(write_only=True, required=required, allow_null=not required)

    def fail(self, key: str, **kwargs: Any) -> None:  # type: ignore[override]  # always raises
        super().fail("required" if key == "null" else key, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(data)


class RefreshTokenField(StringField):
    """A refresh token, which the cookie may have instead (REFRESH_COOKIE)."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"required": False, "trim_whitespace": False}
        super().__init__(**kwargs)

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        if data is empty and not settings.REFRESH_COOKIE:
            self.fail("required")
        return super().validate_empty_values(data)


# Without a type, because the field is ignored unless REFRESH_COOKIE, whatever it is.
@extend_schema_field({"default": False, "examples": [True]})
class CookieField(serializers.BooleanField):
    """Whether the client asks for the refresh token in a cookie."""

    def __init__(self) -> None:
        text = "true: return the refresh token in a cookie. Only with REFRESH_COOKIE."
        super().__init__(required=False, help_text=text)

    def run_validation(self, data: Any = empty) -> Any:
        if not settings.REFRESH_COOKIE:
            raise SkipField
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


def validate_new_password(password: str, user: User, *, field: str = "new_password") -> None:
    """Check a password against its user's attributes, which are validated ones."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise serializers.ValidationError({field: get_error_detail(error)}) from error
