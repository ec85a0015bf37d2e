"""Startup in separate processes with their own environments."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.contained import context
from tests.rig.gunicorn import database_url
from tests.rig.machine import ROOT, free_port, wait_for

pytestmark = pytest.mark.heavy

EXAMPLE = (ROOT / ".env.example").read_text()
VARIABLES = re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
GOOD = {
    "SECRET": secrets.token_urlsafe(32),
    "ACCESS_TOKEN_SECRET": secrets.token_urlsafe(32),
    "REFRESH_TOKEN_SECRET": secrets.token_urlsafe(32),
    "DATABASE_URL": "postgres://latchkey:word@127.0.0.1:1/latchkey",
    "ALLOWED_HOSTS": "api.example.com",
    "CACHE_URL": "redis://127.0.0.1:1/0",
    "EMAIL_URL": "none",
}
MANAGE = [sys.executable, "manage.py"]
GUNICORN = [str(Path(sys.executable).with_name("gunicorn"))]
ENTRIES = [[*MANAGE, "check"], [*MANAGE, "migrate"], [*MANAGE, "shell", "-c", "1"], GUNICORN]


def start(
    command: list[str], variables: dict[str, str], *, cwd: Path = ROOT, hide: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run an entry point with these variables and no others; empty ones hide those of .env."""
    nothing = dict.fromkeys((name for name, _ in VARIABLES), "")
    environment = (nothing if hide else {}) | variables
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def inherited() -> dict[str, str]:
    """Return the process environment without the variables of this service."""
    names = {"DJANGO_SETTINGS_MODULE", *(name for name, _ in VARIABLES)}
    return {name: value for name, value in os.environ.items() if name not in names}


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
            "API_TOKEN_PREFIX": "l_k",
        },
    )

    found = {fault.split()[0] for fault in faults(result)}
    assert found >= {
        "SECRET", "ACCESS_TOKEN_SECRET_FALLBACKS", "REFRESH_TOKEN_SECRET", "DB_PORT", "DB_USER",
        "DB_PASSWORD", "DB_NAME", "DEBUG", "PORT", "AUTH_RATE_LIMIT", "LOG_LEVEL",
        "CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS", "BCRYPT_ROUNDS", "ADMIN_PATH",
        "API_TOKEN_PREFIX",
        "ALLOWED_HOSTS", "CACHE_URL",
    }  # fmt: skip
    assert f"The configuration has {len(faults(result))} faults:" in result.stderr
    for value in ("too-short", "passwordpassword", GOOD["ACCESS_TOKEN_SECRET"], "nonsense", "LOUD"):
        assert value not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["DEFAULT_FROM_EMAIL", "EMAIL_URL", "PUBLIC_URL"]),
        (
            {"EMAIL_URL": "smtp.example.com", "FRONTEND_URL": "http://app.example.com"},
            ["DEFAULT_FROM_EMAIL", "EMAIL_URL", "FRONTEND_URL"],
        ),
        (
            {
                "EMAIL_URL": "smtp://user:my-word@smtp.example.com",
                "DEFAULT_FROM_EMAIL": "nobody",
                "PUBLIC_URL": "http://api.example.com",
                "RESET_MINUTES": "4",
                "EMAIL_LIMIT": "lots",
            },
            ["DEFAULT_FROM_EMAIL", "EMAIL_LIMIT", "EMAIL_URL", "PUBLIC_URL", "RESET_MINUTES"],
        ),
    ],
)
def test_all_faults_of_email_are_in_one_list(
    variables: dict[str, str], expected: list[str]
) -> None:
    result = start([*MANAGE, "check"], GOOD | {"EMAIL_URL": ""} | variables)

    assert sorted(fault.split()[0] for fault in faults(result)) == expected
    assert "my-word" not in result.stderr + result.stdout


