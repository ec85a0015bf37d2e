"""Tickets used at the same moment as other changes of the account, with real commits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import Event, Session, Ticket, User
from accounts.tests.test_races import at_once, deactivate, statuses
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import NEW_PASSWORD, errors, post, reset, stored, verify

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("lifted_limits")]
ROUNDS = 5
FORMER, ADDRESS = "alice@example.com", "new@example.com"


@pytest.fixture(params=range(ROUNDS))
def alice(request: pytest.FixtureRequest, user: User) -> User:
    """A user, once for each round."""
    return user


def issue(purpose: str, user: User | None, address: str = FORMER) -> str:
    return Ticket.objects.issue(purpose, user, address=address).token


def race(*calls: Callable[[], Any]) -> list[Any]:
    return at_once(*[lambda _, call=call: call() for call in calls])


def confirming(sign_in: SignIn, user: User, address: str) -> Callable[[], Any]:
    return partial(verify, sign_in(user), issue("change", user, address))


@pytest.mark.parametrize("purpose", ["reset", "undo", "force"])
def test_of_16_resets_with_one_ticket_one_succeeds(user: User, purpose: str) -> None:
    token = issue(purpose, user)
    passwords = [f"{NEW_PASSWORD} {n}" for n in range(16)]

    responses = race(*[partial(reset, token, password) for password in passwords])

    assert statuses(responses) == {204: 1, 400: 15}
    for response in responses:
        if response.status_code == 400:
            assert errors(response) == {"token": "ticket_not_valid"}
    winner = [response.status_code for response in responses].index(204)
    assert stored(user).check_password(passwords[winner])
    assert Event.objects.filter(kind="password_reset").count() == 1


def test_of_16_registrations_with_one_ticket_one_succeeds(settings: Settings) -> None:
    settings.REGISTRATION = "verified"
    token = issue("register", None)
    bodies = [
        {"username": f"user{n}", "password": PASSWORD, "registration_token": token}
        for n in range(16)
    ]

    responses = race(*[partial(post, "/users", body) for body in bodies])

    assert statuses(responses) == {201: 1, 400: 15}
    codes = {tuple(errors(r).items()) for r in responses if r.status_code == 400}
    assert codes <= {
        (("registration_token", "ticket_not_valid"),),
        (("registration_token", "unique"),),
    }
    assert User.objects.count() == 1


@pytest.mark.parametrize("purpose", ["verify", "change"])
def test_of_16_confirmations_with_one_ticket_one_succeeds(
    user: User, sign_in: SignIn, purpose: str
) -> None:
    device = sign_in(user)
    token = issue(purpose, user, ADDRESS if purpose == "change" else FORMER)

    responses = race(*[partial(verify, device, token)] * 16)

    assert statuses(responses) == {200: 1, 400: 15}


def test_a_login_during_a_reset_leaves_no_session(alice: User) -> None:
    body = {"identity": "alice", "password": PASSWORD}

    changed, *logins = race(
        partial(reset, issue("reset", alice)), *[partial(post, "/auth/login", body)] * 3
    )

    assert changed.status_code == 204
    assert set(statuses(logins)) <= {200, 401}
    assert not Session.objects.active().exists()


def test_a_reset_during_a_change_of_address_is_before_or_rejected(
    alice: User, sign_in: SignIn
) -> None:
    change = confirming(sign_in, alice, ADDRESS)

    changed, confirmed = race(partial(reset, issue("reset", alice)), change)

    outcome = changed.status_code, confirmed.status_code
    assert outcome in {(204, 400), (204, 401), (400, 200)}
    is_reset = changed.status_code == 204
    user = stored(alice)
    assert user.email == (FORMER if is_reset else ADDRESS)
    assert user.check_password(NEW_PASSWORD if is_reset else PASSWORD)


def test_a_reset_during_a_deletion_restores_nothing(alice: User, sign_in: SignIn) -> None:
    device = sign_in(alice)

    changed, deleted = race(
        partial(reset, issue("reset", alice)), partial(device.delete, f"{API}/users/{alice.pk}")
    )

    assert (changed.status_code, deleted.status_code) in {(204, 204), (204, 401), (400, 204)}
    assert User.objects.exists() == (deleted.status_code == 401)
    assert Ticket.objects.exists() == User.objects.exists()


def test_a_reset_during_a_deactivation_activates_nothing(alice: User, sign_in: SignIn) -> None:
    sign_in(alice)

    changed, _ = race(partial(reset, issue("reset", alice)), partial(deactivate, alice))

    user = stored(alice)
    assert not user.is_active
    assert changed.status_code == (204 if user.check_password(NEW_PASSWORD) else 400)
    assert not Session.objects.active().exists()
    assert not Ticket.objects.open().exists()


def test_an_undo_during_a_reset_is_never_lost(alice: User) -> None:
    User.objects.update(email=ADDRESS)
    undo, other = issue("undo", alice, FORMER), issue("reset", alice, ADDRESS)

    undone, changed = race(partial(reset, undo, "the owner's own one"), partial(reset, other))

    assert undone.status_code == 204
    assert changed.status_code in {204, 400}
    user = stored(alice)
    assert user.email == FORMER
    assert user.check_password("the owner's own one")


def test_of_two_changes_to_one_address_one_succeeds(
    alice: User, stranger: User, sign_in: SignIn
) -> None:
    calls = [confirming(sign_in, user, ADDRESS) for user in (alice, stranger)]

    responses = race(*calls)

    assert statuses(responses) == {200: 1, 400: 1}
    [rejected] = [response for response in responses if response.status_code == 400]
    assert errors(rejected) == {"token": "unique"}
    assert User.objects.filter(email=ADDRESS).count() == 1


def test_an_address_that_is_being_given_up_cannot_be_registered(
    alice: User, sign_in: SignIn
) -> None:
    body = {"username": "bob", "email": FORMER, "password": PASSWORD}

    confirmed, *registered = race(
        confirming(sign_in, alice, ADDRESS), *[partial(post, "/users", body)] * 3
    )

    assert confirmed.status_code == 200
    assert statuses(registered) == {400: 3}
    assert User.objects.count() == 1


def test_an_address_that_is_being_restored_cannot_be_registered(alice: User) -> None:
    User.objects.update(email=ADDRESS)
    undo = issue("undo", alice, FORMER)
    body = {"username": "bob", "email": FORMER, "password": PASSWORD}

    restored, *registered = race(partial(reset, undo), *[partial(post, "/users", body)] * 3)

    assert restored.status_code == 204
    assert statuses(registered) == {400: 3}
    assert stored(alice).email == FORMER
