from functools import cached_property
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import (
    AuthenticationFailed,
    ErrorDetail,
    NotFound,
    PermissionDenied,
    ValidationError,
)
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import tokens
from accounts.authentication import TokenNotValid
from accounts.devices import device_name
from accounts.models import (
    Event,
    PasswordChangeRequiredError,
    PasswordUnchangedError,
    Session,
    SessionError,
    SessionQuerySet,
    StaleLoginError,
    Ticket,
    TicketError,
    User,
)
from accounts.permissions import IsAuthenticatedOrNamesIdentity, IsFresh, IsSelfOrReadOnly
from accounts.serializers import (
    EventSerializer,
    LoginResponseSerializer,
    LoginSerializer,
    PasswordChangeSerializer,
    ProfileSerializer,
    ReauthenticationSerializer,
    RefreshSerializer,
    RegistrationSerializer,
    RevokedSessionsSerializer,
    SecuritySerializer,
    SessionSerializer,
    TokenPairSerializer,
    UserSerializer,
)


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


UNCHANGED = ErrorDetail("The new password must be a different one.", code="password_unchanged")


class AuthViewSet(viewsets.GenericViewSet[Session]):
    """Sign in and out, keep signed in, change the password."""

    throttle_scope = "auth"

    def throttle_ident(self, request: Request) -> str:
        """Count refreshes by session, so that an office behind one address stays signed in."""
        if self.action != "refresh":
            return ""
        try:
            return str(self.presented.session_id)
        except tokens.TokenError:
            return ""

    @cached_property
    def presented(self) -> tokens.Claims:
        """What the refresh token of this request says; raises TokenError."""
        data: Any = self.request.data
        text = data.get("refresh_token")
        if not isinstance(text, str):
            raise tokens.TokenError
        return tokens.read(tokens.RefreshToken, text)

    @extend_schema(
        operation_id="auth_login", request=LoginSerializer, responses=LoginResponseSerializer
    )
    @action(["POST"], False, authentication_classes=[], permission_classes=[AllowAny])
    def login(self, request: Request) -> Response:
        """Sign in with a username or e-mail address: a new session and its first token pair."""
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
        return Response({**session.tokens(), "user": UserSerializer(session.user).data})

    @extend_schema(
        operation_id="auth_refresh", request=RefreshSerializer, responses=TokenPairSerializer
    )
    @action(["POST"], False, authentication_classes=[], permission_classes=[AllowAny])
    def refresh(self, request: Request) -> Response:
        """Swap a refresh token for a new pair; the token is spent from then on."""
        serializer = RefreshSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            if self.presented.is_expired:
                raise TokenNotValid
            session = Session.objects.rotate(self.presented)
        except (tokens.TokenError, SessionError) as error:
            raise TokenNotValid from error
        request.auth = session
        return Response(session.tokens())

    @extend_schema(
        operation_id="auth_reauthenticate",
        request=ReauthenticationSerializer,
        responses=TokenPairSerializer,
    )
    @action(["POST"], False)
    def reauthenticate(self, request: Request) -> Response:
        """Sign in again in the same session: a fresh access token and a new refresh token."""
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
        return Response(session.tokens())

    @extend_schema(operation_id="auth_logout", request=None, responses={204: None})
    @action(["POST"], False)
    def logout(self, request: Request) -> Response:
        """End this session."""
        own_sessions(request).filter(pk=request.auth.pk).end(Session.Reason.LOGOUT)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="auth_logout_all", request=None, responses=RevokedSessionsSerializer
    )
    @action(["POST"], False, url_path="logout-all")
    def logout_all(self, request: Request) -> Response:
        """End every session of the user, this one and those of the console too."""
        user: Any = request.user
        return Response({"revoked": user.end_sessions(Session.Reason.LOGOUT_ALL)})

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
            raise ValidationError({"new_password": [UNCHANGED]}) from error
        except StaleLoginError as error:
            if request.auth is None:
                raise AuthenticationFailed(code="invalid_credentials") from error
            raise TokenNotValid from error
        return Response(status=status.HTTP_204_NO_CONTENT)


class PersonalListMixin(mixins.ListModelMixin):
    """A list of the caller's own: to read it guesses nothing, so each session has a count."""

    action: str

    @property
    def throttle_scope(self) -> str:
        return "auth-read" if self.action == "list" else "auth"

    def throttle_ident(self, request: Request) -> str:
        return str(request.auth.pk) if self.action == "list" else ""


@extend_schema(tags=["auth"])
class EventViewSet(PersonalListMixin, viewsets.GenericViewSet[Event]):
    """What happened to the caller's account and sessions, newest first."""

    serializer_class = EventSerializer

    def get_queryset(self) -> QuerySet[Event]:
        return Event.objects.filter(user_id=self.request.user.pk).order_by("-created_at", "-id")


@extend_schema(tags=["auth"])
class SessionViewSet(PersonalListMixin, viewsets.GenericViewSet[Session]):
    """The devices on which the caller is signed in."""

    serializer_class = SessionSerializer
    lookup_value_converter = "uuid"

    def get_queryset(self) -> SessionQuerySet:
        return own_sessions(self.request)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: Any) -> Response:
        """End one of the caller's sessions."""
        if not self.get_queryset().filter(pk=pk).end(Session.Reason.USER):
            raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)


class UserViewSet(
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[User],
):
    permission_classes = [IsAuthenticated, IsSelfOrReadOnly]
    lookup_value_converter = "int"
    http_method_names = ["get", "head", "post", "patch", "delete"]

    @property
    def throttle_scope(self) -> str | None:
        # Each tells something that can be guessed: PATCH, whether an address is registered.
        return "auth" if self.action in {"create", "partial_update", "destroy"} else None

    def get_permissions(self) -> list[Any]:
        if self.action == "create":
            return [AllowAny()]
        fresh = [IsFresh()] if self.action == "destroy" else []
        return [*super().get_permissions(), *fresh]

    def get_queryset(self) -> QuerySet[User]:
        # An update starts from what is stored now: a stale row would undo a deactivation.
        users = User.objects.all()
        return users.select_for_update(no_key=True) if self.action == "partial_update" else users

    def get_object(self) -> User:
        try:
            return super().get_object()
        except Http404 as error:
            if self.kwargs["pk"] == self.request.user.pk:  # Deleted since the token was read.
                raise TokenNotValid from error
            raise

    def perform_destroy(self, instance: User) -> None:
        deleted, _ = instance.delete()
        if not deleted:
            raise TokenNotValid

    def get_serializer_class(self) -> type[UserSerializer]:
        serializers = {"create": RegistrationSerializer, "retrieve": ProfileSerializer}
        return serializers.get(self.action, UserSerializer)

    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the caller's own names; never the password or a flag."""
        return super().partial_update(request, *args, **kwargs)

    @extend_schema(operation_id="users_me")
    @action(["GET"], False)
    def me(self, request: Request) -> Response:
        """Return the caller."""
        return Response(self.get_serializer(request.user).data)

    @extend_schema(operation_id="users_me_security", responses=SecuritySerializer)
    @action(["GET"], False, url_path="me/security")
    def security(self, request: Request) -> Response:
        """Return how the caller's account is protected."""
        user: Any = request.user
        return Response(SecuritySerializer(user).data)


# Built once: it is what every request about sessions begins with.
ACTIVE_SESSIONS = Session.objects.active().order_by("-last_used_at", "-pk")


def own_sessions(request: Request) -> SessionQuerySet:
    """Select the caller's active sessions, the last used first; another's can't be named."""
    return ACTIVE_SESSIONS.filter(user=request.user.pk)
