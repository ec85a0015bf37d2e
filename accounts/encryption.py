"""Encryption of secrets at rest, under a key that is derived from SECRET."""

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

PURPOSE = b"accounts.factors"


class DecryptionError(Exception):
    """The text was encrypted under a secret that is in neither SECRET nor SECRET_FALLBACKS."""


def encrypt(text: str) -> str:
    return keys()[0].encrypt(text.encode()).decode()


def decrypt(encrypted: str) -> str:
    """Return the text, which any of the secrets may have encrypted; raises DecryptionError."""
    try:
        return MultiFernet(keys()).decrypt(encrypted).decode()
    except InvalidToken as error:
        raise DecryptionError from error


def is_current(encrypted: str) -> bool:
    """Tell whether a text was encrypted under SECRET, and not under a fallback."""
    try:
        keys()[0].decrypt(encrypted)
    except InvalidToken:
        return False
    return True


def keys() -> list[Fernet]:
    return [key_of(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


@functools.lru_cache(maxsize=8)
def key_of(secret: str) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=PURPOSE).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
