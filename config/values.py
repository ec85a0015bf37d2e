"""
Parsers for the values of environment variables.

Each raises a ValueError whose text completes "NAME must be …". Values for a library are parsed by
that library, so that an invalid value fails at startup and not in a request.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import environ
import psycopg
from django.http.request import split_domain_port
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.pq import Conninfo, ConnStatus, PGconn

ORIGINS = (
    "comma-separated origins such as https://app.example.com, in lower case, each with its scheme, "
    "without path, trailing slash and default port"
)
REDIS = (
    "redis://host:port/number (rediss:// for TLS), with # ? / @ , ; in a password percent-encoded"
)
POSTGRES = (
    "postgres://user:password@host:port/name or embedded://, with : / ? # @ % + in a password "
    "percent-encoded"
)
ENGINE = "ops.database.postgres"
EMBEDDED_DATABASE = {
    "ENGINE": "ops.database.embedded",
    "NAME": "latchkey",
    "USER": "postgres",
    "PORT": 5432,
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
IDENTIFIER_LENGTH = 63  # PostgreSQL's limit for the names of databases and roles
# Lone surrogates represent invalid UTF-8.
UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
DEFAULT_PORTS = {"http": "80", "https": "443"}
KEYWORDS = {
    "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname",
}  # fmt: skip
LIBPQ_VARIABLES = {o.envvar.decode() for o in Conninfo.get_defaults() if o.envvar}
# A directory without a socket: libpq validates all options before it connects.
NO_SOCKET = "/nonexistent"
REDIS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
# redis-py passes other options as text, which fails at the first connection.
REDIS_OPTIONS = REDIS_FILES | {"db", "protocol", "client_name", "ssl_cert_reqs"}
REDIS_OPTIONS |= {"socket_timeout", "socket_connect_timeout", "health_check_interval"}


def one_line(value: str) -> str:
    if UNREADABLE.search(value):
        raise ValueError("one line of UTF-8 text without control characters")
    return value


def split_names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def parse_flag(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def parse_rate(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?([smhd])", value)
    if match is None:
        raise ValueError('a rate such as "5/m" or "10/15m" (s, m, h or d)')
    count, multiple, unit = match.groups()
    return int(count), int(multiple or 1) * SECONDS[unit]


def parse_token_prefix(value: str) -> str:
    """Parse the prefix of API tokens, which an underscore separates from the rest."""
    if not re.fullmatch(r"[A-Za-z0-9]{1,16}", value):
        raise ValueError("1 to 16 letters and digits, such as lk")
    return value


OWN_PATHS = ["account", "api", "example", "health", "mail", "media", "static"]


def parse_path(value: str) -> str:
    path = value.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", path):
        raise ValueError("a path of letters, digits, - and _, such as admin/")
    if path.split("/")[0] in OWN_PATHS:
        raise ValueError(f"a path outside {'/, '.join(OWN_PATHS[:-1])}/ and {OWN_PATHS[-1]}/")
    return f"{path}/"


def parse_address(value: str) -> str:
    """Parse a listening address: an IP address or a host name, without a port."""
    if not (is_ipv6(value) or (is_host(value) and ":" not in value)):
        raise ValueError("an IP address or a host name, without scheme and port")
    return value


def parse_hosts(value: str) -> list[str]:
    """Parse ALLOWED_HOSTS, which Django compares with the host of each request."""
    hosts = split_names(value)
    for host in hosts:
        if host != "*" and not is_host(host.removeprefix(".")):
            raise ValueError(
                "comma-separated host names, each without scheme, port, path and spaces "
                "(.example.com includes subdomains, [::1] is an IPv6 address, xn-- begins others)"
            )
    return hosts


def parse_cors(value: str) -> list[str]:
    """Parse CORS origins in the form that browsers send; `*` allows all origins."""
    origins = split_names(value)
    if not all(origin == "*" or is_origin(origin) for origin in origins):
        raise ValueError(ORIGINS)
    return origins


def parse_csrf(value: str) -> list[str]:
    """Parse CSRF origins in the form that browsers send; `*.` before a host allows subdomains."""
    origins = split_names(value)
    if not all(is_origin(origin.replace("://*.", "://", 1)) for origin in origins):
        raise ValueError(ORIGINS)
    return origins


def is_host(host: str) -> bool:
    """Return whether Django can parse this host from a Host header."""
    return "" not in host.split(".") and split_domain_port(host) == (host.lower(), "")


def is_ipv6(value: str) -> bool:
    try:
        return isinstance(ip_address(value), IPv6Address)
    except ValueError:
        return False


def is_origin(origin: str) -> bool:
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://(.+?)(?::([1-9][0-9]{0,4}))?", origin)
    if match is None or origin != origin.lower():
        return False
    scheme, host, port = match.groups()
    # Browsers omit a default port.
    has_good_port = port != DEFAULT_PORTS.get(scheme) if port else True
    return is_host(host) and has_good_port and int(port or 0) <= 65535


def parse_url(value: str) -> str:
    """Parse the URL of an HTTP service."""
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or not re.fullmatch(r"[!-~]+", value) or set("?#") & set(value):
        raise ValueError("a URL such as http://host:4318, without query")
    return value


def parse_dsn(value: str) -> str:
    from sentry_sdk.utils import Dsn

    try:
        Dsn(value)
    except ValueError as error:
        raise ValueError("a DSN of Sentry: https://key@host/project") from error
    return value


def parse_cache(value: str) -> str:
    """Parse the URL of a Redis as Django and redis-py do."""
    from redis import ConnectionPool, RedisError

    # Django splits the URL at commas and semicolons into several servers.
    if not re.fullmatch(r"rediss?://[^/?#,;]+(/[0-9]{0,4})?(\?[^@#,;]*)?", value):
        raise ValueError(REDIS)
    try:
        parts = urlsplit(value)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        ConnectionPool.from_url(value).make_connection()
    except (ValueError, TypeError, RedisError) as error:
        raise ValueError(REDIS) from error
    if not parts.hostname:
        raise ValueError(REDIS)
    if options.keys() - REDIS_OPTIONS:
        raise ValueError(f"{REDIS}; its options may be {', '.join(sorted(REDIS_OPTIONS))}")
    if not all(Path(options[name]).is_file() for name in options.keys() & REDIS_FILES):
        raise ValueError(f"{REDIS}; the files that its options name must exist")
    return value


def parse_database(value: str) -> dict[str, Any]:
    """Parse the URL of a database, which libpq and django-environ must interpret equally."""
    if value == "embedded://":
        return dict(EMBEDDED_DATABASE)
    if not re.match(r"postgres(ql)?://", value):
        raise ValueError(POSTGRES)
    try:
        database: dict[str, Any] = environ.Env.db_url_config(value, engine=ENGINE)
        read_by_libpq = conninfo_to_dict(value)
    except (ValueError, psycopg.Error) as error:
        raise ValueError(f"{POSTGRES}, with options that libpq knows") from error
    if not database["NAME"]:
        raise ValueError(f"{POSTGRES} (the name is missing)")
    parse_identifier(database["NAME"])
    if casefold_host(connection_options(database)) != casefold_host(read_by_libpq):
        raise ValueError(POSTGRES)
    options = database.get("OPTIONS", {})
    # Options such as `?host=/run/postgresql` become settings, for Django's dbshell.
    return database | {key: options.pop(k) for key, k in KEYWORDS.items() if k in options}


def casefold_host(options: dict[str, Any]) -> dict[str, str]:
    given = {keyword: str(value) for keyword, value in options.items() if value}
    return given | {"host": given.get("host", "").casefold()}


def parse_database_hosts(value: str) -> str:
    """Parse comma-separated hosts: names, IP addresses or socket directories."""
    hosts = [host.strip() for host in value.split(",")]
    are_hosts = all(h.startswith("/") or is_ipv6(h) or is_database_host(h) for h in hosts)
    if not are_hosts or len(set(hosts)) < len(hosts):
        raise ValueError(
            "host names, IP addresses or directories of sockets, comma-separated, without ports, "
            "each once"
        )
    return ",".join(hosts)


def is_database_host(host: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", host))


def parse_identifier(value: str) -> str:
    if len(value.encode()) > IDENTIFIER_LENGTH:
        raise ValueError(f"a name of at most {IDENTIFIER_LENGTH} bytes")
    return value


def connection_options(database: dict[str, Any]) -> dict[str, str]:
    """Return the options that Django passes to libpq for a database."""
    options = dict(database.get("OPTIONS", {}))
    options |= {keyword: database[key] for key, keyword in KEYWORDS.items() if database.get(key)}
    return {keyword: str(value) for keyword, value in options.items()}


def accepts(options: dict[str, str], variables: dict[str, str]) -> bool:
    """Return whether libpq accepts these options and PG… variables, without a connection."""
    hosts = ",".join(NO_SOCKET for _ in options.get("host", "").split(","))
    options = {k: v for k, v in options.items() if k != "hostaddr"} | {"host": hosts}
    with only_libpq_variables(variables):
        try:
            timeout_from_conninfo({**options})
            connection = PGconn.connect_start(make_conninfo("", **options).encode())
        except psycopg.Error:
            return False
    try:
        return connection.status != ConnStatus.BAD or NO_SOCKET.encode() in connection.error_message
    finally:
        connection.finish()


@contextlib.contextmanager
def only_libpq_variables(variables: dict[str, str]) -> Iterator[None]:
    """Set only these PG… variables in the process environment, which libpq reads."""
    hidden = {name: os.environ.pop(name) for name in LIBPQ_VARIABLES if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(hidden)
