"""The content of log lines. conftest.py checks all lines for secrets."""

import json
import logging

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from accounts.models import Session, Ticket, User
from conftest import API, PASSWORD, SecretsHandler, SignIn, find_secrets, find_tickets
from ops.logs import RequestIdFilter
from tests.rig.api_tokens import issue_token, using


def request_line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    return [record for record in caplog.records if record.name == "ops.requests"][-1]


def test_a_request_is_one_line_that_names_route_caller_and_session(
    user: User, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    device = sign_in(user)
    caplog.clear()

    device.get(f"{API}/users/123456?page=7", REMOTE_ADDR="192.0.2.7")

    line = request_line(caplog)
    assert (line.method, line.route) == ("GET", "/api/v1/users/<int:pk>")
    assert (line.status, line.user_id, line.address) == (404, user.pk, "192.0.2.7")
    assert line.session_id == Session.objects.get().pk
    assert line.duration_ms > 0
    assert "123456" not in line.getMessage()


@pytest.mark.parametrize(("path", "status"), [("/users/me", 200), ("/auth/events", 403)])
def test_a_request_with_an_api_token_names_its_user_and_its_id(
    user: User, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    token = issue_token(user)

    using(token).get(f"{API}{path}")

    line = request_line(caplog)
    assert (line.status, line.user_id, line.api_token_id) == (status, user.pk, token.pk)
    assert line.session_id is None
    assert str(token.text)[20:] not in str(vars(line))


def test_login_and_refresh_are_the_sessions_requests(
    user: User, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    device = sign_in(user)
    session = Session.objects.get()
    assert request_line(caplog).session_id == session.pk

    device.post(f"{API}/auth/refresh", {"refresh_token": device.tokens["refresh_token"]})

    line = request_line(caplog)
    assert (line.session_id, line.user_id) == (session.pk, user.pk)


def test_a_request_to_the_console_names_who_is_signed_in(
    user: User, caplog: pytest.LogCaptureFixture, client: object
) -> None:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)

    client.get("/admin/")

    assert request_line(caplog).user_id == user.pk


def test_an_event_is_a_line_with_the_requests_id(
    user: User,
    sign_in: SignIn,
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: object,
) -> None:
    caplog.handler.addFilter(RequestIdFilter())
    with django_capture_on_commit_callbacks(execute=True):
        sign_in(user, HTTP_X_REQUEST_ID="find-me")

    [line] = [r for r in caplog.records if getattr(r, "event", "") == "signed_in"]
    assert (line.user_id, line.session_id) == (user.pk, Session.objects.get().pk)
    assert line.request_id == "find-me"


def test_lines_are_json(capsys: object, no_secret_is_logged: SecretsHandler) -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "route": "/x", "request_id": "1"})

    line = json.loads(no_secret_is_logged.format(record))

    assert (line["message"], line["route"], line["request_id"]) == ("a\nb", "/x", "1")


@pytest.mark.django_db
class TestTheWatch:
    def test_it_detects_secrets(self, user: User, sign_in: SignIn, settings: object) -> None:
        pair, token = sign_in(user).tokens, issue_token(user)
        for secret in (
            PASSWORD,
            pair["access_token"],
            pair["refresh_token"],
            token.text,
            f"shop_{str(token.text).partition('_')[2]}",
            PBKDF2PasswordHasher().encode(PASSWORD, "salt", 1),
            settings.SECRETS["ACCESS_TOKEN_SECRET"][0],
        ):
            assert find_secrets(f"something {secret} something")

    def test_a_leaked_api_token_is_found(
        self, user: User, no_secret_is_logged: SecretsHandler
    ) -> None:
        token = issue_token(user)
        logging.getLogger("anything").error("rejected", extra={"header": f"Bearer {token.text}"})

        [found] = no_secret_is_logged.found
        assert str(token.text).endswith(found)
        no_secret_is_logged.found.clear()

    def test_it_checks_fields_and_tracebacks(self, no_secret_is_logged: SecretsHandler) -> None:
        logger = logging.getLogger("anything")
        logger.error("a message", extra={"body": {"password": PASSWORD}})
        logger.error("an error", exc_info=ValueError(PASSWORD))

        assert no_secret_is_logged.found == [PASSWORD, PASSWORD]
        no_secret_is_logged.found.clear()

    @pytest.mark.parametrize("purpose", Ticket.Purpose.values)
    def test_it_detects_tickets(self, user: User, purpose: str) -> None:
        token = Ticket.objects.issue(purpose, user, address=user.email).token
        other = "x" + token[1:] if token[0] != "x" else "y" + token[1:]

        for text in (token, f"#token={token}", f"%3D{token}&a=b", f'{{"token": "{token}"}}'):
            assert find_tickets(f"GET /account/{text} 200") == [token]
        assert find_tickets(f"{other} {token[:-1]} {'a' * 43} {user.pk}") == []

    def test_only_the_development_mailbox_logs_tickets(
        self, user: User, no_secret_is_logged: SecretsHandler, settings: object
    ) -> None:
        token = Ticket.objects.issue("reset", user, address=user.email).token
        settings.MAILBOX = "mail"
        logging.getLogger("ops.mailbox").warning("Email: %s", token)
        assert no_secret_is_logged.found == []

        logging.getLogger("accounts.delivery").warning("Email: %s", token)
        settings.MAILBOX = None
        logging.getLogger("ops.mailbox").warning("Email: %s", token)

        assert no_secret_is_logged.found == [token, token]
        no_secret_is_logged.found.clear()
