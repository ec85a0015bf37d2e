"""What emails say: both parts, their link, their headers, and what a clone may override."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.template import engines
from pytest_django import Settings

from accounts.emails import build, link_of
from accounts.management.commands.previewmail import example
from accounts.models import OutgoingEmail, Ticket, User
from accounts.models.email_kinds import PURPOSES
from tests.rig.smtp import use_mailer

Kind = OutgoingEmail.Kind
LINK = re.compile(r"https?://[^\s<>\"]+")
NOTICES = [kind for kind in Kind if kind not in {*PURPOSES, Kind.ALREADY_REGISTERED}]


@pytest.fixture(autouse=True)
def links(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.FRONTEND_URL = "https://api.example.com", ""
    settings.DEFAULT_FROM_EMAIL = "Corner Shop <no-reply@shop.example>"


def parsed(email: OutgoingEmail) -> EmailMessage:
    content = build(email).message().as_bytes()
    return message_from_bytes(content, policy=policy.default)


def texts(message: EmailMessage) -> list[str]:
    return [message.get_body((kind,)).get_content() for kind in ("plain", "html")]


@pytest.mark.parametrize("kind", list(Kind))
class TestEveryKind:
    def test_it_has_two_parts_with_the_same_words_and_link(self, kind: str) -> None:
        email = example(kind)
        message = parsed(email)
        plain, html = texts(message)

        assert message.get_content_type() == "multipart/alternative"
        assert [part.get_content_type() for part in message.iter_parts()] == [
            "text/plain",
            "text/html",
        ]
        links = set(LINK.findall(plain))
        assert links == ({link_of(email.ticket)} if email.ticket else set())
        assert set(LINK.findall(html)) == links
        assert html.count("<a ") == len(links)
        words = re.sub(r"<title>.*</title>|<[^>]+>", " ", html).replace("&quot;", '"')
        assert words.split() == plain.split()

    def test_its_headers(self, kind: str) -> None:
        email = example(kind)
        message = parsed(email)

        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Message-ID"] == f"<{email.pk}@shop.example>"
        assert message["From"] == "Corner Shop <no-reply@shop.example>"
        assert message["To"] == "alice@example.com"
        assert 5 < len(message["Subject"]) < 60

    def test_it_loads_and_tells_nobody_anything(self, kind: str) -> None:
        html = texts(parsed(example(kind)))[1].lower()

        assert not re.search(r"<(img|script|link|style|iframe|form|object)|\bon\w+=|src=", html)


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_says_what_happened_when_and_where(kind: str, user: User) -> None:
    email = example(kind)
    email.event.created_at = datetime(2026, 5, 3, 14, 5, 59, tzinfo=UTC)
    plain = texts(parsed(email))[0]

    for fact in ("2026-05-03 14:05 UTC", "Firefox on Linux", "192.0.2.7", "alice@example.com"):
        assert fact in plain
    assert "If this was not you" in plain or "If you do not know it" in plain
    assert "Corner Shop" in plain


def test_a_notice_without_an_event_says_when(user: User) -> None:
    email = example(Kind.PASSWORD_CHANGED)
    email.event = None
    plain = texts(parsed(email))[0]

    assert f"{email.created_at:%Y-%m-%d %H:%M} UTC" in plain
    assert "Device" not in plain


@pytest.mark.parametrize(
    ("kind", "with_undo"), [(Kind.EMAIL_CHANGED, True), (Kind.EMAIL_CHANGED, False)]
)
def test_a_notice_without_an_undo_says_what_else_to_do(kind: str, with_undo: bool) -> None:
    email = example(kind)
    if not with_undo:
        email.ticket = None
    plain = texts(parsed(email))[0]

    assert ("undoes the change" in plain) == with_undo
    assert ("Forgot password" in plain) != with_undo


@pytest.mark.parametrize(
    ("purpose", "page"),
    [
        ("reset", "reset-password"),
        ("undo", "reset-password"),
        ("verify", "verify-email"),
        ("change", "verify-email"),
        ("register", "register"),
        ("invite", "invite"),
    ],
)
def test_links_lead_to_the_front_end_or_to_our_pages(
    settings: Settings, purpose: str, page: str
) -> None:
    ticket = Ticket(purpose=purpose)
    assert link_of(ticket) == f"https://api.example.com/account/{page}#token={ticket.token}"

    settings.FRONTEND_URL = "https://shop.example/de"
    assert link_of(ticket) == f"https://shop.example/de/{page}#token={ticket.token}"


@pytest.mark.parametrize(
    "device",
    [
        *("www.evil.example", "http://evil.example", "a\r\nBcc: b@example.com", "<b>bold</b>"),
        *("a@evil.example", "evil。example", "https:evil.example", "\u202eelpmaxe"),
    ],
)
def test_no_user_agent_becomes_a_link_a_tag_or_a_line(device: str) -> None:
    email = example(Kind.NEW_DEVICE)
    email.event.device = device
    plain, html = texts(parsed(email))

    line = next(line for line in plain.splitlines() if line.startswith("Device:"))
    assert not re.search(r"[.@:<>。\u202e]", line.removeprefix("Device:"))
    assert "<b>" not in html
    assert parsed(email)["Bcc"] is None


@pytest.mark.parametrize("text", ["a\r\nBcc: b@example.com", "a\nb"])
def test_no_address_becomes_a_header(text: str) -> None:
    email = example(Kind.RESET_PASSWORD)
    email.address = f"{text}@example.com"

    with pytest.raises(ValueError, match=r"[Hh]eader|newline|linefeed"):
        build(email).message()


def test_a_sender_without_a_name_is_called_by_its_domain(settings: Settings) -> None:
    settings.DEFAULT_FROM_EMAIL = "no-reply@shop.example"

    assert "at shop.example" in texts(parsed(example(Kind.RESET_PASSWORD)))[0]


def test_a_clone_overrides_a_text_and_an_html_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "accounts/email"
    directory.mkdir(parents=True)
    (directory / "reset_password.txt").write_text("Neues Passwort\n\nHier: {{ link }}")
    (directory / "reset_password.html").write_text("<h1>{{ subject }}</h1>{{ link }}")
    for loader in engines["django"].engine.template_loaders:
        loader.reset()
    monkeypatch.setattr(engines["django"].engine, "dirs", [tmp_path])
    try:
        message = parsed(example(Kind.RESET_PASSWORD))
    finally:
        for loader in engines["django"].engine.template_loaders:
            loader.reset()

    plain, html = texts(message)
    assert message["Subject"] == "Neues Passwort"
    assert plain.startswith("Hier: https://")
    assert html.startswith("<h1>Neues Passwort</h1>https://")


class TestPreview:
    def test_it_writes_every_kind_into_the_mailbox(
        self, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        use_mailer(settings, f"filemail://{tmp_path}/mail")
        call_command("previewmail")

        written = list((tmp_path / "mail").glob("*.eml"))
        assert len(written) == len(Kind)
        assert f"{len(Kind)} emails" in capsys.readouterr().out

    def test_it_sends_nothing_elsewhere(self, settings: Settings) -> None:
        use_mailer(settings, "consolemail://")

        with pytest.raises(CommandError, match="filemail"):
            call_command("previewmail")


def test_the_name_of_an_account_is_shown_only_if_the_event_has_it(
    make_user: Callable[..., User],
) -> None:
    """A stranger's username in an email to any address would be an advertisement."""
    user: Any = make_user("www.evil.example")
    for kind in PURPOSES:
        email = OutgoingEmail.objects.enqueue(kind, user, address=f"{kind}@example.com")
        email.refresh_from_db()
        assert "evil" not in "".join(texts(parsed(email)))
