"""The doctor against a running service, its worker and its mail server."""

import re
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from accounts.models import OutgoingEmail, User
from health.views import CheckError
from ops import service_checks
from ops.service_checks import Service, SkippedError, problem_in
from tests.rig.gunicorn import Server, serve
from tests.rig.smtp import MailServer, use_mailer, worker

SESSION = ["readiness", "register", "log in", "client address", "refresh", "refresh by cookie"]
SESSION += ["replay", "end"]
EMAILS = ["verify address", "forgot password", "reset password", "change address"]
EMAILS += ["second factor", "undo"]


@pytest.fixture(autouse=True)
def development(settings: Settings) -> None:
    settings.DEBUG = True


@pytest.fixture(params=["open", "verified"])
def registration(request: pytest.FixtureRequest, settings: Settings) -> str:
    settings.REGISTRATION = request.param
    return str(request.param)


@pytest.fixture
def variables(registration: str, settings: Settings, tmp_path: Path) -> dict[str, str]:
    settings.REFRESH_COOKIE = registration == "open"
    return {
        "EMAIL_URL": f"filemail://{tmp_path}/mail",
        "REGISTRATION": registration,
        "REFRESH_COOKIE": str(settings.REFRESH_COOKIE),
    }


@pytest.fixture
def server(
    transactional_db: None, settings: Settings, variables: dict[str, str], tmp_path: Path
) -> Iterator[Server]:
    """A service and its development mailbox, which the doctor can read."""
    use_mailer(settings, variables["EMAIL_URL"])
    with serve(tmp_path / "log", **variables) as server:
        yield server


def examine(server: Server, *options: str) -> tuple[list[tuple[str, str]], str]:
    """Return the result of each step of the service, and the output."""
    output = StringIO()
    try:
        call_command("doctor", "--url", server_url(server), *options, stdout=output)
    except CommandError as error:
        output.write(str(error))
    text = output.getvalue()
    return re.findall(r"^  (ok|failed|skipped) +([\w ]+):", text, re.MULTILINE)[6:], text


def server_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/"


def test_it_checks_a_session_and_every_emailed_link(
    server: Server, variables: dict[str, str], tmp_path: Path
) -> None:
    with worker(tmp_path / "worker", **variables):
        steps, text = examine(server)

    assert "Traceback" not in (tmp_path / "worker").read_text()
    assert steps == [("ok", step) for step in [*SESSION, *EMAILS, "clean up"]], text
    assert text.endswith("All checks passed.\n")
    assert not User.objects.exists()
    kinds = set(OutgoingEmail.objects.values_list("kind", flat=True))
    assert "account_deleted" in kinds


@pytest.mark.parametrize("registration", ["open"], indirect=True)
class TestOpenRegistration:
    def test_without_the_mailbox_the_emails_are_skipped(
        self, server: Server, settings: Settings
    ) -> None:
        settings.MAILBOX = None

        steps, text = examine(server)

        assert steps == [
            *(("ok", step) for step in SESSION), ("skipped", "verify address"), ("ok", "clean up"),
        ]  # fmt: skip
        assert "it needs the emailed link" in text
        assert text.endswith("All checks passed; 1 skipped.\n")
        assert not User.objects.exists()

    def test_without_a_worker_it_says_so(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service_checks, "DELIVERY", 1)

        steps, text = examine(server)

        assert steps[-2:] == [("failed", "verify address"), ("ok", "clean up")]
        assert "does manage.py mailworker run?" in text
        assert not User.objects.exists()

    def test_it_deletes_its_user_also_when_a_step_fails(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Service) -> str:
            raise CheckError("no")

        monkeypatch.setattr(Service, "refresh", fail)

        steps, text = examine(server)

        assert steps[-2:] == [("failed", "refresh"), ("ok", "clean up")]
        assert "failed  refresh: no" in text
        assert not User.objects.exists()


@pytest.mark.parametrize("registration", ["open"], indirect=True)
def test_a_rejected_refresh_by_cookie_names_the_variables(server: Server) -> None:
    service = Service(server_url(server).rstrip("/"))
    service.pair = {"refresh_token": "x"}

    with pytest.raises(CheckError, match="returned 401 instead of 200; check TRUSTED_PROXY_COUNT"):
        service.refresh_by_cookie()

    assert service.headers == {}


@pytest.mark.parametrize("registration", ["verified"], indirect=True)
def test_a_registration_that_needs_the_mailbox_is_skipped(
    server: Server, settings: Settings
) -> None:
    settings.MAILBOX = None

    steps, _ = examine(server)

    assert steps == [("ok", "readiness"), ("skipped", "register"), ("ok", "clean up")]


