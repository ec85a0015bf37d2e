"""
The text of API tokens: `lk_<id>_<secret>_<checksum>`.

API_TOKEN_PREFIX comes first, so that secret scanners find a leaked token. The checksum tells a
damaged or invented token without a query; it proves nothing. This module uses neither the database
nor HTTP.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from django.conf import settings

from accounts.tokens import TokenError

ID_BYTES, SECRET_BYTES = 8, 32
ID_LENGTH = 2 * ID_BYTES  # hexadecimal
# 32 bytes in base64url; the last character holds four bits, so there is one form of each secret.
FORM = re.compile(
    rf"(?P<signed>(?P<prefix>[A-Za-z0-9]+)_(?P<id>[0-9a-f]{{{ID_LENGTH}}})"
    r"_(?P<secret>[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]))_(?P<checksum>[0-9a-f]{8})"
)
LONGEST_TOKEN = 128


@dataclass(frozen=True)
class Presented:
    """What a well-formed token says; `digest` is the SHA-256 of its secret."""

    id: str
    digest: str


def new_id() -> str:
    return secrets.token_hex(ID_BYTES)


def new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> str:
    """Hash a secret. It is random, so it needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def checksum_of(signed: str) -> str:
    return f"{zlib.crc32(signed.encode()):08x}"


def write(token_id: str, secret: str) -> str:
    signed = f"{settings.API_TOKEN_PREFIX}_{token_id}_{secret}"
    return f"{signed}_{checksum_of(signed)}"


def has_prefix(text: str) -> bool:
    """Tell whether a bearer token is an API token; a JWT has no underscore in its first part."""
    return text.startswith(f"{settings.API_TOKEN_PREFIX}_")


def read(text: str) -> Presented:
    """Return what a token says; raises TokenError for a wrong form, prefix or checksum."""
    match = FORM.fullmatch(text) if len(text) <= LONGEST_TOKEN else None
    if match is None or match["prefix"] != settings.API_TOKEN_PREFIX:
        raise TokenError
    if match["checksum"] != checksum_of(match["signed"]):
        raise TokenError
    return Presented(match["id"], digest_of(match["secret"]))
