from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import User


class IsAuthenticatedOrNamesIdentity(IsAuthenticated):
    """Whoever has no token says in the body who they are, and proves it by a password there."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        try:
            names_identity = "identity" in request.data
        except (APIException, TypeError):
            names_identity = False
        return names_identity or super().has_permission(request, view)


class IsSelfOrReadOnly(BasePermission):
    """Everyone who is signed in may look; only the users themselves may change or leave."""

    def has_object_permission(self, request: Request, view: APIView, obj: User) -> bool:
        return request.method in {"GET", "HEAD"} or obj == request.user
