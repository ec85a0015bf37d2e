"""
The refresh token in a cookie, which no script can read (REFRESH_COOKIE).

Browsers send a cookie by themselves, so `/auth/refresh` is the only route that reads it, and only
for a page of an allowed origin. SameSite=Strict withholds it from requests of other sites. The
check of `Origin` rejects pages of other hosts of the same site, whose requests have the cookie.
"""

from functools import cached_property
from typing import Any, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import tokens
from accounts.authentication import TokenNotValid
from accounts.models import Session
from accounts.serializers.auth import TokenPairSerializer
from api.requests import django_request

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
COOKIE = OpenApiParameter(
    "__Host-refresh",
    str,
    OpenApiParameter.COOKIE,
    description="The refresh token, where the body has none. It needs the `Origin` of an allowed "
    "page. Only with REFRESH_COOKIE.",
)
SET_COOKIE = OpenApiParameter(
    "Set-Cookie",
    str,
    OpenApiParameter.HEADER,
    description="The refresh token as `__Host-refresh`, where the client asks for a cookie. Only "
    "with REFRESH_COOKIE.",
    response=[200],
)


class OriginNotAllowed(PermissionDenied):
    default_code = "origin_not_allowed"


class RefreshTokenMixin(APIView):
    """A view with an action `refresh`, whose token is in the body or in the cookie."""

    action: str

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
        """What the refresh token of this request says; raises TokenError, and as `read_cookie`."""
        data: Any = self.request.data
        text = read_cookie(self.request) if self.is_by_cookie else data.get("refresh_token")
        if not isinstance(text, str):
            raise tokens.TokenError
        return tokens.read(tokens.RefreshToken, text)

    @property
    def is_by_cookie(self) -> bool:
        return settings.REFRESH_COOKIE and "refresh_token" not in self.request.data

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        if self.action == "refresh" and isinstance(exc, TokenNotValid) and self.is_by_cookie:
            delete_cookie(self.request, response)
        return response


def token_response(
    request: Request,
    session: Session,
    serializer: type[TokenPairSerializer] = TokenPairSerializer,
    *,
    is_by_cookie: bool = False,
) -> Response:
    """Return a session's tokens, the refresh token in the cookie if the client asks for that."""
    pair, body = dict(serializer(session).data), cast("dict[str, Any]", request.data)
    response = Response(pair)
    if settings.REFRESH_COOKIE and (is_by_cookie or body.get("cookie") is True):
        response.set_cookie(
            cookie_name(request),
            pair.pop("refresh_token"),
            max_age=pair["refresh_expires_in"],
            secure=is_secure(request),
            httponly=True,
            samesite="Strict",
        )
    return response


def delete_cookie(request: Request, response: HttpResponseBase) -> None:
    if settings.REFRESH_COOKIE:
        response.delete_cookie(cookie_name(request), samesite="Strict")


def read_cookie(request: Request) -> str:
    """
    Return the refresh token of the cookie.

    Raises OriginNotAllowed, NotAuthenticated without a cookie, and TokenError for several: another
    host of the site can set a second one in some browsers.
    """
    if request.headers.get("Origin") not in allowed_origins(request):
        raise OriginNotAllowed
    header = request.META.get("HTTP_COOKIE", "")
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    values: list[str] = [value for name, _, value in pairs if name == cookie_name(request)]
    if not values:
        raise NotAuthenticated(_("The request has no refresh token."))
    if len(values) > 1:
        raise tokens.TokenError
    return values[0]


def allowed_origins(request: Request) -> set[str]:
    """Return the origins whose pages may refresh: the service's own, and those that are listed."""
    here = django_request(request).build_absolute_uri("/")
    return {origin_of(here), origin_of(settings.PUBLIC_URL), *settings.CORS_ALLOWED_ORIGINS}


def origin_of(url: str) -> str:
    """Return the origin of a URL in the form that browsers send."""
    parts = urlsplit(url.lower())
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin.removesuffix(DEFAULT_PORTS.get(parts.scheme, ""))


def cookie_name(request: Request) -> str:
    return "__Host-refresh" if is_secure(request) else "refresh"


def is_secure(request: Request) -> bool:
    """Return whether the cookie is Secure, as its prefix requires; not over HTTP in development."""
    return django_request(request).is_secure() or not settings.DEBUG
