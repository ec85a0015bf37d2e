"""The service with the example of a front end, a copy of it elsewhere, and windows of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now
from playwright.sync_api import Browser
from pytest_django import Settings

from accounts.models import User
from tests.rig.browser import PHONE, chromium, front_end
from tests.rig.clients import CLIENTS
from tests.rig.example import MODES, Window, watched
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT
from tests.rig.smtp import use_mailer


@pytest.fixture(scope="package")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A copy of the example on a host of its own: its directory and its origin."""
    directory = tmp_path_factory.mktemp("elsewhere") / "example"
    shutil.copytree(ROOT / "examples/browser", directory)
    shutil.copy(CLIENTS / "latchkey.js", directory)
    with front_end(directory, "localhost") as origin:
        yield directory, origin


@pytest.fixture(scope="package")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"filemail://{tmp_path_factory.mktemp('mail')}"


@pytest.fixture(scope="package")
def server(
    django_db_setup: None,
    tmp_path_factory: pytest.TempPathFactory,
    elsewhere: tuple[Path, str],
    mailbox: str,
) -> Iterator[Server]:
    directory, origin = elsewhere
    variables = {"DEBUG": "true", "EMAIL_URL": mailbox, "CORS_ALLOWED_ORIGINS": origin}
    variables |= {"AUTH_RATE_LIMIT": "1000/m", "REFRESH_COOKIE": "true"}
    with serve(tmp_path_factory.mktemp("example") / "log", **variables) as server:
        page = directory / "index.html"
        base = f"http://localhost:{server.port}/api/v1"
        page.write_text(page.read_text().replace('"/api/v1"', f'"{base}"'))
        yield server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def alice(alice: User) -> User:
    """A verified user."""
    User.objects.update(email_verified_at=Now())
    return alice


@pytest.fixture(params=MODES)
def window(
    browser: Browser, server: Server, alice: User, settings: Settings, mailbox: str, request: Any
) -> Iterator[Window]:
    use_mailer(settings, mailbox)
    settings.PUBLIC_URL = f"http://localhost:{server.port}"
    context = browser.new_context(viewport=PHONE, permissions=["clipboard-write"])
    with watched(context) as page:
        window = Window(page, settings.PUBLIC_URL, request.param)
        window.open()
        yield window
