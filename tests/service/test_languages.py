"""Texts in the language of the client (`USE_I18N`), with a catalogue of the test."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.core import mail
from django.test import Client
from django.utils import translation
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.delivery import empty_outbox
from accounts.models import OutgoingEmail, User
from api.views import schema
from conftest import API, PASSWORD, SignIn
from tests.rig.gunicorn import serve

pytestmark = pytest.mark.django_db
TEXTS = {
    "": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n",
    "The requested resource does not exist.": "Das gibt es nicht.",
    "The identity or the password is incorrect.": "Name oder Passwort sind falsch.",
    "%d field needs attention.\0%d fields need attention.": "%d Feld ist falsch.\0%d Felder.",
    "A user with this username already exists.": "Den Namen gibt es schon.",
    "At most %d combining marks in a row are allowed.": "Zu viele Zeichen: %d.",
    "This must be an integer of at least 1.": "Eine Zahl ab 1.",
    "This password contains no visible character.": "Nichts ist sichtbar.",
    "Reset your password": "Neues Passwort",
    "Send the selected emails again": "Noch einmal senden",
    "Choose a new password": "Ein neues Passwort",
}
GERMAN = {"headers": {"Accept-Language": "de-AT, en;q=0.5"}}


def write_catalogue(directory: Path, texts: Mapping[str, str]) -> None:
    """Write a .mo file as gettext's msgfmt does."""
    pairs = sorted((key.encode(), value.encode()) for key, value in texts.items())
    head, at = 28, 28 + 16 * len(pairs)
    tables, data = [b"", b""], b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += struct.pack("<II", len(pair[side]), at + len(data))
            data += pair[side] + b"\0"
    start = struct.pack("<7I", 0x950412DE, 0, len(pairs), head, head + 8 * len(pairs), 0, at)
    directory.mkdir(parents=True)
    (directory / "django.mo").write_bytes(start + tables[0] + tables[1] + data)


@pytest.fixture
def translated(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The settings of a project with USE_I18N and a German catalogue."""
    write_catalogue(tmp_path / "de/LC_MESSAGES", TEXTS)
    # As in a new process.
    monkeypatch.setattr(translation, "_trans", type(translation._trans)())
    settings.USE_I18N, settings.LOCALE_PATHS = True, [str(tmp_path)]
    where = settings.MIDDLEWARE.index("console.middleware.ConsoleMiddleware")
    locale = "django.middleware.locale.LocaleMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:where], locale, *settings.MIDDLEWARE[where:]]
    yield
    translation.deactivate()


@pytest.mark.usefixtures("translated")
class TestTranslated:
    def test_the_client_selects_the_language_of_detail(self, client: APIClient) -> None:
        german = client.get(f"{API}/users/0", **GERMAN)
        nothing = client.get("/api/nothing", **GERMAN)
        english = client.get("/api/nothing")

        assert german.json()["code"] == "not_authenticated"
        assert (nothing.json()["detail"], nothing.json()["code"]) == (
            "Das gibt es nicht.",
            "not_found",
        )
        assert nothing.json()["title"] == "Not Found"
        assert nothing.headers["Content-Language"] == "de"
        assert "Accept-Language" in nothing.headers["Vary"]
        assert english.json()["detail"] == "The requested resource does not exist."

    @pytest.mark.parametrize(
        ("fields", "detail"),
        [
            ({"username": "alice"}, "Den Namen gibt es schon."),
            ({"names": "a" + "\u0315" * 100}, "Zu viele Zeichen: 30."),
            ({"password": " " * 10}, "Nichts ist sichtbar."),
            ({"username": None}, "Dieses Feld darf nicht null sein."),
        ],
    )
    def test_field_errors(
        self, client: APIClient, user: User, fields: dict[str, Any], detail: str
    ) -> None:
        body = {"username": "bob", "email": "bob@example.com", "password": PASSWORD, **fields}

        problem = client.post(f"{API}/users", body, **GERMAN).json()

        assert problem["detail"] == "1 Feld ist falsch."
        assert [error["detail"] for error in problem["errors"]] == [detail]

    def test_errors_of_the_query(self, user: User, sign_in: SignIn) -> None:
        problem = sign_in(user).get(f"{API}/auth/sessions?page=0&limit=5", **GERMAN).json()

        assert problem["errors"][0]["detail"] == "Eine Zahl ab 1."

    def test_rejected_credentials(self, client: APIClient) -> None:
        body = {"identity": "nobody", "password": PASSWORD}

        problem = client.post(f"{API}/auth/login", body, **GERMAN).json()

        assert problem["detail"] == "Name oder Passwort sind falsch."

    def test_an_email_is_in_the_language_of_the_project(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        client.post(f"{API}/auth/password/forgot", {"identity": user.email}, **GERMAN)
        translation.deactivate()  # The worker is another process.
        settings.LANGUAGE_CODE = "de"

        empty_outbox()

        assert [message.subject for message in mail.outbox] == ["Neues Passwort"]

    def test_pages_and_the_console(self, client: APIClient, console: Client) -> None:
        OutgoingEmail.objects.create(kind="reset_password", address="alice@example.com")

        page = client.get("/account/reset-password", **GERMAN).content.decode()
        emails = console.get("/admin/accounts/outgoingemail/", **GERMAN).content.decode()

        assert '<html lang="de">' in page
        assert "Ein neues Passwort" in page
        assert "Noch einmal senden" in emails

    def test_the_schema_is_in_the_language_of_the_project(self, client: APIClient) -> None:
        schema.cache_clear()

        document = client.get(f"{API}/schema", **GERMAN).content.decode()

        schema.cache_clear()
        assert "Das gibt es nicht." not in document


def test_without_the_setting_the_language_is_english(client: APIClient) -> None:
    response = client.get("/api/nothing", **GERMAN)

    assert response.json()["detail"] == "The requested resource does not exist."
    assert "Content-Language" not in response.headers
    assert "Accept-Language" not in response.headers.get("Vary", "")
    assert not project.USE_I18N


@pytest.mark.heavy
def test_the_variable_starts_a_service_with_languages(
    django_db_setup: None, tmp_path: Path
) -> None:
    with serve(tmp_path / "log", USE_I18N="true") as server:
        kind = {"Content-Type": "application/json", "Accept-Language": "de"}
        _, body = server.request("POST", f"{API}/auth/login", b"{}", **kind)

    assert "Dieses Feld ist zwingend erforderlich." in body.decode()
