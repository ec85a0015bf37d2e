from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import User


class IsSelfOrReadOnly(BasePermission):
    """Everyone who is signed in may look; only the users themselves may change or leave."""

    def has_object_permission(self, request: Request, view: APIView, obj: User) -> bool:
        return request.method in {"GET", "HEAD"} or obj == request.user
