"""The emails of a test, as the worker delivers them to their recipients."""

import re

from django.core import mail
from django.core.mail import EmailMessage
from rest_framework.test import APIClient

from accounts.delivery import empty_outbox
from accounts.models import OutgoingEmail
from conftest import API

TOKEN = re.compile(r"#token=([\w-]{43})")


def inbox(address: str) -> list[EmailMessage]:
    """Deliver all emails and return those to this address, the oldest first."""
    empty_outbox()
    return [message for message in mail.outbox if message.to == [address]]


def token_sent_to(address: str) -> str:
    """Return the token of the newest email to this address that has a link."""
    tokens = [found[1] for m in inbox(address) if (found := TOKEN.search(str(m.body)))]
    return tokens[-1]


def delivered() -> list[tuple[str, str]]:
    """Deliver all emails and return the kind and the address of each, sorted."""
    empty_outbox()
    return sorted(OutgoingEmail.objects.values_list("kind", "address"))


def change_address(device: APIClient, address: str, *, stored: str = "") -> None:
    """Change the address of the user of a device, which is `stored` in another form."""
    assert device.post(f"{API}/users/me/email", {"email": address}).status_code == 202
    token = token_sent_to(stored or address)
    response = device.post(f"{API}/users/me/email/verify", {"token": token})
    assert response.status_code == 200, response.content
