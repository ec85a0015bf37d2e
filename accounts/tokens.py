"""
Access and refresh tokens: JWTs (RFC 7519), HS256, each type with a secret of its own.

simplejwt signs them and verifies signatures. This module defines the claims and checks the type of
each one that it reads. It uses neither the database nor HTTP.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from rest_framework_simplejwt import tokens as simplejwt
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError

ALGORITHM = "HS256"
# The last second that Python's datetime knows.
LARGEST_TIME = 253402300799
LONGEST_TOKEN = 2048
DEFAULT_AUDIENCE = "latchkey"


class TokenError(Exception):
    """The token is invalid, expired or of another type; the error does not say which."""


@dataclass(frozen=True)
class Claims:
    """The claims of a signed token; `is_expired` uses this machine's clock."""

    user_id: Any  # as the user's primary key
    session_id: UUID
    token_id: UUID
    expires_at: datetime
    # When and how the user signed in (RFC 8176). A refresh token does not contain it.
    authenticated_at: datetime | None = None
    methods: tuple[str, ...] = ()

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= datetime.now(UTC)

    @property
    def is_fresh(self) -> bool:
        """Tell whether the user signed in recently enough for a sensitive change."""
        if self.authenticated_at is None:
            return False
        return datetime.now(UTC) - self.authenticated_at <= settings.FRESH_LIFETIME


class RotatingBackend(TokenBackend):
    """Sign with the first secret, verify with any."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(ALGORITHM, signing_key=secrets[0])
        self.secrets = secrets

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        # `read` checks the claims. PyJWT accepts malformed ones, or raises other exceptions.
        options: Any = {"verify_signature": True, "verify_exp": False, "verify_iat": False}
        options |= {"verify_nbf": False, "verify_aud": False, "verify_iss": False}
        options |= {"verify_sub": False, "verify_jti": False}
        for secret in self.secrets:
            try:
                return jwt.decode(token, secret, algorithms=[ALGORITHM], options=options)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError) as error:
                raise TokenBackendError("unreadable") from error
        raise TokenBackendError("signature")


class AccessToken(simplejwt.AccessToken):
    token_backend = RotatingBackend(settings.SECRETS["ACCESS_TOKEN_SECRET"])


class RefreshToken(simplejwt.RefreshToken):
    token_backend = RotatingBackend(settings.SECRETS["REFRESH_TOKEN_SECRET"])


Kind = type[AccessToken] | type[RefreshToken]


def write(
    kind: Kind,
    *,
    user_id: Any,
    session_id: UUID,
    token_id: UUID,
    issued_at: datetime,
    expires_at: datetime,
    authenticated_at: datetime | None = None,
    methods: Collection[str] = (),
) -> str:
    """Return the token with these claims; the same arguments give the same string."""
    authentication: dict[str, Any] = {}
    if authenticated_at is not None:
        authentication = {"auth_time": int(authenticated_at.timestamp()), "amr": list(methods)}
    return kind.token_backend.encode(
        {
            "aud": settings.TOKEN_AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": token_id.hex,
            "iat": int(issued_at.timestamp()),
            "exp": int(expires_at.timestamp()),
            "token_type": kind.token_type,
            **authentication,
        }
    )


def read(kind: Kind, text: str) -> Claims:
    """
    Return the claims of a token of this type, expired or not.

    Raises TokenError for any other text, malformed in any way.
    """
    if len(text) > LONGEST_TOKEN:
        raise TokenError
    try:
        payload = kind.token_backend.decode(text)
    except TokenBackendError as error:
        raise TokenError from error
    if payload.get("token_type") != kind.token_type:
        raise TokenError
    check_audience(payload)
    authenticated_at = None
    if "auth_time" in payload:
        authenticated_at = read_time(payload["auth_time"], payload.get("iat"))
    return Claims(
        user_id=read_user_id(payload.get("sub")),
        session_id=read_uuid(payload.get("sid"), "{}"),
        token_id=read_uuid(payload.get("jti"), "{0.hex}"),
        expires_at=read_time(payload.get("exp"), payload.get("iat")),
        authenticated_at=authenticated_at,
        methods=read_methods(payload.get("amr", [])),
    )


def check_audience(payload: dict[str, Any]) -> None:
    """
    Raise TokenError for a token that was issued for another service.

    A token without an audience is older than this claim; only the default one may accept it.
    """
    if payload.get("aud", DEFAULT_AUDIENCE) != settings.TOKEN_AUDIENCE:
        raise TokenError


def read_methods(claim: Any) -> tuple[str, ...]:
    if not isinstance(claim, list) or not all(isinstance(method, str) for method in claim):
        raise TokenError
    return tuple(claim)


def read_user_id(claim: Any) -> Any:
    """Read the primary key of a user, of whatever kind it is, that is written in just one form."""
    if not (isinstance(claim, str) and claim.isprintable()):
        raise TokenError
    try:
        user_id = get_user_model()._meta.pk.clean(claim, None)
    except (ValidationError, ValueError) as error:  # A ValueError for thousands of digits.
        raise TokenError from error
    if str(user_id) != claim:
        raise TokenError
    return user_id


def read_uuid(claim: Any, form: str) -> UUID:
    """Read a UUID in its canonical form."""
    try:
        value = UUID(claim)
    except (ValueError, TypeError, AttributeError) as error:
        raise TokenError from error
    if form.format(value) != claim:
        raise TokenError
    return value


def read_time(expires: Any, issued: Any) -> datetime:
    """Read `exp`. `iat` must be a time; its value is not compared, because clocks differ."""
    for claim in (expires, issued):
        if type(claim) is not int or not 0 <= claim <= LARGEST_TIME:
            raise TokenError
    return datetime.fromtimestamp(expires, UTC)
