"""Signing in and out, staying signed in, and the password."""

from typing import Any

from django.conf import settings
from django.db import IntegrityError
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import (
    AuthenticationFailed,
    ErrorDetail,
    NotFound,
    PermissionDenied,
    ValidationError,
)
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import tokens
from accounts.authentication import TokenNotValid
from accounts.backends import clear_login_failures
from accounts.devices import device_name
from accounts.models import (
    OutgoingEmail,
    PasswordChangeRequiredError,
    PasswordUnchangedError,
    Session,
    SessionError,
    StaleLoginError,
    Ticket,
    TicketError,
    User,
)
from accounts.permissions import IsAuthenticatedOrNamesIdentity
from accounts.serializers.auth import (
    ForgotPasswordSerializer,
    LoginResponseSerializer,
    LoginSerializer,
    PasswordChangeSerializer,
    PasswordResetSerializer,
    ReauthenticationSerializer,
    RefreshSerializer,
    RegistrationEmailSerializer,
    TokenPairSerializer,
)
from accounts.serializers.fields import ticket_not_valid
from accounts.serializers.sessions import RevokedSessionsSerializer
from accounts.serializers.users import taken_by
from accounts.views.cookies import (
    COOKIE,
    SET_COOKIE,
    RefreshTokenMixin,
    delete_cookie,
    token_response,
)
from accounts.views.lists import own_sessions
from accounts.views.responses import accepted, require_email


class PasswordChangeRequired(PermissionDenied):
    """The password was right and must be replaced; `reset_token` permits that once."""

    default_code = "password_change_required"

    def __init__(self, user: User) -> None:
        super().__init__()
        try:
            ticket = Ticket.objects.issue(Ticket.Purpose.FORCE, user)
        except TicketError as error:
            raise AuthenticationFailed(code="invalid_credentials") from error
        self.members = {"reset_token": ticket.token}


def password_unchanged() -> ErrorDetail:
    text = _("The new password must be a different one.")
    return ErrorDetail(text, code="password_unchanged")


# These routes ignore the Authorization header.
WITHOUT_TOKEN: Any = {"authentication_classes": [], "permission_classes": [AllowAny]}


class AuthViewSet(RefreshTokenMixin, viewsets.GenericViewSet[Session]):
    """Sign in and out, keep signed in, change the password."""

    throttle_scope = "auth"

    @extend_schema(
        operation_id="auth_login",
        request=LoginSerializer,
        parameters=[SET_COOKIE],
        responses={200: LoginResponseSerializer, 403: None},
    )
    @action(["POST"], False, **WITHOUT_TOKEN)
    def login(self, request: Request) -> Response:
        """Sign in with a username or e-mail address; return the token pair of a new session."""
        serializer = LoginSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        user_agent = request.headers.get("User-Agent", "")[:512]
        user = serializer.validated_data["user"]
        try:
            session = Session.objects.start(
                user,
                address=request.META["REMOTE_ADDR"],
                user_agent=user_agent,
                device=device_name(user_agent),
            )
        except StaleLoginError as error:
            raise AuthenticationFailed(code="invalid_credentials") from error
        except PasswordChangeRequiredError as error:
            raise PasswordChangeRequired(user) from error
        request.auth = session  # The request is the session's from here on, for its log line too.
        return token_response(request, session, LoginResponseSerializer)

    @extend_schema(
        operation_id="auth_refresh",
        request=RefreshSerializer,
        parameters=[COOKIE, SET_COOKIE],
        responses={200: TokenPairSerializer, 403: None},
    )
    @action(["POST"], False, **WITHOUT_TOKEN)
    def refresh(self, request: Request) -> Response:
        """
        Return a new token pair for a refresh token.

        The token is spent then. A token that is sent again ends its session.
        """
        serializer = RefreshSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            if self.presented.is_expired:
                raise TokenNotValid
            session = Session.objects.rotate(self.presented)
        except (tokens.TokenError, SessionError) as error:
            raise TokenNotValid from error
        request.auth = session
        return token_response(request, session, is_by_cookie=self.is_by_cookie)

    @extend_schema(
        operation_id="auth_reauthenticate",
        request=ReauthenticationSerializer,
        parameters=[SET_COOKIE],
        responses={200: TokenPairSerializer, 403: None},
    )
    @action(["POST"], False)
    def reauthenticate(self, request: Request) -> Response:
        """Sign in again in the same session; return a fresh token pair."""
        serializer = ReauthenticationSerializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        current: Any = request.auth
        user = serializer.validated_data["user"]
        try:
            session = Session.objects.reauthenticate(current, user)
        except (StaleLoginError, SessionError) as error:
            raise TokenNotValid from error
        except PasswordChangeRequiredError as error:
            raise PasswordChangeRequired(user) from error
        return token_response(request, session)

    @extend_schema(operation_id="auth_logout", request=None, responses={204: None})
    @action(["POST"], False)
    def logout(self, request: Request) -> Response:
        """End this session."""
        own_sessions(request).filter(pk=request.auth.pk).end(Session.Reason.LOGOUT)
        response = Response(status=status.HTTP_204_NO_CONTENT)
        delete_cookie(request, response)
        return response

    @extend_schema(
        operation_id="auth_logout_all", request=None, responses=RevokedSessionsSerializer
    )
    @action(["POST"], False, url_path="logout-all")
    def logout_all(self, request: Request) -> Response:
        """End all sessions of the caller, in the console too."""
        user: Any = request.user
        response = Response({"revoked": user.end_sessions(Session.Reason.LOGOUT_ALL)})
        delete_cookie(request, response)
        return response

    @extend_schema(
        operation_id="auth_password",
        request=PasswordChangeSerializer,
        responses={204: None},
        auth=[{"bearer": []}, {}],  # type: ignore[list-item]  # its annotation lacks the form
    )
    @action(["POST"], False, permission_classes=[IsAuthenticatedOrNamesIdentity])
    def password(self, request: Request) -> Response:
        """
        Change the password and end the user's other sessions.

        Without a token but with an `identity` it is that user's, and every session ends. It is
        what follows a login that was rejected with `password_change_required`.
        """
        serializer = PasswordChangeSerializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        try:
            given["user"].change_password(
                given["new_password"], current=given["current_password"], session=request.auth
            )
        except PasswordUnchangedError as error:
            raise ValidationError({"new_password": [password_unchanged()]}) from error
        except StaleLoginError as error:
            if request.auth is None:
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

    @extend_schema(
        operation_id="auth_registration",
        request=RegistrationEmailSerializer,
        responses={202: OpenApiTypes.OBJECT, 404: None},
        auth=[],
    )
    @action(["POST"], False, **WITHOUT_TOKEN)
    def registration(self, request: Request) -> Response:
        """
        Send an email with a link to register.

        Only with REGISTRATION=verified. The response is the same for an address that has an
        account: its owner gets a notice.
        """
        require_email()
        if settings.REGISTRATION != "verified":
            raise NotFound
        serializer = RegistrationEmailSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        OutgoingEmail.objects.enqueue_entered(
            OutgoingEmail.Kind.REGISTRATION,
            serializer.validated_data["email"],
            client_address=request.META["REMOTE_ADDR"],
        )
        return accepted()
