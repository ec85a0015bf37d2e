"""Rules for the strength of secrets."""

from collections.abc import Iterator

SECRET_LENGTH = 32
SECRET_LENGTH_WITHOUT_WORDS = 24
SECRET_CHARACTERS = 8
# Common placeholders. Each secret in .env.example begins with "replace-me".
WORDS = [
    *("password", "passwort", "secret", "test", "changeme", "change-me", "change_me", "example"),
    *("default", "replace-me", "placeholder", "insecure", "django", "letmein", "qwerty"),
    *("abcdefghijklmnopqrstuvwxyz", "0123456789", "1234567890", "12345678"),
]


def secret_faults(secret: str) -> Iterator[str]:
    """Yield the faults of a secret."""
    if len(secret) < SECRET_LENGTH:
        yield f"has {len(secret)} characters, and needs {SECRET_LENGTH}"
        return
    if len(without_words(secret)) < SECRET_LENGTH_WITHOUT_WORDS:
        yield "is made of words that an attacker tries first"
    if is_repetition(secret):
        yield "repeats a shorter pattern"
    elif len(set(secret)) < SECRET_CHARACTERS:
        yield f"uses fewer than {SECRET_CHARACTERS} different characters"


def without_words(secret: str) -> str:
    rest = secret.lower()
    for word in WORDS:
        rest = rest.replace(word, "")
    return rest


def is_repetition(secret: str) -> bool:
    """Return whether a secret repeats a unit of at most half its length."""
    return any(secret[n:] == secret[:-n] for n in range(1, len(secret) // 2 + 1))
