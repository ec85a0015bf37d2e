"""
Identities: usernames and e-mail addresses, each in one canonical form.

Every stored identity is ASCII, held by constraints of the database. Only the database lower-cases:
Python and PostgreSQL do it differently outside ASCII (U+0130, U+017F, U+212A), and an address that
differs from the stored one must never sign in.
"""

import contextlib
import re
from typing import Any

import idna
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, validate_email
from django.db import models
from django.utils.translation import gettext_lazy as _

from api.text import RAW_LENGTH_FACTOR, check_raw_length, is_invisible

LONGEST_EMAIL = 254
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LOCAL_PART = re.compile(rf"{ATOM}(?:\.{ATOM})*")  # RFC 5322, dot-atom
# Mail programs decode an encoded word (RFC 2047), so the email would go to another mailbox.
ENCODED_WORD = "=?"
# Email to these would stay on the mail server's own machine or network.
NO_MAIL_DOMAIN = re.compile(r"\[.*|(.*\.)?(localhost|[0-9]+)")
# Printable ASCII without the backslash, which `lookup_form` reserves.
STORED_EMAIL = r"^[!-\[\]-~]+@[!-\[\]-~]+$"
STORED_USERNAME = r"^[A-Za-z0-9_.-]+$"

username_validator = RegexValidator(
    r"^[A-Za-z0-9_.-]+\Z", _("Only ASCII letters, digits, '_', '.' and '-' are allowed.")
)


def canonical_email(text: str) -> str:
    """
    Return an e-mail address as it is stored: trimmed, its domain in IDNA's ASCII form.

    The local part stays as sent and has to be ASCII: NFKC would turn other addresses into it.
    Raises ValidationError.
    """
    check_raw_length(text, LONGEST_EMAIL)
    local, _, domain = text.strip(" \t\r\n").rpartition("@")
    is_valid = LOCAL_PART.fullmatch(local) and ENCODED_WORD not in local
    try:
        address = f"{local}@{mail_domain(domain)}" if is_valid else ""
    except UnicodeError:
        address = ""
    validate_email(address)
    return address


def mail_domain(text: str) -> str:
    """Return a domain in ASCII; raises UnicodeError, also for localhost and an IP address."""
    domain = ascii_domain(text)
    if NO_MAIL_DOMAIN.fullmatch(domain):
        raise UnicodeError("no domain of email")
    return domain


def ascii_domain(domain: str) -> str:
    """Return a domain in lower-case ASCII (UTS 46, non-transitional); raises UnicodeError."""
    if domain.isascii() and "xn--" not in domain.lower():
        return domain.lower()
    # UTS 46 drops invisible characters, so that different texts would be one address.
    if any(map(is_invisible, domain)):
        raise UnicodeError("invisible characters")
    return idna.encode(domain, uts46=True, std3_rules=True).decode()


def lookup_form(identity: str) -> str:
    """
    Return the form in which an identity is looked up, in any letter case.

    What could not be stored is escaped, so that the lower-casing of the database can not turn it
    into a stored identity: those contain no backslash.
    """
    if len(identity) > RAW_LENGTH_FACTOR * LONGEST_EMAIL:
        return ""
    form = identity.strip()
    if "@" in form:
        with contextlib.suppress(ValidationError):
            form = canonical_email(form)
    return form.encode("unicode_escape").decode()


class EmailAddressField(models.EmailField):  # type: ignore[type-arg]  # generic for mypy alone
    """A model field for an e-mail address in its canonical form."""

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        text = canonical_email(value) if isinstance(value, str) else value
        return super().clean(text, model_instance)
