"""
The text of each email and the link in it.

`templates/accounts/email/KIND.txt` has an email's subject and text. A clone can override it, or add
`KIND.html` for an HTML part other than the same text.
"""

import contextlib
import re
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import Any

from django.conf import settings
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string, select_template

from accounts.devices import UNKNOWN
from accounts.models import Event, OutgoingEmail, Ticket

PAGES = {
    Ticket.Purpose.RESET: "reset-password",
    Ticket.Purpose.UNDO: "reset-password",
    Ticket.Purpose.VERIFY: "verify-email",
    Ticket.Purpose.CHANGE: "verify-email",
    Ticket.Purpose.REGISTER: "register",
    Ticket.Purpose.INVITE: "invite",
}
# A device's name comes from a User-Agent, so it may be a message to the recipient. An email names
# only devices of this form.
DEVICE = re.compile(r"[A-Za-z ]{2,30} on [A-Za-z ]{2,30}")


def open_mailer() -> BaseEmailBackend:
    """Return the mail backend of EMAIL_URL with its connection open; raises OSError."""
    mailers = getattr(mail, "mailers", None)  # Django 6.1
    mailer: BaseEmailBackend = mailers.default if mailers else mail.get_connection()
    try:
        mailer.open()
    except OSError:
        with contextlib.suppress(OSError):
            mailer.close()
        raise
    return mailer


def link_of(ticket: Ticket) -> str:
    """Return the link of an emailed ticket; its token is in the fragment, which no server gets."""
    base = settings.FRONTEND_URL or f"{settings.PUBLIC_URL}/account"
    return f"{base}/{PAGES[Ticket.Purpose(ticket.purpose)]}#token={ticket.token}"


def sender() -> tuple[str, str]:
    """Return the name that emails give the service, and the domain that they come from."""
    name, address = parseaddr(settings.DEFAULT_FROM_EMAIL)
    domain = address.rpartition("@")[2]
    return name or domain, domain


def build(email: OutgoingEmail) -> EmailMultiAlternatives:
    """Write an email; the same row gives the same link and the same Message-ID each time."""
    context = context_of(email)
    rendered = render_to_string(f"accounts/email/{email.kind}.txt", context)
    subject, _, text = rendered.strip().partition("\n")
    paragraphs = re.split(r"\n{2,}", text.strip())
    html = select_template([f"accounts/email/{email.kind}.html", "accounts/email/base.html"])
    message = EmailMultiAlternatives(
        subject.strip(),
        "\n\n".join(paragraphs) + "\n",
        settings.DEFAULT_FROM_EMAIL,
        [email.address],
        headers={
            "Auto-Submitted": "auto-generated",  # RFC 3834: nothing replies to it by itself.
            "Message-ID": f"<{email.pk}@{sender()[1]}>",
        },
    )
    page = html.render({**context, "subject": subject.strip(), "paragraphs": paragraphs})
    message.attach_alternative(page, "text/html")
    return message


def context_of(email: OutgoingEmail) -> dict[str, Any]:
    """
    Return the context of the templates.

    What a stranger chose (a username) goes to verified addresses only. From where staff did it is
    in no email.
    """
    ticket, event, user = email.ticket, email.event, email.user
    is_verified = not user or (user.email_verified and user.email == email.address)
    is_own = bool(event and event.is_own)
    return {
        "service": sender()[0],
        "address": email.address,
        "link": link_of(ticket) if ticket else "",
        "expires": utc(ticket.expires_at) if ticket else "",
        "username": event.username if event and is_verified else "",
        "when": utc(event.created_at if event else email.created_at),
        "device": device_of(event) if event and is_own else "",
        "ip_address": event.ip_address if event and is_own else "",
        "detail": event.detail if event else "",
    }


def device_of(event: Event) -> str:
    return event.device if DEVICE.fullmatch(event.device) else UNKNOWN


def utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
