"""Users: registration, profile, and what protects the caller's account."""

from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import Http404, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import export
from accounts.authentication import TokenNotValid
from accounts.models import StaleLoginError, TicketError, User
from accounts.permissions import IsFresh, IsSelfOrReadOnly
from accounts.serializers.fields import ticket_not_valid
from accounts.serializers.users import (
    EmailChangeSerializer,
    EmailTokenSerializer,
    ProfileSerializer,
    RegistrationSerializer,
    SecuritySerializer,
    UserSerializer,
    taken_by,
)
from accounts.views.responses import accepted, require_email

LIMITED = frozenset(
    {"create", "partial_update", "destroy", "export"}
    | {"email", "email_verification", "email_verify"}
)


@extend_schema_view(
    create=extend_schema(
        description="Register.\n\nThe token of an email, such as an invitation, takes the place of "
        "the address. With REGISTRATION=verified it is required.",
        responses={201: UserSerializer},
    ),
    retrieve=extend_schema(description="Return a user.\n\nOthers see the public fields only."),
    destroy=extend_schema(
        description="Delete the caller's account and everything that belongs to it.\n\n"
        "The token must be fresh."
    ),
)
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
    def allows_api_tokens(self) -> bool:
        return self.action in {"create", "retrieve", "me"}

    @property
    def throttle_scope(self) -> str | None:
        # Each tells something that can be guessed, or sends an email.
        return "auth" if self.action in LIMITED else None

    def get_permissions(self) -> list[Any]:
        if self.action == "create":
            return [AllowAny()]
        fresh = [IsFresh()] if self.action in {"destroy", "email", "export"} else []
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
        """
        Change the caller's username or names.

        The address changes with `POST /users/me/email`, the password with `POST /auth/password`.
        """
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

    @extend_schema(operation_id="users_me_export", responses={200: OpenApiTypes.OBJECT, 403: None})
    @action(["GET"], False, url_path="me/export")
    def export(self, request: Request) -> StreamingHttpResponse:
        """
        Return all that is stored about the caller, as a file.

        It has a member for the account, and lists of sessions, events, emails, second factors, API
        tokens and what each app adds. The token must be fresh. If the document does not end, the
        service failed meanwhile.
        """
        user: Any = request.user
        session: Any = request.auth
        chunks = export.begin(user, session) if request.method == "GET" else ()
        name = f"{settings.SERVICE_NAME}-export.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        # nginx would write what a client has not read yet to its disk, which may be small.
        headers["X-Accel-Buffering"] = "no"
        return StreamingHttpResponse(chunks, content_type="application/json", headers=headers)

    @extend_schema(
        operation_id="users_me_email_verification",
        request=None,
        responses={202: OpenApiTypes.OBJECT, 404: None},
    )
    @action(["POST"], False, url_path="me/email/verification")
    def email_verification(self, request: Request) -> Response:
        """Send an email to verify the caller's address, unless it is verified."""
        require_email()
        user: Any = request.user
        user.request_email_verification()
        return accepted()

    @extend_schema(
        operation_id="users_me_email",
        request=EmailChangeSerializer,
        responses={202: OpenApiTypes.OBJECT, 403: None, 404: None},
    )
    @action(["POST"], False, url_path="me/email")
    def email(self, request: Request) -> Response:
        """
        Request a change of the caller's address: send a link to the new one.

        Nothing changes until the link's token comes to `/users/me/email/verify`. The response is
        the same for an address that has an account. The token must be fresh.
        """
        require_email()
        serializer = EmailChangeSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        user: Any = request.user
        session: Any = request.auth
        try:
            user.request_email_change(serializer.validated_data["email"], session=session)
        except TicketError as error:  # Deactivated or deleted since the token was read.
            raise TokenNotValid from error
        return accepted()

    @extend_schema(
        operation_id="users_me_email_verify", request=EmailTokenSerializer, responses=UserSerializer
    )
    @action(["POST"], False, url_path="me/email/verify")
    def email_verify(self, request: Request) -> Response:
        """
        Verify the caller's address, or change it, with the token of an email to the caller.

        A change ends the caller's other sessions.
        """
        serializer = EmailTokenSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        user: Any = request.user
        session: Any = request.auth
        try:
            user.confirm_email(serializer.validated_data["token"], session=session)
        except TicketError as error:
            raise ValidationError({"token": [ticket_not_valid()]}) from error
        except StaleLoginError as error:
            raise TokenNotValid from error
        except IntegrityError as error:
            raise ValidationError({"token": [taken_by(error)[1]]}) from error
        return Response(UserSerializer(user).data)
