"""
The development mailbox: emails as `.eml` files, and pages at /mail that show them.

The pages exist with DEBUG and `filemail` only: an email holds links that open accounts.
"""

import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage as DjangoMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views import View

from api.policies import PAGE_POLICY

logger = logging.getLogger(__name__)

SHOWN = 200
LINK = re.compile(r"https?://\S+")
# The HTML part of an email is shown without script, style, remote content or an origin.
SANDBOX_POLICY = "sandbox; default-src 'none'"


class FileBackend(BaseEmailBackend):
    """Write each email to a file of its own; in development also log its first link."""

    def __init__(self, *, file_path: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        # Django 5.2 passes no options, Django 6.1 those of MAILERS.
        self.directory = Path(file_path or settings.MAILER["OPTIONS"]["file_path"])

    def send_messages(self, email_messages: Sequence[DjangoMessage]) -> int:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:8]}"
            unfinished = self.directory / f"{name}.tmp"
            unfinished.write_bytes(message.message().as_bytes())
            unfinished.rename(unfinished.with_suffix(".eml"))
            if settings.MAILBOX:
                log_link(message)
        return len(email_messages)


def log_link(message: DjangoMessage) -> None:
    link = LINK.search(str(message.body))
    fields = ", ".join(message.to), message.subject, link[0] if link else "no link"
    logger.info("Email to %s: %s (%s)", *fields)


class MailboxView(View):
    """The list of emails, newest first."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not (settings.DEBUG and settings.MAILBOX):
            raise Http404
        response = super().dispatch(request, *args, **kwargs)
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    def get(self, request: HttpRequest) -> HttpResponse:
        emails = [(path.stem, read(path)) for path in files()[:SHOWN]]
        return render(request, "ops/mailbox.html", {"emails": emails})


class MailView(MailboxView):
    """One email: its headers and its text part."""

    def get(self, request: HttpRequest, name: str) -> HttpResponse:  # type: ignore[override]
        return render(request, "ops/mail.html", {"name": name, "email": find(name)})


class MailHTMLView(MailboxView):
    """The HTML part of an email, in a sandbox."""

    def get(self, request: HttpRequest, name: str) -> HttpResponse:  # type: ignore[override]
        policy = {"Content-Security-Policy": SANDBOX_POLICY}
        return HttpResponse(find(name).html, headers=policy)


@dataclass
class Mail:
    """An email as its pages show it."""

    headers: list[tuple[str, str]]
    text: str
    html: str = ""

    @property
    def header(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers}


def files() -> list[Path]:
    paths = sorted(Path(settings.MAILBOX or "").glob("*.eml"), reverse=True)
    return [path for path in paths if path.is_file()]


def read(path: Path) -> Mail:
    """Return an email; one that cannot be parsed is shown as its source."""
    source = path.read_bytes()
    try:
        email = message_from_bytes(source, policy=policy.default)
        headers = [(name, printable(value)) for name, value in email.items()]
        return Mail(headers, part(email, "plain"), part(email, "html"))
    except Exception:  # noqa: BLE001 - the parser raises errors of many kinds for odd headers.
        return Mail([("Subject", path.stem)], source.decode(errors="replace"))


def find(name: str) -> Mail:
    """Return an email by its name in the list; a name from the URL never becomes a path."""
    for path in files():
        if path.stem == name:
            return read(path)
    raise Http404


def part(email: EmailMessage, kind: str) -> str:
    body = email.get_body((kind,))
    # A part without headers is false.
    return "" if body is None else printable(body.get_content())


def printable(text: object) -> str:
    """Return a text that can be encoded: bytes that are no text become lone surrogates."""
    return str(text).encode(errors="replace").decode()