def test_one_fault_is_reported_in_the_singular() -> None:
    result = start([*MANAGE, "check"], GOOD | {"DEBUG": "maybe"})

    assert faults(result) == ["DEBUG must be true or false."]
    assert "has 1 fault:" in result.stderr


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project, in which a test can have a .env."""
    for path in context(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


@pytest.mark.parametrize("command", [[*MANAGE, "migrate"], GUNICORN], ids=["migrate", "gunicorn"])
def test_an_invalid_line_of_dotenv_prevents_the_start(command: list[str], clone: Path) -> None:
    lines = [f"{name}={value}" for name, value in GOOD.items() if name != "SECRET"]
    secret = GOOD["SECRET"]
    (clone / ".env").write_text("\n".join([*lines, f"SECRET = {secret}", "DEBUG : true"]))

    result = start(command, {"WEB_CONCURRENCY": "2"}, cwd=clone, hide=False)

    assert [fault.split(",")[0] for fault in faults(result)] == [
        "DEBUG is on line 8 of .env",
        "SECRET is on line 7 of .env",
    ]
    assert secret not in result.stderr + result.stdout


@pytest.mark.parametrize("command", [[*MANAGE, "migrate"], GUNICORN], ids=["migrate", "gunicorn"])
def test_a_dotenv_that_cannot_be_read_is_one_fault(command: list[str], clone: Path) -> None:
    (clone / ".env").mkdir()

    result = start(command, {"WEB_CONCURRENCY": "2"}, cwd=clone, hide=False)

    assert [fault.split()[0] for fault in faults(result)] == [".env"]


def test_the_example_is_rejected() -> None:
    result = start([*MANAGE, "check"], {name: value for name, value in VARIABLES if value})

    found = {fault.split()[0] for fault in faults(result)}
    assert found >= {"SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET", "ALLOWED_HOSTS"}


def test_a_good_environment_passes_the_deployment_checks() -> None:
    result = start([*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], GOOD)

    assert result.returncode == 0, result.stderr


@pytest.mark.django_db
def test_gunicorn_counts_the_connections_that_it_would_need() -> None:
    few = {"DATABASE_URL": database_url(), "WEB_CONCURRENCY": "1", "WEB_THREADS": "97"}

    (fault,) = faults(start(GUNICORN, GOOD | few))

    assert "= 1 * 98 = 98 connections" in fault
    assert "= 100 - 3 = 97," in fault


@pytest.mark.django_db
def test_seeddemo_is_rejected_in_production() -> None:
    result = start([*MANAGE, "seeddemo"], GOOD | {"DATABASE_URL": database_url()})

    assert result.returncode == 1
    assert result.stderr.startswith("CommandError: seeddemo creates accounts with a public")


@pytest.mark.parametrize(
    "command",
    [
        *([], ["help"], ["--help"], ["migrate", "--help"], ["version"], ["generatesecrets"]),
        *(["doctor", "--help"], ["collectstatic", "--noinput", "--dry-run", "-v0"]),
    ],
)
def test_some_commands_need_no_configuration(command: list[str]) -> None:
    assert start([*MANAGE, *command], {}).returncode == 0


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_every_line_of_a_start_in_production_is_json(level: str, clone: Path) -> None:
    lines = GOOD | {"WEB_CONCURRENCY": "2", "HOST": "127.0.0.1", "LOG_LEVEL": level}
    lines["PORT"] = str(free_port())
    log = clone / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            GUNICORN, cwd=clone, env=inherited() | lines, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for(int(lines["PORT"]), log)
            url = f"http://127.0.0.1:{lines['PORT']}/health/live"
            with urllib.request.urlopen(url) as response:
                assert response.status == 200
        finally:
            process.terminate()
    assert process.returncode == 0

    assert not (clone / "staticfiles").exists()
    messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert any(message.startswith("Listening at") for message in messages) == (level == "INFO")


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


def test_every_variable_stands_in_the_example_once_and_in_the_readme() -> None:
    source = (ROOT / "config" / "settings.py").read_text()
    source += (ROOT / "config" / "environment.py").read_text()
    names = [name for name, _ in VARIABLES if not name.startswith("PGADMIN_")]  # of Compose
    readme = (ROOT / "README.md").read_text()

    assert len(names) == len(set(names))
    for name in names:
        assert f'"{name.removesuffix("_FALLBACKS")}"' in source, name
        assert f"`{name}`" in readme, name


def test_help_of_another_program_is_no_help_of_a_command() -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "dbshell", "--", "-h", "127.0.0.1"],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings", "DEBUG": "maybe"},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert "DEBUG must be true or false" in result.stderr
