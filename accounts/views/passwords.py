"""The password: how it is changed, forgotten and reset."""

from typing import TYPE_CHECKING, Any, cast

from django.db import IntegrityError
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import AuthenticationFailed, ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import TokenNotValid
from accounts.failures import clear_login_failures
from accounts.models import (
    OutgoingEmail,
    PasswordUnchangedError,
    Proof,
    SecondFactorRequiredError,
    Session,
    StaleLoginError,
    TicketError,
)
from accounts.models.proofs import PASSWORD
from accounts.permissions import IsAuthenticatedOrNamesIdentity, factor_added_since
from accounts.rejections import SecondFactorRequired
from accounts.serializers.auth import (
    ForgotPasswordSerializer,
    PasswordChangeSerializer,
    PasswordResetSerializer,
)
from accounts.serializers.fields import ticket_not_valid
from accounts.serializers.users import taken_by
from accounts.views.responses import WITHOUT_TOKEN, accepted, require_email


def password_unchanged() -> ErrorDetail:
    text = _("The new password must be a different one.")
    return ErrorDetail(text, code="password_unchanged")


class PasswordActions:
    if TYPE_CHECKING:

        def get_serializer_context(self) -> dict[str, Any]: ...

    @extend_schema(
        operation_id="auth_password",
        request=PasswordChangeSerializer,
        responses={204: None, 403: None},
        auth=[{"bearer": []}, {}],  # type: ignore[list-item]  # its annotation lacks the form
    )
    @action(["POST"], False, permission_classes=[IsAuthenticatedOrNamesIdentity])
    def password(self, request: Request) -> Response:
        """
        Change the password and end the user's other sessions.

        Without a token but with an `identity` it is that user's, and every session ends. It is
        what follows a login that was rejected with `password_change_required`. A user with a second
        factor needs a fresh token: without one it is a 403 `mfa_required`, as for a login.
        """
        serializer = PasswordChangeSerializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        given, session = serializer.validated_data, cast("Session | None", request.auth)
        try:
            given["user"].change_password(
                given["new_password"],
                current=given["current_password"],
                session=session,
                proof=Proof(session.presented.methods) if session else PASSWORD,
            )
        except SecondFactorRequiredError as error:  # Added since the password was verified.
            rejection = factor_added_since if session else SecondFactorRequired
            raise rejection(given["user"]) from error
        except PasswordUnchangedError as error:
            raise ValidationError({"new_password": [password_unchanged()]}) from error
        except StaleLoginError as error:
            if session is None:
                raise AuthenticationFailed(code="invalid_credentials") from error
            raise TokenNotValid from error
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="auth_password_forgot",
        request=ForgotPasswordSerializer,
        responses={202: OpenApiTypes.OBJECT, 404: None},
        auth=[],
    )
    @action(["POST"], False, **WITHOUT_TOKEN, url_path="password/forgot")
    def forgot_password(self, request: Request) -> Response:
        """
        Send an email with a link to reset the password.

        The response is the same for every identity, with or without an account.
        """
        require_email()
        serializer = ForgotPasswordSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        OutgoingEmail.objects.enqueue_entered(
            OutgoingEmail.Kind.RESET_PASSWORD,
            serializer.validated_data["identity"],
            client_address=request.META["REMOTE_ADDR"],
        )
        return accepted()

    @extend_schema(
        operation_id="auth_password_reset",
        request=PasswordResetSerializer,
        responses={204: None},
        auth=[],
    )
    @action(["POST"], False, **WITHOUT_TOKEN, url_path="password/reset")
    def reset_password(self, request: Request) -> Response:
        """
        Set a new password with the token of an email, and end all sessions.

        A login that was rejected with `password_change_required` has a token too, `reset_token`.
        Nobody is signed in.
        """
        serializer = PasswordResetSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        ticket, password = (serializer.validated_data[name] for name in ("token", "new_password"))
        try:
            ticket.user.reset_password(ticket, password)
        except TicketError as error:
            raise ValidationError({"token": [ticket_not_valid()]}) from error
        except PasswordUnchangedError as error:
            raise ValidationError({"new_password": [password_unchanged()]}) from error
        except IntegrityError as error:  # Another user was given the former address by an import.
            raise ValidationError({"token": [taken_by(error)[1]]}) from error
        clear_login_failures(ticket.user)
        return Response(status=status.HTTP_204_NO_CONTENT)
