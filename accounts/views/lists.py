"""The caller's own sessions and events."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Event, Session, SessionQuerySet
from accounts.serializers.sessions import EventSerializer, SessionSerializer

# Built once: it is what every request about sessions begins with.
ACTIVE_SESSIONS = Session.objects.active().order_by("-last_used_at", "-pk")


def own_sessions(request: Request) -> SessionQuerySet:
    """Select the caller's active sessions, the last used first; another's can't be named."""
    return ACTIVE_SESSIONS.filter(user=request.user.pk)


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
    """List the security events of the caller's account, newest first."""

    serializer_class = EventSerializer

    def get_queryset(self) -> QuerySet[Event]:
        return Event.objects.filter(user_id=self.request.user.pk).order_by("-created_at", "-id")


@extend_schema(tags=["auth"])
class SessionViewSet(PersonalListMixin, viewsets.GenericViewSet[Session]):
    """List the caller's active sessions, the last used first."""

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
