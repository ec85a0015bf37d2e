"""
A strict reader of environment variables.

django-environ parses `.env` and the URLs; what it would accept in silence (`DEBUG=maybe` as false)
or answer with a traceback is collected in `faults`, which `config.checks` reports in one list.
"""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import environ

T = TypeVar("T")

DATABASE_PARTS = ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME")
# What may be given as the path of a file in `NAME_FILE`, as Docker and Kubernetes hand out secrets.
FROM_FILES = (
    *("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"),
    *("SECRET_FALLBACKS", "ACCESS_TOKEN_SECRET_FALLBACKS", "REFRESH_TOKEN_SECRET_FALLBACKS"),
    *("DB_PASSWORD", "DATABASE_URL", "CACHE_URL"),
)
ENGINE = "config.postgres"
EMBEDDED_DATABASE = {
    "ENGINE": "config.embedded_postgres",
    "NAME": "latchkey",
    "USER": "postgres",
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Environment:
    """
    The process environment over a `.env` file.

    An empty variable counts as unset. Every reader returns its default where it finds a fault, so
    that settings load whatever the environment holds and one list can name all that is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.faults: list[str] = []
        self.given = dict(os.environ)
        for name in FROM_FILES:
            self.read_file(name)

        class Source(environ.Env):  # type: ignore[misc]
            # A copy: what `.env` says must not leak into child processes as if they were given it.
            ENVIRON = dict(self.given)

        Source.read_env(path)
        self.values: dict[str, str] = Source.ENVIRON

    def read_file(self, name: str) -> None:
        """Take a variable from the file that `NAME_FILE` names, without the end of its line."""
        path = self.given.get(f"{name}_FILE")
        if not path:
            return
        if self.given.get(name):
            self.faults.append(f"{name} and {name}_FILE are both set: use one.")
            return
        try:
            self.given[name] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            self.faults.append(f"{name}_FILE must be the path of a text file that can be read.")

    def read(self, name: str, cast: Callable[[str], T], default: T) -> T:
        """Read a variable by `cast`, whose ValueError says what the variable must be."""
        value = self.values.get(name, "").strip()
        if not value:
            return default
        try:
            return cast(value)
        except ValueError as error:
            self.faults.append(f"{name} must be {error}.")
            return default

    def text(self, name: str, default: str = "") -> str:
        return self.read(name, str, default)

    def names(self, name: str) -> list[str]:
        return self.read(name, split_names, [])

    def flag(self, name: str, *, default: bool) -> bool:
        return self.read(name, parse_flag, default)

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        def parse(value: str) -> str:
            if value not in choices:
                raise ValueError(f"one of {', '.join(choices)}")
            return value

        return self.read(name, parse, default)

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        def parse(value: str) -> int:
            if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
                raise ValueError(f"a whole number from {low} to {high}")
            return int(value)

        return self.read(name, parse, default)

    def rate(self, name: str, default: str) -> tuple[int, int]:
        """Read a rate such as `5/m` or `10/15m`: how many in how many seconds."""
        return self.read(name, parse_rate, parse_rate(default))

    def path(self, name: str, default: str) -> str:
        """Read a URL path below the root, which ends in a slash."""
        return self.read(name, parse_path, default)

    def cache(self, name: str) -> str:
        """Read the URL of a Redis; none is the empty string."""
        return self.read(name, parse_cache, "")

    def database(self) -> dict[str, Any]:
        """
        Read `DATABASE_URL` or the five `DB_…`; what the process was given wins in either form.

        A database that is missing or unreadable is an empty dictionary.
        """
        given = [name for name in ("DATABASE_URL", *DATABASE_PARTS) if self.given.get(name)]
        present = given or [n for n in ("DATABASE_URL", *DATABASE_PARTS) if self.values.get(n)]
        if "DATABASE_URL" in present:
            if len(present) > 1:
                self.faults.append(f"DATABASE_URL and {present[1]} are both set: use one form.")
            return self.read("DATABASE_URL", parse_database, {})
        port = self.integer("DB_PORT", 5432, low=1, high=65535)
        missing = [name for name in DATABASE_PARTS if not self.values.get(name)]
        if missing:
            self.faults.extend(f"{name} is required (or set DATABASE_URL)." for name in missing)
            return {}
        return {
            "ENGINE": ENGINE,
            "HOST": self.values["DB_HOST"],
            "PORT": port,
            "USER": self.values["DB_USER"],
            "PASSWORD": self.values["DB_PASSWORD"],
            "NAME": self.values["DB_NAME"],
        }


def split_names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def parse_flag(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def parse_rate(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?([smhd])", value, re.ASCII)
    if match is None:
        raise ValueError('a rate such as "5/m" or "10/15m" (s, m, h or d)')
    count, multiple, unit = match.groups()
    return int(count), int(multiple or 1) * SECONDS[unit]


def parse_path(value: str) -> str:
    path = value.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", path):
        raise ValueError("a path of letters, digits, - and _, such as admin/")
    if path.split("/")[0] in {"api", "health", "static"}:
        raise ValueError("a path outside api/, health/ and static/")
    return f"{path}/"


def parse_cache(value: str) -> str:
    if not re.match(r"rediss?://[^/]", value):
        raise ValueError("redis://host:port/number (rediss:// for TLS)")
    return value


def parse_database(value: str) -> dict[str, Any]:
    if value == "embedded://":
        return dict(EMBEDDED_DATABASE)
    form = "postgres://user:password@host:port/name or embedded://"
    if not re.match(r"postgres(ql)?://", value):
        raise ValueError(form)
    try:
        parsed: dict[str, Any] = environ.Env.db_url_config(value, engine=ENGINE)
    except ValueError as error:
        raise ValueError(form) from error
    if not parsed["NAME"]:
        raise ValueError(f"{form} (the name is missing)")
    return parsed
