"""
All settings, in the order in which a request uses them.

This is the only module that reads the environment. README.md describes each variable.
"""

import hashlib
import os
import secrets
import warnings
from datetime import timedelta
from pathlib import Path

from config import __version__, mailers, passkeys, storages, values
from config.databases import web_database
from config.environment import Environment
from config.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Environment

env = Environment(BASE_DIR / ".env")
ENVIRONMENT_FAULTS = env.faults
FAULTY_VARIABLES = env.faulty

DEBUG = env.flag("DEBUG", default=False)
SECRETS = {
    name: [env.text(name), *env.names(f"{name}_FALLBACKS")]
    for name in ("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET")
}
# `collectstatic` and `setup` run without a secret. config.E002 prevents other entry points.
SECRET_KEY = SECRETS["SECRET"][0] or secrets.token_urlsafe(32)
SECRET_KEY_FALLBACKS = SECRETS["SECRET"][1:]
# `manage.py renameproject` changes both, and the files that cannot read them.
PROJECT_NAME = "Latchkey"
SERVICE_NAME = "latchkey"
VERSION = env.text("LATCHKEY_VERSION", __version__)
REVISION = env.text("LATCHKEY_REVISION")

# Server

HOST = env.read("HOST", values.parse_address, "")
PORT = env.integer("PORT", 3000, low=1, high=65535)
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", CORES, low=1, high=1024)
WEB_THREADS = env.integer("WEB_THREADS", 8, low=1, high=1024)
METRICS_PORT = env.integer("METRICS_PORT", 0, low=1, high=65535)  # 0: none
WSGI_APPLICATION = "config.wsgi.application"
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS", values.parse_hosts)
TRUSTED_PROXY_COUNT = env.integer("TRUSTED_PROXY_COUNT", 0, low=0, high=16)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXY_COUNT else None
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

# Core

ROOT_URLCONF = "config.urls"
# Below API_ROOT errors are JSON and requests have no cookies, except that of REFRESH_COOKIE.
# config/urls.py mounts the routes of this project at API_PATH; mount other versions beside them.
API_ROOT = "api/"
API_PATH = f"{API_ROOT}v1/"
ADMIN_ENABLED = env.flag("ADMIN_ENABLED", default=True)
ADMIN_PATH = env.read("ADMIN_PATH", values.parse_path, "admin/")
LANGUAGE_CODE = "en-us"  # of emails and commands; with USE_I18N a request selects another one
USE_I18N = env.flag("USE_I18N", default=False)
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS = [
    # A functional index makes usernames unique in any letter case. The check does not see it.
    "auth.W004",
    # Rate limits are correct in both caches of this project. config.E007 requires a shared one.
    "django_ratelimit.E003",
    "django_ratelimit.W001",
    # A redirect to HTTPS hides that a token was sent unencrypted. The proxy closes port 80.
    "security.W008",
    # config.E003 checks all secrets by the same rules.
    "security.W009",
    # EMAIL_URL=none is a choice; config.E021 rejects the development mailers.
    "mail.E001",
    # HSTS for subdomains and preloading affects other hosts.
    "security.W005",
    "security.W021",
]

# Apps

INSTALLED_APPS = [
    "config.apps.ProjectConfig",
    "console.apps.ConsoleConfig",
    "ops",
    "api",
    "accounts",
    "catalog",
    "health",
    "console.apps.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "corsheaders",
    "django_ratelimit",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
]

# Middleware: each entry processes the responses of all entries below it.

MIDDLEWARE = [
    "ops.requests.RequestIdMiddleware",
    "api.middleware.ClientAddressMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "api.middleware.CorsMiddleware",
    "api.middleware.ResponseHeadersMiddleware",
    *(["django.middleware.locale.LocaleMiddleware"] if USE_I18N else []),
    "console.middleware.ConsoleMiddleware",
    "api.middleware.ProblemMiddleware",
    "api.middleware.TrailingSlashMiddleware",
    "api.middleware.RequestValidationMiddleware",
    "api.middleware.AllowedMethodsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # For HTML pages, of the console and your own.
    "console.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "console.middleware.AuthenticationMiddleware",
    "console.middleware.MessageMiddleware",
    "accounts.middleware.remember_origin",
    "api.middleware.OwnErrorsMiddleware",
]
# ProblemMiddleware handles all exceptions, in development too.
DEBUG_PROPAGATE_EXCEPTIONS = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Static files: whitenoise finds them in the packages, so collectstatic is optional.

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# The directory exists only after collectstatic, and the finders do not need it.
warnings.filterwarnings("ignore", "No directory at", UserWarning)
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False

