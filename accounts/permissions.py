from typing import Any

from rest_framework.exceptions import APIException, PermissionDenied, UnsupportedMediaType
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import Session, User
from accounts.models.proofs import MFA


class IsAuthenticatedOrNamesIdentity(IsAuthenticated):
    """
    A request without a token names its user in the body, and proves it by a password there.

    The token of a user with a second factor must be fresh: the password alone proves too little.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return names_identity(request)
        user: Any = request.user
        if user.has_second_factor:
            require_fresh(request)
        return True


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
    """The token is not fresh; `methods` are what the user can prove the account with."""

    default_code = "reauthentication_required"

    def __init__(self, user: User) -> None:
        super().__init__()
        factors = user.factor_methods() if user.has_second_factor else []
        self.members = {"methods": ["password", *factors]}


def factor_added_since(user: User) -> ReauthenticationRequired:
    """Return the rejection of a token that lacks a factor which was added since it was read."""
    user.refresh_from_db(fields=["has_second_factor"])
    return ReauthenticationRequired(user)


class EmailNotVerified(PermissionDenied):
    default_code = "email_not_verified"


class IsFresh(IsAuthenticated):
    """
    The user signed in within FRESH_MINUTES, with a second factor if there is one.

    The access token says so, which costs no query. An API token is never fresh.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        require_fresh(request)
        return True


def require_fresh(request: Request) -> None:
    user: Any = request.user
    claims = request.auth.presented if isinstance(request.auth, Session) else None
    if claims is None or not claims.is_fresh:
        raise ReauthenticationRequired(user)
    if user.has_second_factor and MFA not in claims.methods:
        raise ReauthenticationRequired(user)


class IsVerified(IsAuthenticated):
    """The user has proven that the email address is theirs."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        user: Any = request.user
        if not user.email_verified:
            raise EmailNotVerified
        return True
