"""Startup rules for email: how it is sent, from whom, and where its links lead."""

import ipaddress
from email.utils import parseaddr
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator

from config.mailers import NO_MAILER
from config.rules import error

DEVELOPMENT_MAILERS = {
    "ops.mailbox.FileBackend",
    "django.core.mail.backends.console.EmailBackend",
}


def check_mailer(**kwargs: Any) -> list[CheckMessage]:
    """Reject a production service whose emails go nowhere, or over the network in clear text."""
    if settings.DEBUG or "EMAIL_URL" in settings.FAULTY_VARIABLES:
        return []
    if not settings.MAILER:
        return [error("config.E020")]
    if settings.MAILER["BACKEND"] in DEVELOPMENT_MAILERS:
        return [error("config.E021")]
    options = settings.MAILER["OPTIONS"]
    if options.get("use_tls") or options.get("use_ssl") or is_loopback(options.get("host")):
        return []
    return [error("config.E023")]


def is_loopback(host: str | None) -> bool:
    """Tell whether mail to this host stays on the machine; with email disabled there is none."""
    if host in {None, "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def is_disabled() -> bool:
    """Tell whether EMAIL_URL is `none`; where it is missing or faulty, email is wanted."""
    return bool(settings.MAILER == NO_MAILER)


def check_link_base(**kwargs: Any) -> list[CheckMessage]:
    """Reject emails without a place to link to: it is never taken from a request's Host."""
    bases = {"PUBLIC_URL", "FRONTEND_URL"}
    if settings.DEBUG or is_disabled() or bases & settings.FAULTY_VARIABLES:
        return []
    return [] if settings.PUBLIC_URL or settings.FRONTEND_URL else [error("config.E022")]


def check_link_scheme(**kwargs: Any) -> list[CheckMessage]:
    return [
        error("config.E024", name=name)
        for name in ("PUBLIC_URL", "FRONTEND_URL")
        if not settings.DEBUG and getattr(settings, name).startswith("http://")
    ]


def check_sender(**kwargs: Any) -> list[CheckMessage]:
    sender = settings.DEFAULT_FROM_EMAIL
    is_unused = is_disabled() and not sender
    if is_unused or is_sender(sender) or "DEFAULT_FROM_EMAIL" in settings.FAULTY_VARIABLES:
        return []
    return [error("config.E025")]


def is_sender(text: str) -> bool:
    """Tell whether a text is one address, as `a@b.example` or as `Name <a@b.example>`."""
    _, address = parseaddr(text)
    try:
        EmailValidator(allowlist=["localhost"])(address)
    except ValidationError:
        return False
    return text == address or text.endswith(f"<{address}>")


def check_registration(**kwargs: Any) -> list[CheckMessage]:
    """Reject a service where nobody can register, because no address can be verified."""
    if settings.REGISTRATION != "verified" or settings.MAILER != NO_MAILER:
        return []
    return [error("config.E026")]


CHECKS = (check_mailer, check_link_base, check_link_scheme, check_sender, check_registration)
