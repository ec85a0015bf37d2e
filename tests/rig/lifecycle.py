"""The steps of an account's lifecycle, as a client and the owner of a mailbox take them."""

import re
from datetime import timedelta
from typing import Any

from django.core import mail
from django.core.mail import EmailMessage
from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.delivery import empty_outbox
from accounts.models import OutgoingEmail, User
from conftest import API

NEW_PASSWORD = "a rainy night in June"
TOKEN = re.compile(r"#token=([\w-]{43})")


def errors(response: Any) -> dict[str, str]:
    """Return the code of each field of a 400."""
    assert response.status_code == 400, response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


def stored(user: User) -> User:
    return User.objects.get(pk=user.pk)


def make_stale(user: User) -> None:
    """Let the last sign-in of each session be too old for a sensitive operation."""
    user.sessions.update(authenticated_at=Now() - timedelta(minutes=11))


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


def post(path: str, body: Any, **headers: str) -> Any:
    """Post to the API without a token."""
    return APIClient(raise_request_exception=False).post(f"{API}{path}", body, **headers)


def forgot(identity: str) -> None:
    assert post("/auth/password/forgot", {"identity": identity}).status_code == 202


def reset(token: str, password: str = NEW_PASSWORD) -> Any:
    return post("/auth/password/reset", {"token": token, "new_password": password})


def reset_by_email(identity: str, address: str) -> str:
    """Reset a password by email and return the token that was used."""
    forgot(identity)
    token = token_sent_to(address)
    assert reset(token).status_code == 204
    return token


def request_change(device: APIClient, address: str, *, stored: str = "") -> str:
    """Request a change of address and return the token sent to it, in its `stored` form."""
    assert device.post(f"{API}/users/me/email", {"email": address}).status_code == 202
    return token_sent_to(stored or address)


def verify(device: APIClient, token: str) -> Any:
    return device.post(f"{API}/users/me/email/verify", {"token": token})


def change_address(device: APIClient, address: str, *, stored: str = "") -> None:
    """Change the address of the user of a device, which is `stored` in another form."""
    response = verify(device, request_change(device, address, stored=stored))
    assert response.status_code == 200, response.content