@pytest.mark.parametrize("registration", ["open"], indirect=True)
def test_the_doctor_names_the_variable_if_a_service_rejects_its_host(
    server: Server, settings: Settings
) -> None:
    settings.DEBUG, settings.ALLOWED_HOSTS = False, ["api.example.com"]
    user = {"username": "a", "email": "a", "password": "a"}

    for host, reason in {
        "": "returned 400 instead of 201: ALLOWED_HOSTS does not contain 127.0.0.1; use --host",
        "b.example.com:3000": "ALLOWED_HOSTS does not contain b.example.com:3000",
        "api.example.com": "returned 400 instead of 201$",
    }.items():
        with pytest.raises(CheckError, match=reason):
            Service(server_url(server).rstrip("/"), host).call("POST", "/users", user, expect=201)


@pytest.mark.django_db(transaction=True)
def test_an_unreachable_service_fails() -> None:
    with pytest.raises(CommandError, match="1 check"):
        call_command("doctor", "--url", "http://127.0.0.1:1", stdout=StringIO())


@pytest.mark.parametrize("registration", ["open"], indirect=True)
def test_it_deletes_its_user_who_has_a_factor(
    server: Server, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in = Service.log_in

    def fail(self: Service, code: str = "") -> str:
        if code:
            self.bearer = ""
            raise CheckError("no")
        return log_in(self)

    monkeypatch.setattr(Service, "log_in", fail)
    with worker(tmp_path / "worker", **variables):
        steps, _ = examine(server)

    assert steps[-2:] == [("failed", "second factor"), ("ok", "clean up")]
    assert not User.objects.exists()


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"[" * 100_000])
def test_a_page_of_a_proxy_is_no_problem_document(body: bytes) -> None:
    assert problem_in(body) == {}


def test_unexpected_responses_fail_a_step(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    service = Service("https://api.example.com")
    service.pair = {"refresh_token": "same", "access_token": "x"}
    responses: dict[str, Any] = {
        "/health/ready": {"checks": {"cache": {"status": "degraded"}}},
        "/auth/sessions": {"results": [{"current": True, "ip_address": "10.0.0.1"}]},
        "/auth/refresh": {"refresh_token": "same", "access_token": "x"},
        "/users/me": {"email": service.email, "email_verified": False},
    }
    monkeypatch.setattr(Service, "call", lambda self, method, path, *a, **k: responses[path])

    for step, reason in (
        (service.check_readiness, "cache is degraded"),
        (service.check_address, "TRUSTED_PROXY_COUNT"),
        (service.refresh, "not rotated"),
        (lambda: service.check_email(service.email), "verified address"),
    ):
        with pytest.raises(CheckError, match=reason):
            step()
    settings.UNDO_LIFETIME = timedelta(0)
    with pytest.raises(SkippedError, match="UNDO_DAYS is 0"):
        service.undo()


def test_it_waits_for_limits_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    service, slept = Service("http://localhost"), []
    responses = iter([(429, {"Retry-After": "30"}, {}), (503, {"Retry-After": "2"}, {})] * 3)
    monkeypatch.setattr(Service, "send", lambda *args: next(responses))
    monkeypatch.setattr("time.sleep", slept.append)

    with pytest.raises(CheckError, match="returned 429"):
        service.call("GET", "/", expect=200)

    assert slept == [30, 2, 30, 2]


class TestMail:
    def send(self) -> str:
        output = StringIO()
        try:
            call_command("doctor", "--mail", "boss@example.com", stdout=output)
        except CommandError as error:
            output.write(str(error))
        return output.getvalue()

    def test_it_sends_an_email(self, db: None, settings: Settings) -> None:
        with MailServer() as mail:
            use_mailer(settings, mail.url)
            text = self.send()

        [message] = mail.received
        assert (message["To"], message["From"]) == ("boss@example.com", settings.DEFAULT_FROM_EMAIL)
        assert message["Auto-Submitted"] == "auto-generated"
        assert "ok      email: accepted for boss@example.com" in text

    def test_it_reports_what_the_mail_server_said(self, db: None, settings: Settings) -> None:
        with MailServer() as mail:
            mail.replies["boss@example.com"] = "550 5.7.1 no SPF record"
            use_mailer(settings, mail.url)
            text = self.send()

        assert "failed  email: 550 5.7.1 no SPF record" in text
        assert "1 check(s) failed" in text

    def test_a_mail_server_that_is_unavailable_fails(self, db: None, settings: Settings) -> None:
        use_mailer(settings, MailServer().url)

        assert "failed  email: [Errno 111] Connection refused" in self.send()

    def test_disabled_email_fails(self, db: None, settings: Settings) -> None:
        use_mailer(settings, "none")

        assert "failed  email: email is disabled" in self.send()