# Files of users: a directory, or a bucket of S3 that django-storages stores in

MEDIA_URL = "media/"
DEFAULT_MEDIA = f"{BASE_DIR}/.data/media" if DEBUG else ""
MEDIA_ROOT = env.read("MEDIA_ROOT", storages.parse_directory, DEFAULT_MEDIA)
MEDIA_BUCKET = env.read("MEDIA_BUCKET", storages.parse_bucket, "")
STORAGES = {
    "default": storages.media_storage(MEDIA_BUCKET),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Database

# PgBouncer assigns a connection for one transaction, so no state may remain on it.
DB_PGBOUNCER = env.flag("DB_PGBOUNCER", default=False)
DATABASES = {"default": env.database()}
if DB_PGBOUNCER:
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
WEB_DATABASE = web_database(DATABASES["default"], has_pgbouncer=DB_PGBOUNCER)

# Cache

CACHE_URL = env.read("CACHE_URL", values.parse_cache, "")
# The prefix separates deployments that share a Redis. It does not depend on secrets.
DEPLOYMENT = repr([str(DATABASES["default"].get(k) or BASE_DIR) for k in ("HOST", "PORT", "NAME")])
CACHES = {
    "default": {
        "BACKEND": "ops.cache.SharedCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": hashlib.sha256(DEPLOYMENT.encode()).hexdigest()[:12],
    }
    if CACHE_URL
    else {
        "BACKEND": "ops.local_cache.LocalCache",
        # With the default of 300 entries a flood could evict the counters.
        "OPTIONS": {"MAX_ENTRIES": 200_000},
    },
}

# Users, passwords and sessions

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.backends.IdentityBackend"]
BCRYPT_ROUNDS = env.integer("BCRYPT_ROUNDS", 14, low=4, high=31)
HASHING_PLACES = env.integer("HASHING_PLACES", max(1, CORES - 1), low=1, high=1024)
PASSWORD_HASHERS = [
    "accounts.passwords.BoundedBCryptSHA256PasswordHasher",
    # Only for imported hashes, which the next login replaces.
    "accounts.passwords.ImportedPBKDF2PasswordHasher",
    "accounts.passwords.ImportedBCryptPasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ("username", "email", "names")},
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "accounts.passwords.MaximumLengthValidator"},
    {"NAME": "accounts.passwords.VisiblePasswordValidator"},
    {
        "NAME": "accounts.passwords.ContextWordsValidator",
        "OPTIONS": {"service_name": SERVICE_NAME},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Usernames that look official, in lower case. Only staff can assign them.
RESERVED_USERNAMES = frozenset(
    {SERVICE_NAME, "abuse", "admin", "administrator", "api", "help", "hostmaster", "info", "mail"}
    | {"moderator", "noreply", "no-reply", "official", "operator", "postmaster", "root", "security"}
    | {"staff", "superuser", "support", "sysadmin", "system", "team", "webmaster", "www"}
)
ACCESS_TOKEN_LIFETIME = timedelta(
    minutes=env.integer("ACCESS_TOKEN_MINUTES", 15, low=1, high=1440),
)
REFRESH_TOKEN_LIFETIME = timedelta(days=env.integer("REFRESH_TOKEN_DAYS", 7, low=1, high=3650))
SESSION_MAX_AGE = timedelta(days=env.integer("SESSION_MAX_AGE_DAYS", 30, low=1, high=3650))
SESSION_RETENTION = timedelta(days=env.integer("SESSION_RETENTION_DAYS", 30, low=0, high=3650))
EVENT_RETENTION = timedelta(days=env.integer("EVENT_RETENTION_DAYS", 90, low=1, high=3650))
REFRESH_GRACE = timedelta(seconds=env.integer("REFRESH_GRACE_SECONDS", 10, low=0, high=300))
SESSION_LIMIT = env.integer("SESSION_LIMIT", 100, low=0, high=1_000_000)  # 0: none
REFRESH_COOKIE = env.flag("REFRESH_COOKIE", default=False)

# Email and the links in it

PUBLIC_URL = env.read(
    "PUBLIC_URL", mailers.parse_link_base, f"http://localhost:{PORT}" if DEBUG else ""
)
FRONTEND_URL = env.read("FRONTEND_URL", mailers.parse_link_base, "")
DEFAULT_FROM_EMAIL = env.text(
    "DEFAULT_FROM_EMAIL", "Latchkey <latchkey@localhost>" if DEBUG else ""
)
DEFAULT_MAILER = mailers.file_mailer(str(BASE_DIR / ".data/mail")) if DEBUG else {}
MAILER = env.read("EMAIL_URL", mailers.parse_mailer, DEFAULT_MAILER)
EMAIL_ENABLED = MAILER not in ({}, mailers.NO_MAILER)
# The directory of the development mailbox, which /mail shows.
MAILBOX = MAILER["OPTIONS"].get("file_path") if DEBUG else None
# MAILERS in Django 6.1, EMAIL_BACKEND and so on before.
globals().update(mailers.django_settings(MAILER))
EMAIL_RETENTION = timedelta(days=env.integer("EMAIL_RETENTION_DAYS", 14, low=1, high=3650))

# Account lifecycle

REGISTRATION = env.choice("REGISTRATION", ("open", "verified"), "open")
RESET_LIFETIME = timedelta(minutes=env.integer("RESET_MINUTES", 30, low=5, high=120))
FRESH_LIFETIME = timedelta(minutes=env.integer("FRESH_MINUTES", 10, low=1, high=1440))
UNDO_LIFETIME = timedelta(days=env.integer("UNDO_DAYS", 7, low=0, high=365))
API_TOKEN_PREFIX = env.read("API_TOKEN_PREFIX", values.parse_token_prefix, "lk")
FACTOR_RESET_DELAY = timedelta(hours=env.integer("FACTOR_RESET_HOURS", 24, low=1, high=720))
# Whether staff need a second factor in the console.
STAFF_MFA = env.choice("STAFF_MFA", ("required", "optional"), "optional" if DEBUG else "required")
TOKEN_AUDIENCE = env.text("TOKEN_AUDIENCE", "latchkey")

# Passkeys: without an id of the relying party there are none

DEFAULT_RP_ID, DEFAULT_RP_ORIGINS = passkeys.default_relying_party(FRONTEND_URL or PUBLIC_URL)
WEBAUTHN_RP_ID = env.read("WEBAUTHN_RP_ID", passkeys.parse_rp_id, DEFAULT_RP_ID)
WEBAUTHN_ORIGINS = env.read("WEBAUTHN_ORIGINS", passkeys.parse_origins, DEFAULT_RP_ORIGINS)

# Rate limits: count and window in seconds

AUTH_RATE_LIMIT = env.rate("AUTH_RATE_LIMIT", "5/m")
AUTH_READ_LIMIT = env.rate("AUTH_READ_LIMIT", "60/m")
LOGIN_FAILURE_LIMIT = env.rate("LOGIN_FAILURE_LIMIT", "10/15m")
CODE_FAILURE_LIMIT = (50, 86400)  # wrong codes of second factors for one account
EMAIL_LIMIT = env.rate("EMAIL_LIMIT", "3/h")
RATELIMIT_FAIL_OPEN = True  # api.throttling counts again where the cache lost a key.

# REST framework

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["api.throttling.RouteThrottle"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.negotiation.JSONOnlyNegotiation",
    "DEFAULT_PARSER_CLASSES": ["api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "api.pagination.BoundedPagination",
    "DEFAULT_SCHEMA_CLASS": "api.schema.ProblemAutoSchema",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_VERSIONING_CLASS": None,
    "EXCEPTION_HANDLER": "api.exceptions.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": PROJECT_NAME,
    "DESCRIPTION": "Users, and device sessions on rotating token pairs.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": f"/{API_ROOT}v[0-9]+",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "health.schema.add_routes",
        "api.schema.add_own_routes",
    ],
}

# Security headers, cookies and other origins

SECURE_HSTS_SECONDS = 0 if DEBUG else 365 * 24 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_FAILURE_VIEW = "api.exceptions.csrf_failure"
CSRF_TRUSTED_ORIGINS = env.names("CSRF_TRUSTED_ORIGINS", values.parse_csrf)
CORS_URLS_REGEX = rf"^/({API_ROOT}|health(/|$))"
ORIGINS = env.names("CORS_ALLOWED_ORIGINS", values.parse_cors)
CORS_ALLOWED_ORIGINS = [origin for origin in ORIGINS if origin != "*"]
CORS_ALLOW_ALL_ORIGINS = "*" in ORIGINS
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "x-request-id"]
CORS_EXPOSE_HEADERS = ["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"]

# Logging

LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "INFO")
LOG_FORMAT = env.choice("LOG_FORMAT", ("json", "console"), "console" if DEBUG else "json")
LOGGING = logging_config(level=LOG_LEVEL, formatter=LOG_FORMAT)

# Traces and errors: the libraries are imported only if these are set

OTLP_ENDPOINT = env.read("OTEL_EXPORTER_OTLP_ENDPOINT", values.parse_url, "")
SENTRY_DSN = env.read("SENTRY_DSN", values.parse_dsn, "")
