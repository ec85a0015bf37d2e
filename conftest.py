"""Fixtures for users and their clients, and a check of all log lines for secrets."""

import logging
import logging.config
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Ticket, TicketError, User
from accounts.models.tickets import TOKEN_LENGTH, read_token

PASSWORD = "a sunny day in May"
API = "/api/v1"

SignIn = Callable[..., APIClient]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Empty a database that is used again: a run that was interrupted leaves rows."""
    with django_db_blocker.unblock():
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture(autouse=True)
def reset_rate_limits() -> None:
    """Reset all rate limits before each test."""
    cache.clear()


@pytest.fixture
def lifted_limits(settings: Settings) -> None:
    """Lift the limits that a test would meet because it has one address and one account."""
    settings.AUTH_RATE_LIMIT = settings.EMAIL_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)


def find_secrets(text: str) -> list[str]:
    """Return the tokens, hashes, passwords and configured secrets in a text."""
    secrets = [secret for values in settings.SECRETS.values() for secret in values if secret]
    exact = "|".join(re.escape(secret) for secret in [PASSWORD, *secrets])
    token, hashed = r"eyJ[\w-]{10,}\.[\w-]+", r"(?:bcrypt|pbkdf2)_sha256\$[^\s\"']+"
    # Of any prefix, and without it.
    api_token = r"[0-9a-f]{16}_[\w-]{43}(?:_[0-9a-f]{8})?"
    return re.findall(f"{exact}|{token}|{hashed}|{api_token}", text)


def find_tickets(text: str) -> list[str]:
    """Return the tokens of tickets in a text, which their signature tells from other words."""
    words = re.findall(rf"[\w-]{{{TOKEN_LENGTH},}}", text, re.ASCII)
    ends = {end for word in words for end in (word[:TOKEN_LENGTH], word[-TOKEN_LENGTH:])}
    return [end for end in ends if is_ticket(end)]


def is_ticket(word: str) -> bool:
    try:
        read_token(word, Ticket.Purpose.values)
    except TicketError:
        return False
    return True


class SecretsHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        formatter = settings.LOGGING["formatters"]["json"]
        self.setFormatter(logging.config.DictConfigurator({}).configure_formatter(dict(formatter)))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.found += find_secrets(text)
        # The development mailbox logs the link of each email.
        if not (settings.MAILBOX and record.name == "ops.mailbox"):
            self.found += find_tickets(text)


@pytest.fixture(autouse=True)
def no_secret_is_logged() -> Iterator[SecretsHandler]:
    """Fail each test that logs a secret, in the message, the fields or the traceback."""
    handler = SecretsHandler()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    assert not handler.found


@pytest.fixture
def client() -> APIClient:
    """An anonymous client that gets error responses instead of exceptions."""
    return APIClient(raise_request_exception=False)


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    def make(username: str = "alice", **fields: Any) -> User:
        fields = {"email": f"{username}@example.com", "password": PASSWORD, **fields}
        return User.objects.create_user(username, **fields)

    return make


@pytest.fixture
def user(make_user: Callable[..., User]) -> User:
    return make_user("alice")


@pytest.fixture
def boss(make_user: Callable[..., User]) -> User:
    return make_user("boss", is_staff=True, is_superuser=True)


@pytest.fixture
def console(boss: User) -> Client:
    """A browser in which a superuser has signed in to the console."""
    browser = Client(raise_request_exception=False)
    browser.force_login(boss)
    return browser


@pytest.fixture
def stranger(make_user: Callable[..., User]) -> User:
    return make_user("mallory")


@pytest.fixture
def sign_in() -> SignIn:
    """Log in through the API and return a client with the access token and `tokens`."""

    def login(user: User, password: str = PASSWORD, **extra: Any) -> APIClient:
        device = APIClient(raise_request_exception=False)
        body = {"identity": user.username, "password": password}
        response = device.post(f"{API}/auth/login", body, **extra)
        assert response.status_code == 200, response.content
        device.tokens = response.json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {device.tokens['access_token']}")
        return device

    return login
