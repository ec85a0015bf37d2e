"""The variables of email: how it is sent, and the base of the links in it."""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

import django
import environ

MAIL_BACKENDS = "django.core.mail.backends"
NO_MAILER: dict[str, Any] = {"BACKEND": f"{MAIL_BACKENDS}.dummy.EmailBackend", "OPTIONS": {}}
SMTP_PORTS = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}
# Seconds for each reply of a mail server. The four replies after a claim come before the lease of
# a minute ends, so that no second worker sends the same email.
SMTP_TIMEOUT = 12


def parse_link_base(value: str) -> str:
    """Read the base of links in emails; a slash at its end is dropped."""
    form = "https://host, optionally with a port and a path, and nothing after it"
    if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+(/[\w.~%/-]*)?", value, re.ASCII):
        raise ValueError(form)
    try:
        urlsplit(value).port  # noqa: B018 - reading a port that is no number raises.
    except ValueError as error:
        raise ValueError(form) from error
    return value.rstrip("/")


def parse_mailer(value: str) -> dict[str, Any]:
    """
    Read `EMAIL_URL` into the form of Django's `MAILERS`: a backend and its options.

    The message of the ValueError never contains the value, which has a password.
    """
    scheme = value.partition("://")[0]
    if value == "none":
        return NO_MAILER
    if value == "consolemail://":
        return {"BACKEND": f"{MAIL_BACKENDS}.console.EmailBackend", "OPTIONS": {}}
    if scheme == "filemail" and re.match(r"filemail:///[^/]", value):
        return file_mailer(unquote(value.removeprefix("filemail://")))
    if scheme in SMTP_PORTS:
        return parse_smtp(value, scheme)
    raise ValueError(
        "smtp+tls://user:password@host:587, smtp+ssl://…, smtp://…, filemail:///path, "
        "consolemail:// or none"
    )


def file_mailer(path: str) -> dict[str, Any]:
    return {"BACKEND": "ops.mailbox.FileBackend", "OPTIONS": {"file_path": path}}


def parse_smtp(value: str, scheme: str) -> dict[str, Any]:
    form = f"{scheme}://user:password@host:port, with special characters percent-encoded"
    try:
        parsed = environ.Env.email_url_config(value)
    except ValueError as error:
        raise ValueError(form) from error
    if not parsed["EMAIL_HOST"] or parsed["EMAIL_FILE_PATH"] or "OPTIONS" in parsed:
        raise ValueError(form)
    return {
        "BACKEND": f"{MAIL_BACKENDS}.smtp.EmailBackend",
        "OPTIONS": {
            "host": parsed["EMAIL_HOST"],
            "port": parsed["EMAIL_PORT"] or SMTP_PORTS[scheme],
            "username": parsed["EMAIL_HOST_USER"] or "",
            "password": parsed["EMAIL_HOST_PASSWORD"] or "",
            "use_tls": scheme == "smtp+tls",
            "use_ssl": scheme == "smtp+ssl",
            "timeout": SMTP_TIMEOUT,
        },
    }


def django_settings(mailer: dict[str, Any]) -> dict[str, Any]:
    """Return Django's settings for a mailer: `MAILERS` for 6.1, which rejects those of 5.2."""
    backend, options = (mailer or NO_MAILER).values()
    if django.VERSION >= (6, 1):  # pragma: no cover - `make matrix` runs it.
        return {"MAILERS": {"default": mailer or NO_MAILER}}
    return {
        "EMAIL_BACKEND": backend,
        "EMAIL_FILE_PATH": options.get("file_path"),
        "EMAIL_HOST": options.get("host", "localhost"),
        "EMAIL_PORT": options.get("port", 25),
        "EMAIL_HOST_USER": options.get("username", ""),
        "EMAIL_HOST_PASSWORD": options.get("password", ""),
        "EMAIL_USE_TLS": options.get("use_tls", False),
        "EMAIL_USE_SSL": options.get("use_ssl", False),
        "EMAIL_TIMEOUT": options.get("timeout"),
    }
