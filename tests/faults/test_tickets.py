"""Tickets used at the same moment as other changes, at two servers of two processes."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from accounts.models import Ticket
from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import Server
from tests.rig.lifecycle import NEW_PASSWORD
from tests.rig.load import at_once
from tests.rig.postgres import Postgres
from tests.rig.redis import needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
ROUNDS = 50
ISSUE = """
    INSERT INTO accounts_ticket (id, purpose, user_id, address, expires_at, data)
    VALUES (%s, %s, %s, %s, now() + interval '1 hour', '{}')
"""
USER = "SELECT email, is_active FROM accounts_user WHERE id = %s"


class Account:
    """A new user, signed in at one server, whose tickets are used at both."""

    def __init__(self, servers: list[Server], postgres: Postgres) -> None:
        self.servers, self.postgres = servers, postgres
        self.device = Client(servers[0].port).sign_in()
        me = self.device.get(f"{API}/users/me").json
        self.pk, self.email = me["id"], me["email"]

    def issue(self, purpose: str, address: str = "") -> str:
        """Write a ticket to the database and return its token, as an email would contain it."""
        ticket = Ticket(purpose=purpose)
        values = [ticket.pk, purpose, self.pk, address or self.email]
        self.postgres.execute(ISSUE, values, dbname="latchkey")
        return ticket.token

    def resetting(self, token: str, *, at: int, password: str = NEW_PASSWORD) -> Callable[[], int]:
        body = {"token": token, "new_password": password}
        client = Client(self.servers[at].port)
        return lambda: repeat(lambda: client.post(f"{API}/auth/password/reset", body))

    def confirming(self, address: str) -> Callable[[], int]:
        body = {"token": self.issue("change", address)}
        return lambda: self.device.post(f"{API}/users/me/email/verify", body).status

    def signs_in(self, password: str, *, at: int = 0) -> int:
        body = {"identity": self.device.username, "password": password}
        client = Client(self.servers[at].port)
        return repeat(lambda: client.post(f"{API}/auth/login", body))

    @property
    def address(self) -> str | None:
        """The stored address, or None of a deleted user."""
        rows = self.postgres.execute(USER, [self.pk], dbname="latchkey")
        return rows[0][0] if rows else None

    @property
    def open_sessions(self) -> int:
        counted = "SELECT count(*) FROM accounts_session WHERE ended_at IS NULL AND user_id = %s"
        ((number,),) = self.postgres.execute(counted, [self.pk], dbname="latchkey")
        return int(number)


def repeat(send: Callable[[], Response]) -> int:
    """Send a request until it finds a place for hashing: a 503 means that nothing was done."""
    while (response := send()).is_unavailable:
        time.sleep(0.05)
    return response.status


@pytest.fixture
def account(servers: list[Server], postgres: Postgres) -> Callable[[], Account]:
    return partial(Account, servers, postgres)


def named(statuses: Counter[int]) -> str:
    return " and ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))


def play(figure: Figure, what: str, demanded: str, round_: Callable[[int], Any]) -> None:
    """Run the rounds and record their results, each a name and whether it is right."""
    results = Counter(round_(number) for number in range(ROUNDS))
    right = sum(count for (_, is_right), count in results.items() if is_right)
    seen = ", ".join(f"{name}: {count}" for (name, _), count in sorted(results.items()))
    figure(
        f"{what}, {ROUNDS} rounds",
        demanded=demanded,
        measured=f"{right} of {ROUNDS} right ({seen})",
        met=right == ROUNDS,
    )


def test_one_ticket_in_16_requests(account: Callable[[], Account], figure: Figure) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        user = account()
        token = user.issue("reset")
        statuses = Counter(at_once(*[user.resetting(token, at=n % 2) for n in range(16)]))
        return named(statuses), statuses == {204: 1, 400: 15}

    play(figure, "One reset ticket in 16 requests", "one 204, fifteen 400", play_round)


def test_a_reset_against_logins(account: Callable[[], Account], figure: Figure) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        user = account()
        logins = [partial(user.signs_in, PASSWORD, at=n % 2) for n in range(3)]
        reset, *statuses = at_once(user.resetting(user.issue("reset"), at=1), *logins)
        is_right = reset == 204 and set(statuses) <= {200, 401} and user.open_sessions == 0
        return "no session", is_right

    play(figure, "A reset against three logins", "no session is left", play_round)


def test_a_reset_against_a_change_of_address(
    account: Callable[[], Account], figure: Figure
) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        user = account()
        new = f"new-{user.email}"
        reset, change = at_once(user.resetting(user.issue("reset"), at=1), user.confirming(new))
        if reset == 204:
            is_right = change in {400, 401} and user.address == user.email
            return "reset", is_right and user.signs_in(NEW_PASSWORD) == 200
        is_right = (reset, change) == (400, 200) and user.address == new
        return "change", is_right and user.signs_in(PASSWORD) == 200

    play(figure, "A reset against a change of address", "one of them succeeds", play_round)


def test_a_reset_against_a_deletion(account: Callable[[], Account], figure: Figure) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        user = account()
        token, path = user.issue("reset"), f"{API}/users/{user.pk}"
        reset, deletion = at_once(
            user.resetting(token, at=1), lambda: user.device.request("DELETE", path).status
        )
        is_right = (reset, deletion) in {(204, 204), (204, 401), (400, 204)}
        return f"{reset} and {deletion}", is_right and (user.address is None) == (deletion == 204)

    play(figure, "A reset against a deletion", "a deleted user stays deleted", play_round)


def test_an_undo_against_a_reset(account: Callable[[], Account], figure: Figure) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        user = account()
        former = f"former-{user.email}"
        undo, reset = at_once(
            user.resetting(user.issue("undo", former), at=0, password="the owner's own one"),
            user.resetting(user.issue("reset"), at=1),
        )
        is_right = undo == 204 and reset in {204, 400} and user.address == former
        return f"reset {reset}", is_right and user.signs_in("the owner's own one") == 200

    play(figure, "An undo against a reset", "the undo holds", play_round)


def test_two_changes_to_one_address(account: Callable[[], Account], figure: Figure) -> None:
    def play_round(number: int) -> tuple[str, bool]:
        users, new = [account(), account()], f"wanted-{number}@example.com"
        statuses = Counter(at_once(*[user.confirming(new) for user in users]))
        owners = [user.address for user in users].count(new)
        return named(statuses), statuses == {200: 1, 400: 1} and owners == 1

    play(figure, "Two changes to one address", "one 200, one 400", play_round)
