import re
from io import StringIO

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from accounts.demo import PASSWORD
from accounts.models import Event, Session, User
from conftest import SignIn
from ops.management.commands import doctor
from tests.rig.factors import enrol


def run(*command: str) -> str:
    output = StringIO()
    call_command(*command, stdout=output)
    return output.getvalue()


def test_seeddemo_adds_the_requested_number(db: None, settings: Settings, sign_in: SignIn) -> None:
    settings.DEBUG = True
    options = ("--users", "3", "--sessions", "20", "--events", "30")

    run("seeddemo", *options)
    run("seeddemo", *options)

    assert (User.objects.count(), Session.objects.count(), Event.objects.count()) == (3, 40, 60)
    assert 0 < Session.objects.active().count() < 40
    sign_in(User.objects.get(username="demo2"), PASSWORD)


def test_seeddemo_needs_an_owner_for_what_it_adds(db: None) -> None:
    with pytest.raises(CommandError, match="--users"):
        run("seeddemo", "--users", "0", "--force")


class TestDoctor:
    @pytest.fixture(autouse=True)
    def development(self, settings: Settings) -> None:
        """Make the configuration of the tests valid."""
        settings.DEBUG = True

    def test_a_healthy_machine(self, db: None) -> None:
        output = run("doctor")

        assert output.count("  ok      ") == 6
        assert output.endswith("All checks passed.\n")

    def test_secrets_of_apps_under_a_former_secret_are_counted(
        self, user: User, settings: Settings
    ) -> None:
        enrol(user)
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "n" * 64

        assert "1 secret(s) under a former SECRET; run manage.py rotatefactors" in run("doctor")

    def test_an_invalid_configuration_skips_the_other_checks(self, settings: Settings) -> None:
        settings.SECRETS = {**settings.SECRETS, "SECRET": ["weak"]}

        with pytest.raises(CommandError, match="1 check"):
            run("doctor")

    def test_a_failed_check_does_not_skip_the_others(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE app = 'auth'")
        monkeypatch.setattr(cache, "get", lambda key: None)
        future = timezone.now() + timezone.timedelta(minutes=1)
        monkeypatch.setattr(doctor, "datetime", type("D", (), {"now": lambda tz: future}))
        output = StringIO()

        with pytest.raises(CommandError, match="3 check"):
            call_command("doctor", stdout=output)

        failed = re.findall(r"failed  (\w+): (.*)", output.getvalue())
        assert [name for name, _ in failed] == ["migrations", "cache", "clock"]

    def test_more_threads_than_connections_are_reported(self, db: None, settings: Settings) -> None:
        settings.WEB_THREADS = 1000
        output = StringIO()

        with pytest.raises(CommandError):
            call_command("doctor", stdout=output)

        assert re.findall(r"failed  database: .* 1001 = ", output.getvalue())

    def test_a_database_without_case_folding_is_reported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Cursor:
            def __enter__(self) -> "Cursor":
                return self

            def __exit__(self, *args: object) -> None:
                pass

            def execute(self, statement: str) -> None:
                pass

            def fetchone(self) -> tuple[str, bool, bool]:
                return "18", False, True

        monkeypatch.setattr(doctor.connection, "cursor", Cursor)

        with pytest.raises(doctor.CheckError, match="locale"):
            doctor.check_database()
