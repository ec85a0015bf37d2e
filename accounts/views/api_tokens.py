"""The caller's own API tokens."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from accounts.models import ApiToken, ApiTokenQuerySet, Session
from accounts.permissions import IsFresh, IsVerified
from accounts.serializers.api_tokens import ApiTokenSerializer, NewApiTokenSerializer
from accounts.views.lists import PersonalListMixin
from accounts.views.responses import LimitReached, changing_credentials
from api.schema import problems


@extend_schema(tags=["users"])
@extend_schema_view(
    create=extend_schema(
        description="Create an API token; its `token` is shown in this response only.\n\n"
        "The access token must be fresh, and the address verified. A user has at most 20.",
        responses={201: NewApiTokenSerializer, 403: None, **problems(LimitReached)},
    ),
)
class ApiTokenViewSet(
    PersonalListMixin, mixins.CreateModelMixin, viewsets.GenericViewSet[ApiToken]
):
    """List the caller's active API tokens, newest first."""

    lookup_value_converter = "slug"

    def get_permissions(self) -> list[Any]:
        needed = [IsFresh(), IsVerified()] if self.action == "create" else []
        return [*super().get_permissions(), *needed]

    def get_serializer_class(self) -> type[ApiTokenSerializer]:
        return NewApiTokenSerializer if self.action == "create" else ApiTokenSerializer

    def get_queryset(self) -> ApiTokenQuerySet:
        tokens = ApiToken.objects.active().filter(user=self.request.user.pk)
        return tokens.order_by("-created_at", "-pk")

    def perform_create(self, serializer: BaseSerializer[ApiToken]) -> None:
        user: Any = self.request.user
        with changing_credentials(user):
            serializer.save(user=user, session=self.request.auth)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """End one of the caller's API tokens."""
        if not self.get_queryset().filter(pk=pk).end(Session.Reason.USER):
            raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)
