"""
A strict parser of environment variables.

It collects all faults in `faults`, which `config.checks` reports. A fault contains names of
variables and line numbers, never values.
"""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from config import values
from config.dotenv import read_dotenv
from ops import files

T = TypeVar("T")

DATABASE_PARTS = ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME")
# Docker and Kubernetes provide secrets as files: `NAME_FILE` is the path of the file.
FROM_FILES = (
    *("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"),
    *("SECRET_FALLBACKS", "ACCESS_TOKEN_SECRET_FALLBACKS", "REFRESH_TOKEN_SECRET_FALLBACKS"),
    *("DB_PASSWORD", "DATABASE_URL", "CACHE_URL", "EMAIL_URL"),
)


class Environment:
    """
    The process environment, with a `.env` file as the fallback.

    An empty variable counts as unset. Each method returns its default after a fault, so that the
    settings always load and one list can report all faults.
    """

    def __init__(self, path: Path) -> None:
        self.faults: list[str] = []
        # Variables with a reported fault, which are not also reported as missing.
        self.faulty: set[str] = set()
        self.given = dict(os.environ)
        self.dotenv = read_dotenv(path)
        self.faults += [self.dotenv.describe(number) for number in self.dotenv.faults]
        for source in (self.given, self.dotenv.values):
            for name in FROM_FILES:
                self.take_file(source, name)
        self.values = self.dotenv.values | self.given

    def take_file(self, source: dict[str, str], name: str) -> None:
        """Set a variable to the content of the file `NAME_FILE`."""
        path = source.get(f"{name}_FILE")
        if not path:
            return
        if source.get(name):
            self.add_fault(name, f"{name} and {name}_FILE are both set: use one.")
            return
        try:
            content = files.read_text(Path(path)).strip()
        except OSError:
            content = ""
        if not content:
            self.add_fault(
                name,
                f"{name}_FILE must be the path of a text file that can be read and has a value.",
            )
        is_list = name.endswith("_FALLBACKS")
        source[name] = ",".join(content.splitlines()) if is_list else content

    def add_fault(self, name: str, fault: str) -> None:
        self.faults.append(fault)
        self.faulty.add(name)

    def read(self, name: str, cast: Callable[[str], T], default: T) -> T:
        """Parse a variable with `cast`. Its ValueError completes "NAME must be …"."""
        self.name_lines(name)
        value = self.values.get(name, "").strip()
        if not value:
            return default
        try:
            return cast(values.one_line(value))
        except ValueError as error:
            self.add_fault(name, f"{name} must be {error}.")
            return default

    def name_lines(self, name: str) -> None:
        """Add the variable's name to the fault of an invalid line that probably sets it."""
        for number, names in self.dotenv.names.items():
            fault = self.dotenv.describe(number)
            if name in names and fault in self.faults:
                named = f"{name} is on line {number} of .env, which {self.dotenv.faults[number]}."
                self.faults[self.faults.index(fault)] = named
                self.faulty.add(name)
        if 0 in self.dotenv.faults:
            self.faulty.add(name)

    def text(self, name: str, default: str = "") -> str:
        return self.read(name, str, default)

    def names(self, name: str, cast: Callable[[str], list[str]] = values.split_names) -> list[str]:
        return self.read(name, cast, [])

    def flag(self, name: str, *, default: bool) -> bool:
        return self.read(name, values.parse_flag, default)

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
        """Parse a rate such as `5/m` or `10/15m` into a count and a window in seconds."""
        return self.read(name, values.parse_rate, values.parse_rate(default))

    def database(self) -> dict[str, Any]:
        """Return the database settings, or an empty dictionary after a fault."""
        variables = self.libpq_variables()
        database = self.database_form()
        if "," in database.get("HOST", ""):
            self.require_primary(database, variables)
        options = values.connection_options(database)
        if database and not values.accepts(options, variables):
            name = "DATABASE_URL" if self.values.get("DATABASE_URL") else "DB_HOST"
            self.add_fault(name, f"{name} must have options with values that libpq accepts.")
            return {}
        return database

    def require_primary(self, database: dict[str, Any], variables: dict[str, str]) -> None:
        """Of several hosts use the primary: by default libpq would use a standby, too."""
        options = database.setdefault("OPTIONS", {})
        target = variables.get("PGTARGETSESSIONATTRS", "read-write")
        if options.setdefault("target_session_attrs", target) not in {"read-write", "primary"}:
            self.faults.append(
                "PGTARGETSESSIONATTRS (target_session_attrs in a URL) must be read-write or "
                "primary, because the database has several hosts."
            )

    def libpq_variables(self) -> dict[str, str]:
        """Return the valid PG… variables of the process environment."""
        for name in sorted(values.LIBPQ_VARIABLES & self.dotenv.values.keys()):
            self.faults.append(f"{name} must be in the process environment: libpq reads no .env.")
        given = {name: self.given[name] for name in values.LIBPQ_VARIABLES & self.given.keys()}
        if values.accepts({}, given):
            return given
        accepted = {name: v for name, v in given.items() if values.accepts({}, {name: v})}
        for name in sorted(given.keys() - accepted.keys()):
            self.faults.append(f"{name} must be a value that libpq accepts.")
        return accepted

    def database_form(self) -> dict[str, Any]:
        """Parse `DATABASE_URL` or the five `DB_…`; the process environment precedes `.env`."""
        names = ("DATABASE_URL", *DATABASE_PARTS)
        given = [name for name in names if self.given.get(name)]
        present = given or [name for name in names if self.values.get(name)]
        if "DATABASE_URL" in present and len(present) > 1:
            self.faults.append(f"DATABASE_URL and {present[1]} are both set: use one form.")
        url: dict[str, Any] = self.read("DATABASE_URL", values.parse_database, dict[str, Any]())
        if "DATABASE_URL" in {*present, *self.faulty}:
            return url
        parts = {
            "ENGINE": values.ENGINE,
            "HOST": self.read("DB_HOST", values.parse_database_hosts, ""),
            "PORT": self.integer("DB_PORT", 0, low=1, high=65535),
            "USER": self.read("DB_USER", values.parse_identifier, ""),
            # Surrounding spaces are part of a password.
            "PASSWORD": self.text("DB_PASSWORD") and self.values["DB_PASSWORD"],
            "NAME": self.read("DB_NAME", values.parse_identifier, ""),
        }
        for name in DATABASE_PARTS:
            if not self.values.get(name) and name not in self.faulty:
                self.faults.append(f"{name} is required (or set DATABASE_URL).")
        return parts if all(parts.values()) else {}
