from typing import Any

from rest_framework.exceptions import APIException, PermissionDenied, UnsupportedMediaType
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import Session, User


class IsAuthenticatedOrNamesIdentity(IsAuthenticated):
    """A request without a token names its user in the body, and proves it by a password there."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return super().has_permission(request, view) or names_identity(request)


def names_identity(request: Request) -> bool:
    try:
        return "identity" in request.data
    except UnsupportedMediaType:
        raise
    except (APIException, TypeError):
        return False


class IsSelfOrReadOnly(BasePermission):
    """Everyone who is signed in may look; only the users themselves may change or leave."""

    def has_object_permission(self, request: Request, view: APIView, obj: User) -> bool:
        return request.method in {"GET", "HEAD"} or obj == request.user


class ReauthenticationRequired(PermissionDenied):
    default_code = "reauthentication_required"
    members = {"methods": ["password"]}


class EmailNotVerified(PermissionDenied):
    default_code = "email_not_verified"


class IsFresh(IsAuthenticated):
    """
    The user signed in within FRESH_MINUTES; the access token says so, which costs no query.

    An API token is never fresh.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        session = request.auth
        if not isinstance(session, Session) or not session.presented.is_fresh:
            raise ReauthenticationRequired
        return True


class IsVerified(IsAuthenticated):
    """The user has proven that the email address is theirs."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        user: Any = request.user
        if not user.email_verified:
            raise EmailNotVerified
        return True
