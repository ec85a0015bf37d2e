import re
from typing import Any

from django.core.exceptions import PermissionDenied
from prometheus_client import Counter
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from accounts import api_tokens, tokens
from accounts.models import ApiToken, Session, SessionError, User

# A server joins two headers of one name by a comma; the second begins with a scheme of its own.
SECOND_HEADER = re.compile(r",\s*[A-Za-z]+\s")
API_TOKENS = Counter(
    "latchkey_api_tokens_presented",
    "API tokens that were presented, by outcome.",
    ["outcome"],
)
# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for outcome in ("accepted", "refused", "denied"):
    API_TOKENS.labels(outcome)


class TokenNotValid(AuthenticationFailed):
    default_code = "token_not_valid"


class BearerAuthentication(BaseAuthentication):
    """
    A bearer token (RFC 6750); `request.auth` is the active session or API token that it is of.

    A view accepts API tokens only if its `allows_api_tokens` is true. This is decided here, and not
    by a permission, because a view may replace its permissions.
    """

    def authenticate(self, request: Request) -> tuple[User, Session | ApiToken] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "").strip()
        if SECOND_HEADER.search(header):
            raise TokenNotValid
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip()
        if api_tokens.has_prefix(token):
            return self.authenticate_api_token(request, token)
        try:
            claims = tokens.read(tokens.AccessToken, token)
            if claims.is_expired:
                raise TokenNotValid
            session = Session.objects.authenticate(claims)
            session.presented = claims
        except (tokens.TokenError, SessionError) as error:
            raise TokenNotValid from error
        return session.user, session

    def authenticate_api_token(self, request: Request, text: str) -> tuple[User, ApiToken]:
        try:
            token = ApiToken.objects.authenticate(text)
        except tokens.TokenError as error:
            API_TOKENS.labels("refused").inc()
            raise TokenNotValid from error
        if not is_permitted(request, token):
            API_TOKENS.labels("denied").inc()
            # For the request's log line. After an exception of its own, DRF would clear both.
            request.user, request.auth = token.user, token
            raise PermissionDenied
        API_TOKENS.labels("accepted").inc()
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def is_permitted(request: Request, token: ApiToken) -> bool:
    """Tell whether the view accepts API tokens, and this one permits the method."""
    view: Any = request.parser_context.get("view")
    is_allowed = bool(getattr(view, "allows_api_tokens", False))
    return is_allowed and (token.may_write or request.method in SAFE_METHODS)
