"""Start-up as an operator meets it: real processes, real environments."""

import os
import re
import runpy
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from config.environment import Environment
from config.tests.serving import database_url

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()
VARIABLES = re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
GOOD = {
    "SECRET": secrets.token_urlsafe(32),
    "ACCESS_TOKEN_SECRET": secrets.token_urlsafe(32),
    "REFRESH_TOKEN_SECRET": secrets.token_urlsafe(32),
    "DATABASE_URL": "postgres://latchkey:word@127.0.0.1:1/latchkey",
    "ALLOWED_HOSTS": "api.example.com",
    "CACHE_URL": "redis://127.0.0.1:1/0",
}
MANAGE = [sys.executable, "manage.py"]
GUNICORN = [str(Path(sys.executable).with_name("gunicorn"))]
ENTRIES = [[*MANAGE, "check"], [*MANAGE, "migrate"], [*MANAGE, "shell", "-c", "1"], GUNICORN]


def start(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an entry with these variables and no others; an empty one hides what .env says."""
    environment = dict.fromkeys((name for name, _ in VARIABLES), "") | variables
    inherited = {k: v for k, v in os.environ.items() if k not in environment}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def faults(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    return re.findall(r"^  - (.*) \([a-z0-9_]+\.E[0-9]+\)$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize("command", ENTRIES, ids=lambda command: " ".join(command[-2:]))
def test_every_entry_lists_all_that_is_wrong(command: list[str]) -> None:
    result = start(
        command,
        {
            "SECRET": "too-short",
            "ACCESS_TOKEN_SECRET": GOOD["ACCESS_TOKEN_SECRET"],
            "ACCESS_TOKEN_SECRET_FALLBACKS": "password" * 5,
            "DB_HOST": "localhost",
            "DB_PORT": "many",
            "DEBUG": "maybe",
            "PORT": "0",
            "AUTH_RATE_LIMIT": "lots",
            "LOG_LEVEL": "LOUD",
            "CORS_ALLOWED_ORIGINS": "*,nonsense",
            "CSRF_TRUSTED_ORIGINS": "example.com",
            "BCRYPT_ROUNDS": "4",
            "WEB_CONCURRENCY": "2",
            "ADMIN_PATH": "api/",
        },
    )

    found = {fault.split()[0] for fault in faults(result)}
    assert found >= {
        "SECRET", "ACCESS_TOKEN_SECRET_FALLBACKS", "REFRESH_TOKEN_SECRET", "DB_PORT", "DB_USER",
        "DB_PASSWORD", "DB_NAME", "DEBUG", "PORT", "AUTH_RATE_LIMIT", "LOG_LEVEL",
        "CORS_ALLOWED_ORIGINS", "BCRYPT_ROUNDS", "ADMIN_PATH", "ALLOWED_HOSTS", "CACHE_URL",
    }  # fmt: skip
    assert "example.com" in result.stderr
    assert "nonsense" in result.stderr
    assert f"The configuration has {len(faults(result))} faults:" in result.stderr
    for secret in ("too-short", "passwordpassword", GOOD["ACCESS_TOKEN_SECRET"]):
        assert secret not in result.stderr + result.stdout


def test_one_fault_is_told_in_the_singular() -> None:
    result = start([*MANAGE, "check"], GOOD | {"DEBUG": "maybe"})

    assert faults(result) == ["DEBUG must be true or false."]
    assert "has 1 fault:" in result.stderr


def test_the_example_is_refused() -> None:
    result = start([*MANAGE, "check"], {name: value for name, value in VARIABLES if value})

    found = {fault.split()[0] for fault in faults(result)}
    assert found >= {"SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET", "ALLOWED_HOSTS"}


def test_a_good_environment_passes_the_deployment_checks() -> None:
    result = start([*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], GOOD)

    assert result.returncode == 0, result.stderr


@pytest.mark.django_db
def test_gunicorn_counts_the_connections_that_it_would_need() -> None:
    few = {"DATABASE_URL": database_url(), "WEB_CONCURRENCY": "1", "WEB_THREADS": "98"}

    (fault,) = faults(start(GUNICORN, GOOD | few))

    assert "= 1 * 98 = 98 connections" in fault
    assert "= 100 - 3 = 97," in fault


@pytest.mark.parametrize(
    "command",
    [
        *([], ["help"], ["--help"], ["migrate", "--help"], ["version"], ["generatesecrets"]),
        *(["doctor", "--help"], ["collectstatic", "--noinput", "--dry-run", "-v0"]),
    ],
)
def test_some_commands_need_no_configuration(command: list[str]) -> None:
    assert start([*MANAGE, *command], {}).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "2"),
        ("DEBUG", "$HOME"),
        ("ADMIN_ENABLED", "perhaps"),
        ("PORT", "65536"),
        ("PORT", "3000 "[:-1] + "x"),
        ("PORT", "-1"),
        ("PORT", "3.5"),
        ("PORT", "٣٠٠٠"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_THREADS", "none"),
        ("HASHING_PLACES", "0"),
        ("BCRYPT_ROUNDS", "32"),
        ("ACCESS_TOKEN_MINUTES", "0"),
        ("REFRESH_TOKEN_DAYS", "1e3"),
        ("SESSION_MAX_AGE_DAYS", "-7"),
        ("REFRESH_GRACE_SECONDS", "1.5"),
        ("SESSION_RETENTION_DAYS", "x"),
        ("TRUSTED_PROXY_COUNT", "one"),
        ("AUTH_RATE_LIMIT", "5"),
        ("AUTH_RATE_LIMIT", "5/m or so"),
        ("AUTH_RATE_LIMIT", "0/m"),
        ("LOGIN_FAILURE_LIMIT", "10/15"),
        ("LOGIN_FAILURE_LIMIT", "ten/15m"),
        ("CACHE_URL", "localhost:6379"),
        ("CACHE_URL", "memcached://localhost"),
        ("DATABASE_URL", "sqlite:///db.sqlite3"),
        ("DATABASE_URL", "postgres://"),
        ("DATABASE_URL", "postgres://user@host:port/name"),
        ("DATABASE_URL", "postgres://user@host:5432/"),
        ("DATABASE_URL", "$DATABASE"),
        ("LOG_FORMAT", "xml"),
        ("ADMIN_PATH", "a b"),
        ("ADMIN_PATH", "/"),
        ("ADMIN_PATH", "health/admin"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [fault.split()[0] for fault in read(monkeypatch, **{name: value})] == [name]


class TestDatabase:
    FIVE = {
        "DB_HOST": "db", "DB_PORT": "5433", "DB_USER": "u", "DB_PASSWORD": "p$1", "DB_NAME": "n",
    }  # fmt: skip

    def test_the_five_are_one_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, **{**self.FIVE, "DATABASE_URL": ""})

        assert settings["ENVIRONMENT_FAULTS"] == []
        assert settings["DATABASES"]["default"] == {
            "ENGINE": "config.postgres",
            "HOST": "db", "PORT": 5433, "USER": "u", "PASSWORD": "p$1", "NAME": "n",
        }  # fmt: skip

    def test_both_forms_in_one_source_are_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(read(monkeypatch, DATABASE_URL="postgres://u@h/n", DB_HOST="db")) == 1

    def test_either_form_of_the_process_wins_over_both_of_the_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        dotenv = tmp_path / ".env"
        forget(monkeypatch)
        dotenv.write_text("DATABASE_URL=embedded://\nPORT=4000\nLOG_LEVEL=ERROR\n")
        for name, value in self.FIVE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LOG_LEVEL", "DEBUG")
        env = Environment(dotenv)
        assert env.database()["HOST"] == "db"
        assert env.text("PORT") == "4000"
        assert env.text("LOG_LEVEL") == "DEBUG"

        dotenv.write_text("".join(f"{name}={value}\n" for name, value in self.FIVE.items()))
        forget(monkeypatch)
        assert Environment(dotenv).database()["HOST"] == "db"
        monkeypatch.setenv("DATABASE_URL", "postgres://u@elsewhere/n")
        assert Environment(dotenv).database()["HOST"] == "elsewhere"

        forget(monkeypatch)
        dotenv.write_text(dotenv.read_text() + "DATABASE_URL=embedded://\n")
        env = Environment(dotenv)
        env.database()
        assert len(env.faults) == 1

    def test_a_secret_may_come_from_a_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        forget(monkeypatch)
        (tmp_path / ".env").write_text("SECRET=from .env\nDB_PASSWORD=from .env\n")
        (tmp_path / "secret").write_text("from a file\n")
        (tmp_path / "url").write_text("postgres://u:p@db/n\n")
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        for name, file in (
            ("SECRET", "secret"), ("DATABASE_URL", "url"), ("ACCESS_TOKEN_SECRET", "nowhere"),
            ("REFRESH_TOKEN_SECRET", "binary"), ("CACHE_URL", "secret"),
        ):  # fmt: skip
            monkeypatch.setenv(f"{name}_FILE", str(tmp_path / file))
        monkeypatch.setenv("CACHE_URL", "redis://cache")

        env = Environment(tmp_path / ".env")

        assert env.text("SECRET") == "from a file"
        assert env.database()["HOST"] == "db"
        assert env.faults == [
            "ACCESS_TOKEN_SECRET_FILE must be the path of a text file that can be read.",
            "REFRESH_TOKEN_SECRET_FILE must be the path of a text file that can be read.",
            "CACHE_URL and CACHE_URL_FILE are both set: use one.",
        ]
        assert "SECRET" not in os.environ

    def test_a_url_may_hold_what_urls_escape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = "postgresql://us%40er:p%2Fw%23@[::1]:5433/my%20db?sslmode=require"
        database = load(monkeypatch, DATABASE_URL=url)["DATABASES"]["default"]

        assert database["USER"] == "us@er"
        assert database["PASSWORD"] == "p/w#"
        assert (database["HOST"], database["PORT"]) == ("::1", 5433)
        assert database["NAME"] == "my db"
        assert database["OPTIONS"] == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("flags", "variables", "bind"),
    [
        ([], {}, "0.0.0.0:3000"),
        (["--reload"], {}, "127.0.0.1:3000"),
        ([], {"HOST": "::1", "PORT": "4000"}, "[::1]:4000"),
        (["--reload"], {"HOST": "0.0.0.0"}, "0.0.0.0:3000"),
    ],
)
def test_where_gunicorn_listens(flags: list[str], variables: dict[str, str], bind: str) -> None:
    environment = GOOD | {"WEB_CONCURRENCY": "3", "WEB_THREADS": "5"} | variables

    result = start([*GUNICORN, *flags, "--print-config"], environment)

    printed = dict(re.findall(r"^(\w+) += (.*)$", result.stdout, re.MULTILINE))
    assert result.returncode == 0, result.stderr
    assert printed["bind"] == f"['{bind}']"
    assert (printed["workers"], printed["threads"]) == ("3", "5")
    assert printed["forwarded_allow_ips"] in {"", "[]", "['']"}
    assert printed["control_socket_disable"] == "True"


def test_debug_loosens_cookies_and_hsts(monkeypatch: pytest.MonkeyPatch) -> None:
    strict, loose = load(monkeypatch), load(monkeypatch, DEBUG="true")

    assert strict["SESSION_COOKIE_SECURE"]
    assert strict["CSRF_COOKIE_SECURE"]
    assert strict["SECURE_HSTS_SECONDS"] > 0
    assert strict["LOG_FORMAT"] == "json"
    assert not loose["SESSION_COOKIE_SECURE"]
    assert not loose["SECURE_HSTS_SECONDS"]
    assert loose["LOG_FORMAT"] == "console"


def test_a_proxy_is_believed_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    without, behind = load(monkeypatch), load(monkeypatch, TRUSTED_PROXY_COUNT="1")

    assert without["SECURE_PROXY_SSL_HEADER"] is None
    assert behind["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        ALLOWED_HOSTS="a.example.com, b.example.com,",
        SECRET_FALLBACKS="one,two",
        CORS_ALLOWED_ORIGINS="https://a.example.com,*",
    )

    assert settings["ALLOWED_HOSTS"] == ["a.example.com", "b.example.com"]
    assert settings["SECRET_KEY_FALLBACKS"] == ["one", "two"]
    assert settings["CORS_ALLOWED_ORIGINS"] == ["https://a.example.com"]
    assert settings["CORS_ALLOW_ALL_ORIGINS"]


def test_every_variable_stands_in_the_example_once_and_in_the_readme() -> None:
    source = (ROOT / "config" / "settings.py").read_text()
    source += (ROOT / "config" / "environment.py").read_text()
    names = [name for name, _ in VARIABLES]
    readme = (ROOT / "README.md").read_text()

    assert len(names) == len(set(names))
    for name in names:
        assert f'"{name.removesuffix("_FALLBACKS")}"' in source, name
        assert f"`{name}`" in readme, name


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, object]:
    """Run settings.py under these variables and return what it sets."""
    hide = dict.fromkeys((name for name, _ in VARIABLES), "")
    for name, value in (hide | GOOD | variables).items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "config" / "settings.py"))


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    found = load(monkeypatch, **variables)["ENVIRONMENT_FAULTS"]
    assert isinstance(found, list)
    return found


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in VARIABLES:
        monkeypatch.delenv(name, raising=False)
