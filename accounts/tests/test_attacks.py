"""Attacks on an account, each named after what the attacker has."""

import base64
import hashlib
import hmac
import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import OutgoingEmail, Ticket, TicketError, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    change_address,
    errors,
    forgot,
    inbox,
    make_stale,
    post,
    request_change,
    reset,
    reset_by_email,
    stored,
    token_sent_to,
    verify,
)

pytestmark = pytest.mark.usefixtures("lifted_limits")
OWNERS, THIEFS = "alice@example.com", "thief@example.com"


def test_a_stolen_access_token_cannot_take_the_account(user: User, sign_in: SignIn) -> None:
    device = sign_in(user)
    make_stale(user)
    pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
    thief = APIClient(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")

    change = thief.post(f"{API}/users/me/email", {"email": THIEFS})
    deletion = thief.delete(f"{API}/users/{user.pk}")
    update = thief.patch(f"{API}/users/{user.pk}", {"email": THIEFS})
    guesses = [
        thief.post(f"{API}/auth/password", {"current_password": g, "new_password": NEW_PASSWORD})
        for g in ("", "wrong", NEW_PASSWORD)
    ]
    guesses.append(thief.post(f"{API}/auth/reauthenticate", {"password": "wrong"}))
    # What the thief can cause goes to the owner's mailbox.
    forgot("alice")
    thief.post(f"{API}/users/me/email/verification")

    assert {r.json()["code"] for r in (change, deletion)} == {"reauthentication_required"}
    assert errors(update) == {"email": "use_email_change"}
    assert {response.status_code for response in guesses} == {400}
    assert {email.address for email in OutgoingEmail.objects.exclude(address="")} == {OWNERS}
    assert not inbox(THIEFS)
    assert (stored(user).email, stored(user).password) == (user.email, user.password)


def test_a_stolen_fresh_access_token_is_undone(user: User, sign_in: SignIn) -> None:
    thief = sign_in(user)
    change_address(thief, THIEFS)
    reset_by_email(THIEFS, THIEFS)

    assert reset(token_sent_to(OWNERS), "the owner's own one").status_code == 204

    assert stored(user).email == OWNERS
    assert thief.get(f"{API}/users/me").status_code == 401
    body = {"identity": "alice", "password": NEW_PASSWORD}
    assert post("/auth/login", body).status_code == 401
    sign_in(stored(user), "the owner's own one")


def test_a_mailbox_thiefs_change_is_undone(user: User, sign_in: SignIn) -> None:
    reset_by_email("alice", OWNERS)
    thief = sign_in(stored(user), NEW_PASSWORD)
    change_address(thief, THIEFS)
    change_address(thief, "thief2@example.com")
    thiefs_undo = token_sent_to(THIEFS)
    # The owner has the mailbox again, and finds the email about the first change there.
    assert reset(token_sent_to(OWNERS), "the owner's own one").status_code == 204

    assert stored(user).email == OWNERS
    assert errors(reset(thiefs_undo)) == {"token": "ticket_not_valid"}
    assert thief.get(f"{API}/users/me").status_code == 401
    forgot(THIEFS)
    forgot("thief2@example.com")
    assert not [m for a in (THIEFS, "thief2@example.com") for m in inbox(a) if "Reset" in m.subject]
    sign_in(stored(user), "the owner's own one")


def test_a_squatters_account_falls_to_the_mailboxs_owner(db: None, sign_in: SignIn) -> None:
    body = {"username": "squatter", "email": OWNERS, "password": PASSWORD}
    assert post("/users", body).status_code == 201
    account = User.objects.get()
    squatter = sign_in(account)

    reset_by_email(OWNERS, OWNERS)

    assert stored(account).email_verified
    assert squatter.get(f"{API}/users/me").status_code == 401
    refresh = {"refresh_token": squatter.tokens["refresh_token"]}
    assert post("/auth/refresh", refresh).status_code == 401
    assert post("/auth/login", {"identity": OWNERS, "password": PASSWORD}).status_code == 401
    sign_in(stored(account), NEW_PASSWORD)


def test_a_squatter_who_moved_on_gives_the_address_back(db: None, sign_in: SignIn) -> None:
    body = {"username": "squatter", "email": OWNERS, "password": PASSWORD}
    post("/users", body)
    change_address(sign_in(User.objects.get()), THIEFS)

    assert reset(token_sent_to(OWNERS)).status_code == 204
    assert User.objects.get().email == OWNERS


def test_a_scanner_that_presses_every_button_verifies_and_changes_nothing(
    user: User, sign_in: SignIn
) -> None:
    device = sign_in(user)
    device.post(f"{API}/users/me/email/verification")
    request_change(device, THIEFS)
    tokens = [token_sent_to(OWNERS), token_sent_to(THIEFS)]

    for token in tokens:
        assert post("/users/me/email/verify", {"token": token}).status_code == 401
        for path in ("reset-password", "verify-email", "register", "invite"):
            APIClient().get(f"/account/{path}?token={token}")

    assert (stored(user).email, stored(user).email_verified) == (OWNERS, False)
    assert verify(device, tokens[1]).status_code == 200


def test_a_reader_of_the_outbox_learns_nothing_that_was_typed(user: User) -> None:
    forgot("my password, typed into the wrong field")
    forgot("alice")
    inbox(OWNERS)

    assert "typed into" not in "".join(dumped())


def dumped() -> Iterator[str]:
    """Yield every value of every column of every table, as text."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            name = connection.ops.quote_name(table)
            cursor.execute(f"SELECT * FROM {name}")  # noqa: S608 - a table's name
            columns = [column.name for column in cursor.description]
            chosen = ", ".join(f"{connection.ops.quote_name(column)}::text" for column in columns)
            cursor.execute(f"SELECT {chosen} FROM {name}")  # noqa: S608
            yield from {value for row in cursor.fetchall() for value in row if value}


def guesses_of(dump: set[str]) -> Iterator[str]:
    """Yield what somebody who has the database, but not SECRET, can make of it."""
    yield from dump
    for value in dump:
        yield from re.findall(r"[\w-]{43}", value)
        yield base64.urlsafe_b64encode(hashlib.sha256(value.encode()).digest()).decode()[:43]
    tickets = [uuid.UUID(value) for value in dump if re.fullmatch(r"[0-9a-f-]{36}", value)]
    keys = ["", "accounts.ticket", "SECRET", *(value for value in dump if len(value) > 30)]
    for ticket, key, purpose in itertools.product(tickets, keys, ["reset", "undo", "force"]):
        for message in (purpose.encode() + ticket.bytes, f"{purpose}{ticket}".encode()):
            for secret in (
                key.encode(),
                hashlib.sha256(b"accounts.ticket" + key.encode()).digest(),
            ):
                mac = hmac.digest(secret, message, "sha256")[:16]
                yield base64.urlsafe_b64encode(ticket.bytes + mac).decode()[:43]


def test_a_stolen_database_dump_opens_nothing(user: User, sign_in: SignIn) -> None:
    device = sign_in(user)
    change_address(device, "new@example.com")
    device.post(f"{API}/users/me/email/verification")
    for identity in ("alice", "new@example.com"):
        forgot(identity)
    inbox(OWNERS)
    for purpose in Ticket.Purpose.values:
        Ticket.objects.issue(purpose, user, address=OWNERS)
    dump = set(dumped())
    assert {str(pk) for pk in Ticket.objects.values_list("pk", flat=True)} <= dump
    guesses = set(guesses_of(dump))
    assert len(guesses) > 1000

    with CaptureQueriesContext(connection) as captured:
        found = [guess for guess in guesses if opens_something(guess)]

    assert found == []
    assert not captured.captured_queries
    assert real_ones_work(user)


def opens_something(token: str) -> bool:
    try:
        Ticket.objects.find(token, *Ticket.Purpose.values)
    except TicketError:
        return False
    return True


def real_ones_work(user: Any) -> bool:
    ticket = Ticket.objects.open().filter(user=user, purpose="undo").earliest("created_at")
    return opens_something(ticket.token) and reset(ticket.token).status_code == 204


def test_a_deleted_account_does_not_reset_the_limit_of_its_recipient(
    db: None, settings: Settings
) -> None:
    """Register with a stranger's address and delete the account, again and again."""
    settings.EMAIL_LIMIT = (3, 3600)
    for number in range(6):
        name = f"squatter{number}"
        body = {"username": name, "email": "stranger@example.com", "password": PASSWORD}
        assert post("/users", body).status_code == 201
        inbox("stranger@example.com")
        device = APIClient()
        token = post("/auth/login", {"identity": name, "password": PASSWORD}).json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {token['access_token']}")
        assert device.delete(f"{API}/users/{token['user']['id']}").status_code == 204

    assert len(inbox("stranger@example.com")) == 3


def test_a_thief_who_deletes_the_account_does_not_suppress_the_notices(
    user: User, sign_in: SignIn
) -> None:
    thief = sign_in(user)
    change_address(thief, THIEFS)
    assert thief.delete(f"{API}/users/{user.pk}").status_code == 204

    assert "was changed" in "".join(message.subject for message in inbox(OWNERS))


def test_a_stranger_gets_no_text_that_the_sender_chose(user: User, sign_in: SignIn) -> None:
    User.objects.filter(pk=user.pk).update(username="win.evil.example")
    user.refresh_from_db()
    device = sign_in(user, HTTP_USER_AGENT="Call +1 800 555 0100/1.0")
    device.credentials(
        HTTP_AUTHORIZATION=f"Bearer {device.tokens['access_token']}",
        HTTP_USER_AGENT="Call +1 800 555 0100/1.0",
    )
    assert device.post(f"{API}/users/me/email", {"email": THIEFS}).status_code == 202

    [notice] = inbox(OWNERS)
    assert "evil" not in str(notice.body)
    assert "555" not in str(notice.body)


def test_a_flood_of_forgotten_passwords_does_not_suppress_a_lockouts_notice(
    user: User, settings: Settings
) -> None:
    settings.LOGIN_FAILURE_LIMIT = (10, 15 * 60)
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    for number in range(21):
        forgot(f"nobody{number}")
    for _ in range(12):
        post("/auth/login", {"identity": "alice", "password": "wrong"})

    assert "Failed sign-ins" in "".join(message.subject for message in inbox(OWNERS))
