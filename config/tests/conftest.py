from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from config.tests import samples


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
def sample(db: None, settings: Settings) -> samples.Sample:
    """A row of a clone's own model, in a console that lists it."""
    settings.ROOT_URLCONF = samples.install()
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    row = samples.Sample(title="Lamp", data={"a": [1, None]}, at=at, secret="key")
    row.save()
    return row
