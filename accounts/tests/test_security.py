"""What a user sees of the account's protection, and the ticket of a forced password change."""

from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import Ticket, User
from conftest import API, PASSWORD, SignIn


def test_it_shows_the_pending_address_until_the_ticket_ends(user: User, sign_in: SignIn) -> None:
    client = sign_in(user)
    ticket = Ticket.objects.issue(Ticket.Purpose.CHANGE, user, address="new@example.com")
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())

    body = client.get(f"{API}/users/me/security").json()
    changed_at = body.pop("password_changed_at")
    assert changed_at == user.password_changed_at.isoformat().replace("+00:00", "Z")
    assert body == {
        "email_verified": True, "pending_email": "new@example.com", "totp": False, "passkeys": 0,
        "recovery_codes_left": 0, "tokens": 0,
    }  # fmt: skip

    ticket.use()
    assert client.get(f"{API}/users/me/security").json()["pending_email"] is None


def test_it_needs_a_token(client: APIClient, db: None) -> None:
    assert client.get(f"{API}/users/me/security").status_code == 401


def test_a_login_that_must_change_the_password_gets_a_force_ticket(
    client: APIClient, user: User
) -> None:
    User.objects.filter(pk=user.pk).update(must_change_password=True)
    response = client.post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})

    assert (response.status_code, response.json()["code"]) == (403, "password_change_required")
    ticket = Ticket.objects.find(response.json()["reset_token"], Ticket.Purpose.FORCE)
    assert ticket.user == user


def test_a_wrong_password_gets_no_force_ticket(client: APIClient, user: User) -> None:
    User.objects.filter(pk=user.pk).update(must_change_password=True)
    response = client.post(f"{API}/auth/login", {"identity": "alice", "password": "wrong one"})

    assert response.status_code == 401
    assert not Ticket.objects.exists()
