import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from accounts.models import User
from config.management.commands import generatesecrets, setup
from config.secret_rules import secret_faults

NAMES = ["SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"]


def run(*command: str) -> str:
    output = StringIO()
    call_command(*command, stdout=output)
    return output.getvalue()


def pairs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


class TestGenerateSecrets:
    def test_it_prints_lines_for_dotenv(self) -> None:
        found = pairs(run("generatesecrets"))

        assert list(found) == NAMES
        assert len(set(found.values())) == 3
        for secret in found.values():
            assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
            assert not list(secret_faults(secret))

    def test_it_draws_again_until_the_rules_are_met(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = iter(["weak", "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0"])
        monkeypatch.setattr("secrets.token_urlsafe", lambda length: next(drawn))

        assert generatesecrets.good_secret() == "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0"

    def test_it_writes_and_keeps_a_good_old_one_as_fallback(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        settings.BASE_DIR = tmp_path
        dotenv = tmp_path / ".env"
        good, older = "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0", "R6tKx2Nw9Vb4Qm7Zc1Yh8Jp3Ls5Df0Ga"
        dotenv.write_text(
            f"# mine\nPORT=4000\nSECRET='{good}'\nSECRET_FALLBACKS={older}\n"
            "ACCESS_TOKEN_SECRET=replace-me-with-access-token-secret\n"
        )

        run("generatesecrets", "--write")

        text = dotenv.read_text()
        found = pairs(text)
        assert text.startswith("# mine\nPORT=4000\nSECRET=")
        assert found["SECRET_FALLBACKS"] == f"{good},{older}"
        assert "ACCESS_TOKEN_SECRET_FALLBACKS" not in found
        assert all(not list(secret_faults(found[name])) for name in NAMES)
        assert dotenv.stat().st_mode & 0o777 == 0o600

    def test_it_keeps_the_form_of_the_lines(self, settings: Settings, tmp_path: Path) -> None:
        settings.BASE_DIR = tmp_path
        dotenv = tmp_path / ".env"
        good = "q8Zr1vXk3mTn7bYw2cJh5sLd9fGp4aEu0"
        dotenv.write_bytes(f'PORT=4000\r\nexport SECRET="{good}"\r\nPORT_NAME=x'.encode())

        run("generatesecrets", "--write")

        lines = dotenv.read_text().splitlines()
        assert re.fullmatch(r"export SECRET=[A-Za-z0-9_-]{43}", lines[1])
        assert f"SECRET_FALLBACKS={good}" in lines
        assert lines[2] == "PORT_NAME=x"

    def test_an_invalid_file_is_kept(self, settings: Settings, tmp_path: Path) -> None:
        settings.BASE_DIR = tmp_path
        (tmp_path / ".env").write_text("PORT=1\nSECRET = value\n")

        with pytest.raises(CommandError, match=r"Line 2 of \.env must be NAME=value"):
            run("generatesecrets", "--write")

        assert (tmp_path / ".env").read_text() == "PORT=1\nSECRET = value\n"

    def test_it_writes_where_there_was_nothing(self, settings: Settings, tmp_path: Path) -> None:
        settings.BASE_DIR = tmp_path

        run("generatesecrets", "--write")

        assert list(pairs((tmp_path / ".env").read_text())) == NAMES


class TestSetup:
    def test_it_writes_a_dotenv_and_restarts(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class BeganAgainError(Exception):
            pass

        def begin_again(*args: Any) -> None:
            raise BeganAgainError

        settings.BASE_DIR = tmp_path
        monkeypatch.setattr("os.execv", begin_again)

        with pytest.raises(BeganAgainError):
            run("setup")

        found = pairs((tmp_path / ".env").read_text())
        assert (found["DEBUG"], found["DATABASE_URL"]) == ("true", "embedded://")
        assert all(not list(secret_faults(found[name])) for name in NAMES)

    def test_it_leaves_one_that_exists_alone(
        self, db: None, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.BASE_DIR = tmp_path
        settings.DEBUG = True
        (tmp_path / ".env").write_text("PORT=1\n")
        monkeypatch.setattr(setup, "reject_taken_port", lambda host, port: None)

        run("setup")

        assert (tmp_path / ".env").read_text() == "PORT=1\n"

    @pytest.mark.parametrize(("family", "host"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
    def test_a_port_in_use_is_reported_in_one_line(self, family: str, host: str) -> None:
        import socket

        with socket.socket(getattr(socket, family)) as taken:
            taken.bind((host, 0))
            taken.listen()
            port = taken.getsockname()[1]

            with pytest.raises(CommandError, match=f"{port}.*PORT=") as raised:
                setup.reject_taken_port(host, port)

        assert "\n" not in str(raised.value)
        setup.reject_taken_port(host, port)


def test_a_superuser_without_a_dialogue_has_a_valid_password(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "alice-the-first"
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "root@example.com")
    command = ("createsuperuser", "--noinput", "--username", name)

    for password in ("password", "short", "12345678901", name):
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", password)
        with pytest.raises(CommandError, match=r"(This|The) password"):
            run(*command)
    assert not User.objects.exists()

    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a sunny day in May")
    run(*command)
    assert User.objects.get().check_password("a sunny day in May")


def test_a_superuser_without_a_dialogue_may_have_no_password(db: None) -> None:
    run("createsuperuser", "--noinput", "--username", "alice", "--email", "a@example.com")

    assert not User.objects.get().has_usable_password()


@pytest.mark.parametrize("is_debug", [True, False])
def test_seeddemo_needs_debug_or_force(db: None, settings: Settings, is_debug: bool) -> None:
    settings.DEBUG = is_debug
    sizes = ("--users=1", "--sessions=0", "--events=0")

    if not is_debug:
        with pytest.raises(CommandError, match="DEBUG or --force"):
            run("seeddemo", *sizes)
        assert not User.objects.exists()
        run("seeddemo", *sizes, "--force")
    else:
        run("seeddemo", *sizes)

    assert User.objects.count() == 1
