"""Signing in and out, and staying signed in."""

from typing import Any

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import AuthenticationFailed, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import tokens
from accounts.authentication import TokenNotValid
from accounts.failures import count_completion, counting
from accounts.models import (
    OutgoingEmail,
    PasswordChangeRequiredError,
    Proof,
    SecondFactorRequiredError,
    Session,
    SessionError,
    StaleLoginError,
    Ticket,
    TicketError,
    WrongCodeError,
    WrongPasskeyError,
    mfa_tickets,
)
from accounts.models.proofs import PASSWORD
from accounts.permissions import factor_added_since
from accounts.rejections import PasswordChangeRequired
from accounts.serializers.auth import (
    LoginResponseSerializer,
    LoginSerializer,
    ReauthenticationSerializer,
    RefreshSerializer,
    RegistrationEmailSerializer,
    SecondFactorSerializer,
    TokenPairSerializer,
)
from accounts.serializers.fields import ticket_not_valid, wrong_code
from accounts.serializers.passkeys import wrong_passkey
from accounts.serializers.sessions import RevokedSessionsSerializer
from accounts.views.cookies import (
    COOKIE,
    SET_COOKIE,
    RefreshTokenMixin,
    delete_cookie,
    token_response,
)
from accounts.views.lists import own_sessions
from accounts.views.passwords import PasswordActions
from accounts.views.responses import WITHOUT_TOKEN, accepted, require_email
from accounts.views.sign_in import start_session


class AuthViewSet(RefreshTokenMixin, PasswordActions, viewsets.GenericViewSet[Session]):
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
        """
        Sign in with a username or e-mail address; return the token pair of a new session.

        For a user with a second factor it is a 403 `mfa_required` with an `mfa_token`, with which
        `/auth/mfa` continues.
        """
        serializer = LoginSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        session = start_session(request, serializer.validated_data["user"], PASSWORD)
        return token_response(request, session, LoginResponseSerializer)

    @extend_schema(
        operation_id="auth_mfa",
        request=SecondFactorSerializer,
        parameters=[SET_COOKIE],
        responses=LoginResponseSerializer,
    )
    @action(["POST"], False, **WITHOUT_TOKEN)
    def mfa(self, request: Request) -> Response:
        """
        Complete a login with a second factor; return the token pair of a new session.

        `code` is one of an authenticator app, or a recovery code; `credential` is the one of a
        passkey, for the `passkey_options` of the login. An `mfa_token` ends with its use, after
        five minutes, and after five wrong tries.
        """
        serializer = SecondFactorSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            ticket = mfa_tickets.try_once(serializer.validated_data["mfa_token"])
            proof = serializer.proof_with(ticket)
            session = self.complete(request, ticket, proof)
        except TicketError as error:
            raise ValidationError({"mfa_token": [ticket_not_valid()]}) from error
        except WrongCodeError as error:
            raise AuthenticationFailed(code="invalid_credentials") from error
        return token_response(request, session, LoginResponseSerializer)

    def complete(self, request: Request, ticket: Ticket, proof: Proof) -> Session:
        user = count_completion(ticket, request.META["REMOTE_ADDR"])
        with counting(user, proof):
            return start_session(request, user, proof)

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
        """
        Sign in again in the same session: a fresh access token and a new refresh token.

        The earlier refresh token is spent at once, without a grace.
        """
        serializer = ReauthenticationSerializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        current: Any = request.auth
        user, proof = (serializer.validated_data[name] for name in ("user", "proof"))
        try:
            with counting(user, proof):
                session = Session.objects.reauthenticate(current, user, proof=proof)
        except (StaleLoginError, SessionError) as error:
            raise TokenNotValid from error
        except WrongCodeError as error:
            raise ValidationError({"code": [wrong_code()]}) from error
        except WrongPasskeyError as error:
            raise ValidationError({"credential": [wrong_passkey()]}) from error
        except SecondFactorRequiredError as error:  # Added since the token was read.
            raise factor_added_since(user) from error
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
