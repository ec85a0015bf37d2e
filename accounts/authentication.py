import re

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts import tokens
from accounts.models import Session, SessionError, User

# A server joins two headers of one name by a comma; the second begins with a scheme of its own.
SECOND_HEADER = re.compile(r",\s*[A-Za-z]+\s")


class TokenNotValid(AuthenticationFailed):
    default_code = "token_not_valid"


class BearerAuthentication(BaseAuthentication):
    """An access token (RFC 6750) of an active session; `request.auth` is the session."""

    def authenticate(self, request: Request) -> tuple[User, Session] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "").strip()
        if SECOND_HEADER.search(header):
            raise TokenNotValid
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = tokens.read(tokens.AccessToken, token.strip())
            if claims.is_expired:
                raise TokenNotValid
            session = Session.objects.authenticate(claims)
            session.presented = claims
        except (tokens.TokenError, SessionError) as error:
            raise TokenNotValid from error
        return session.user, session

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
