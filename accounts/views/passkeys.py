"""Passkeys: signing in with one, and those of the caller."""

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from accounts.authentication import TokenNotValid
from accounts.models import Passkey, Session, TicketError
from accounts.models.passkeys import sign_in_options
from accounts.permissions import IsFresh, IsVerified
from accounts.serializers.auth import LoginResponseSerializer
from accounts.serializers.passkeys import (
    NewPasskeySerializer,
    PasskeySerializer,
    PasskeySignInSerializer,
    wrong_passkey,
)
from accounts.serializers.webauthn import CreationOptionsSerializer, RequestOptionsSerializer
from accounts.views.cookies import SET_COOKIE, token_response
from accounts.views.lists import PersonalListMixin
from accounts.views.responses import LimitReached, changing_credentials
from accounts.views.sign_in import start_session
from accounts.webauthn import CredentialError
from api.schema import problems

REJECTED: dict[Any, None] = {400: None, 403: None, 404: None}


def require_passkeys() -> None:
    """Raise NotFound where the service has no relying party: no browser would use a passkey."""
    if not settings.WEBAUTHN_RP_ID:
        raise NotFound


class PasskeySignInViewSet(viewsets.GenericViewSet[Session]):
    """Sign in with a passkey alone."""

    # These routes ignore the Authorization header.
    authentication_classes = []
    permission_classes = [AllowAny]
    throttle_scope = "auth"

    @extend_schema(
        operation_id="auth_passkey_options",
        request=OpenApiTypes.OBJECT,  # Browsers send other bodies, and none, across sites.
        responses={200: RequestOptionsSerializer, 404: None},
        tags=["auth"],
        auth=[],
    )
    @action(["POST"], False, url_path="options")
    def begin(self, request: Request) -> Response:
        """
        Return the options with which a browser offers the passkeys of this service.

        Their challenge works once, for five minutes, at `/auth/passkey` or `/auth/reauthenticate`.
        """
        require_passkeys()
        Serializer(data=request.data).is_valid(raise_exception=True)  # any JSON object
        return Response(sign_in_options())

    @extend_schema(
        operation_id="auth_passkey",
        request=PasskeySignInSerializer,
        parameters=[SET_COOKIE],
        responses={200: LoginResponseSerializer, 403: None, 404: None},
        tags=["auth"],
        auth=[],
    )
    def create(self, request: Request) -> Response:
        """
        Sign in with a passkey; return the token pair of a new session.

        The passkey names the user, and proves two factors: neither a password nor a code is asked.
        """
        require_passkeys()
        serializer = PasskeySignInSerializer(
            data=request.data, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        user, proof = (serializer.validated_data[name] for name in ("user", "proof"))
        session = start_session(request, user, proof)
        return token_response(request, session, LoginResponseSerializer)


@extend_schema(tags=["users"])
@extend_schema_view(list=extend_schema(description="List the caller's passkeys, the oldest first."))
class PasskeyViewSet(PersonalListMixin, viewsets.GenericViewSet[Passkey]):
    """The caller's passkeys."""

    serializer_class = PasskeySerializer
    lookup_value_converter = "uuid"

    def get_permissions(self) -> list[Any]:
        fresh = [] if self.action == "list" else [IsFresh()]
        verified = [IsVerified()] if self.action in {"begin", "create"} else []
        return [*super().get_permissions(), *fresh, *verified]

    def get_queryset(self) -> QuerySet[Passkey]:
        return Passkey.objects.filter(user=self.request.user.pk).order_by("created_at", "pk")

    @extend_schema(
        operation_id="users_me_passkeys_options",
        request=None,
        responses={200: CreationOptionsSerializer, **REJECTED, **problems(LimitReached)},
    )
    @action(["POST"], False, url_path="options")
    def begin(self, request: Request) -> Response:
        """
        Return the options with which a browser creates a passkey.

        The access token must be fresh, and the address verified. The challenge works once, for five
        minutes.
        """
        require_passkeys()
        user: Any = request.user
        try:
            with changing_credentials(user):
                return Response(Passkey.objects.begin_registration(user))
        except TicketError as error:  # Deactivated or deleted since the token was read.
            raise TokenNotValid from error

    @extend_schema(
        operation_id="users_me_passkeys_create",
        request=NewPasskeySerializer,
        responses={201: NewPasskeySerializer, **REJECTED, **problems(LimitReached)},
    )
    def create(self, request: Request) -> Response:
        """
        Add a passkey that a browser created.

        With the first factor of the user come ten recovery codes, which are shown in this response
        only. The user's other sessions without a second factor end. A user has at most 20.
        """
        require_passkeys()
        serializer = NewPasskeySerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        passkey = self.register(request, **serializer.validated_data)
        return Response(NewPasskeySerializer(passkey).data, status=status.HTTP_201_CREATED)

    def register(self, request: Request, name: str, credential: Any) -> Passkey:
        user: Any = request.user
        session: Any = request.auth
        try:
            with changing_credentials(user):
                return Passkey.objects.register(user, credential, name, session=session)
        except CredentialError as error:
            raise ValidationError({"credential": [wrong_passkey()]}) from error

    @extend_schema(responses={204: None, 403: None})
    def destroy(self, request: Request, pk: Any) -> Response:
        """
        Remove one of the caller's passkeys.

        The access token must be fresh. With the last factor the recovery codes are removed too.
        """
        user: Any = request.user
        session: Any = request.auth
        with changing_credentials(user):
            if not Passkey.objects.remove(user, pk, session=session):
                raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)
