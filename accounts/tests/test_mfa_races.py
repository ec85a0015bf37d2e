"""Codes, tickets and factors at the same moment, with real commits; and what guessing achieves."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.core.cache import cache
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, OutgoingEmail, Session, Ticket, TOTPDevice, User
from accounts.permissions import IsFresh
from accounts.tests.test_races import at_once, deactivate, statuses
from conftest import API, PASSWORD, SignIn
from tests.rig.api_tokens import NEW_TOKEN
from tests.rig.authenticator import Authenticator
from tests.rig.factors import (
    begin_login,
    code_of,
    complete,
    enrol,
    reauthenticate,
    sign_in_with,
    wrong_code_of,
)
from tests.rig.lifecycle import errors, post, reset
from tests.rig.passkeys import begin_registration

ROUNDS = 40
THREADS = 16
DAY = 86400


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.CODE_FAILURE_LIMIT = (1_000_000, 60)


def race(*calls: Callable[[], Any]) -> list[Any]:
    return at_once(*[lambda _, call=call: call() for call in calls])


def tickets(user: User, number: int = THREADS) -> list[str]:
    """Return the tokens of sign-ins in progress, as a login issues them."""
    data = {"source": "strangers"}
    return [Ticket.objects.issue("mfa", user, **data).token for _ in range(number)]


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_of_16_uses_of_one_code_one_succeeds(self, user: User) -> None:
        secret, _ = enrol(user)
        for _ in range(ROUNDS):
            TOTPDevice.objects.update(last_step=0)
            code = code_of(secret)

            responses = race(*[partial(complete, token, code) for token in tickets(user)])

            assert statuses(responses) == {200: 1, 401: 15}
        assert Session.objects.count() == ROUNDS

    def test_of_16_uses_of_one_recovery_code_one_succeeds(self, user: User) -> None:
        enrol(user)
        for _ in range(ROUNDS // 10):
            for code in user.replace_recovery_codes(session=None):
                responses = race(*[partial(complete, token, code) for token in tickets(user)])

                assert statuses(responses) == {200: 1, 401: 15}

    def test_of_16_uses_of_one_token_one_succeeds(self, user: User) -> None:
        secret, _ = enrol(user)
        for _ in range(ROUNDS):
            TOTPDevice.objects.update(last_step=0)
            [token] = tickets(user, 1)

            responses = race(*[partial(complete, token, code_of(secret))] * THREADS)

            assert statuses(responses)[200] == 1
            assert set(statuses(responses)) <= {200, 400, 401}
            assert statuses(responses)[401] <= 4, "a token has five tries"

    def test_16_wrong_codes_at_once_are_five_tries(self, user: User) -> None:
        secret, _ = enrol(user)
        [token] = tickets(user, 1)

        responses = race(*[partial(complete, token, wrong_code_of(secret))] * THREADS)

        assert statuses(responses) == {401: 5, 400: 11}

    def test_of_16_reauthentications_with_one_code_one_succeeds(self, user: User) -> None:
        secret, codes = enrol(user)
        devices = [sign_in_with(code) for code in codes[:4]]
        code = code_of(secret)

        responses = race(*[partial(reauthenticate, device, code) for device in devices] * 2)

        assert statuses(responses) == {200: 1, 400: 7}

    def test_of_16_confirmations_one_brings_recovery_codes(
        self, user: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        device = sign_in(user)
        secret = device.post(f"{API}/users/me/totp").json()["secret"]
        body = {"code": code_of(secret)}

        responses = race(*[partial(device.post, f"{API}/users/me/totp/confirm", body)] * THREADS)

        assert statuses(responses)[200] == 1
        assert set(statuses(responses)) <= {200, 400, 403}
        assert user.recovery_codes_left == 0
        assert User.objects.get().recovery_codes_left == 10

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("post", "totp"),
            ("delete", "totp"),
            ("post", "recovery-codes"),
            ("post", "passkeys"),
            ("delete", "passkeys/00000000-0000-0000-0000-000000000000"),
            ("post", "tokens"),
        ],
    )
    def test_a_factor_that_is_added_meanwhile_is_needed(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch, method: str, path: str
    ) -> None:
        """The permission reads the user before the change commits, the model after it."""
        User.objects.update(email_verified_at=Now())
        device, user = sign_in(user), User.objects.get()
        credential = Authenticator().create(begin_registration(device))
        body = {**NEW_TOKEN, "credential": credential}
        session = Session.objects.get()

        def add_factor(*args: Any) -> bool:
            user.confirm_totp(code_of(user.begin_totp(session=session)), session=session)
            return True

        monkeypatch.setattr(IsFresh, "has_permission", add_factor)
        response = getattr(device, method)(f"{API}/users/me/{path}", body)

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
        assert response.json()["methods"] == ["password", "totp", "recovery_code"]

    @pytest.mark.parametrize("_round", range(5))
    def test_a_login_during_the_first_enrolment_leaves_no_session(
        self, user: User, _round: int
    ) -> None:
        User.objects.update(email_verified_at=Now())
        user.refresh_from_db()
        code = code_of(user.begin_totp(session=None))
        body = {"identity": "alice", "password": PASSWORD}

        _, *logins = race(
            partial(user.confirm_totp, code, session=None),
            *[partial(post, "/auth/login", body)] * 4,
        )

        assert set(statuses(logins)) <= {200, 403}
        assert not Session.objects.active().exists()

    @pytest.mark.parametrize("_round", range(5))
    def test_a_code_during_a_reset_leaves_no_session(self, user: User, _round: int) -> None:
        secret, _ = enrol(user)
        token = Ticket.objects.issue("reset", user, address=user.email).token
        [ticket] = tickets(user, 1)

        changed, completed = race(partial(reset, token), partial(complete, ticket, code_of(secret)))

        assert changed.status_code == 204
        assert completed.status_code in {200, 400, 401}
        assert not Session.objects.active().exists()

    @pytest.mark.parametrize("_round", range(5))
    def test_a_code_during_a_removal_or_a_deactivation_leaves_no_half(
        self, user: User, _round: int
    ) -> None:
        secret, _ = enrol(user)
        first, second = tickets(user, 2)

        race(partial(user.remove_totp, session=None), partial(complete, first, code_of(secret)))
        assert not User.objects.get().has_second_factor
        assert not User.objects.get().recovery_codes.exists()
        _, completed = race(partial(deactivate, user), partial(complete, second, "123456"))
        assert completed.status_code in {400, 401}
        assert not Session.objects.active().exists()


@pytest.mark.django_db
class TestGuessing:
    """No way to more tries: the password and all codes of an account share one count."""

    def test_doors_share_one_count(self, user: User, settings: Settings) -> None:
        secret, codes = enrol(user)
        settings.LOGIN_FAILURE_LIMIT = (6, 900)
        device = sign_in_with(codes[0])
        body = {"identity": "alice", "password": "wrong"}
        change = {"identity": "alice", "current_password": "wrong", "new_password": "x" * 20}

        assert post("/auth/login", body).status_code == 401
        assert post("/auth/password", change).status_code == 401
        assert errors(reauthenticate(device, wrong_code_of(secret))) == {"code": "invalid"}
        token = begin_login()  # The right password alone stays counted.
        assert complete(token, wrong_code_of(secret)).status_code == 401
        confirm = device.post(f"{API}/users/me/totp/confirm", {"code": "123456"})
        assert confirm.status_code == 400

        for limited in (
            complete(token, code_of(secret)),
            post("/auth/login", body | {"password": PASSWORD}),
            reauthenticate(device, code_of(secret)),
            device.post(f"{API}/users/me/totp/confirm", {"code": code_of(secret)}),
        ):
            assert limited.status_code == 429
            assert "login-failures" in limited.headers["RateLimit"]

    def test_new_tickets_bring_no_new_tries(self, user: User, settings: Settings) -> None:
        secret, _ = enrol(user)
        settings.LOGIN_FAILURE_LIMIT = (10, 900)

        outcomes = []
        while (login := post("/auth/login", {"identity": "alice", "password": PASSWORD})).json()[
            "code"
        ] == "mfa_required":
            outcomes.append(complete(login.json()["mfa_token"], wrong_code_of(secret)).status_code)

        assert outcomes == [401] * 5
        assert login.status_code == 429

    def test_the_count_of_the_login_holds_at_another_address(
        self, user: User, settings: Settings
    ) -> None:
        """A thief logs in at one address and tries codes at another, where the user is known."""
        secret, codes = enrol(user)
        settings.LOGIN_FAILURE_LIMIT = (4, 900)
        at_home = {"REMOTE_ADDR": "192.0.2.7"}
        assert complete(begin_login(), codes[0], **at_home).status_code == 200
        token = begin_login()
        for _ in range(3):
            assert complete(token, wrong_code_of(secret), **at_home).status_code == 401

        assert complete(token, code_of(secret), **at_home).status_code == 429

    def test_a_completed_login_clears_the_count(self, user: User, settings: Settings) -> None:
        secret, _ = enrol(user)
        settings.LOGIN_FAILURE_LIMIT = (4, 900)
        token = begin_login()
        for _ in range(2):
            complete(token, wrong_code_of(secret))
        assert complete(token, code_of(secret)).status_code == 200

        token = begin_login()
        for _ in range(3):
            assert complete(token, wrong_code_of(secret)).status_code == 401

    def test_the_51st_wrong_code_of_a_day_closes_the_account_to_codes(
        self, user: User, settings: Settings
    ) -> None:
        secret, codes = enrol(user)
        settings.CODE_FAILURE_LIMIT = (50, DAY)
        device = sign_in_with(codes[0])
        wrong = wrong_code_of(secret)
        for number in range(25):
            assert complete(tickets(user, 1)[0], wrong).status_code == 401
            assert reauthenticate(device, wrong).status_code == 400
            if number == 20:
                device = sign_in_with(codes[1])  # A success does not reset the count.
        device = sign_in_with(codes[2])  # Fifty were wrong; a right one still works.

        confirm = partial(device.post, f"{API}/users/me/totp/confirm", {"code": wrong})
        for limited in (
            complete(tickets(user, 1)[0], wrong),
            complete(tickets(user, 1)[0], code_of(secret)),
            complete(tickets(user, 1)[0], codes[3]),
            reauthenticate(device, codes[3]),
            confirm(),
        ):
            assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
            assert limited.headers["RateLimit-Policy"] == f'"code-failures";q=50;w={DAY}'
            assert 1 <= int(limited.headers["Retry-After"]) <= DAY
        reached = Event.objects.get(kind="limit_reached")
        assert (reached.detail, reached.user_id) == ("code-failures", user.pk)
        assert OutgoingEmail.objects.filter(kind="login_failures").count() == 1
        assert user.recovery_codes_left == 7

        cache.clear()  # The day has passed.
        assert complete(tickets(user, 1)[0], codes[3]).status_code == 200

    def test_a_code_limit_of_one_account_concerns_no_other(
        self, user: User, stranger: User, settings: Settings
    ) -> None:
        secret, _ = enrol(user)
        _, others = enrol(stranger)
        settings.CODE_FAILURE_LIMIT = (1, DAY)
        for status in (401, 429, 429):
            assert complete(tickets(user, 1)[0], wrong_code_of(secret)).status_code == status

        assert complete(begin_login("mallory"), others[0]).status_code == 200

    def test_a_failure_that_is_no_wrong_code_is_not_counted(
        self, user: User, settings: Settings
    ) -> None:
        secret, codes = enrol(user)
        settings.CODE_FAILURE_LIMIT = (1, DAY)
        User.objects.update(must_change_password=True)
        for code in codes[:3]:
            assert complete(tickets(user, 1)[0], code).status_code == 403

        assert complete(tickets(user, 1)[0], wrong_code_of(secret)).status_code == 401


@pytest.mark.heavy
@pytest.mark.django_db(transaction=True)
def test_wrong_used_and_malformed_codes_take_equally_long(user: User) -> None:
    secret, codes = enrol(user)
    complete(tickets(user, 1)[0], codes[0])
    complete(tickets(user, 1)[0], code_of(secret))
    kinds = {
        "wrong": wrong_code_of(secret),
        "used": code_of(secret),
        "malformed": "x",
        "wrong recovery code": "0" * 24,
        "used recovery code": codes[0],
    }
    client = APIClient()
    spent: dict[str, list[float]] = {kind: [] for kind in (*kinds, "unknown token")}
    for _ in range(60):
        *tokens, unknown = tickets(user, len(kinds) + 1)
        for (kind, code), token in zip(kinds.items(), tokens, strict=True):
            spent[kind].append(timed(client, token, code, 401))
        Ticket.objects.filter(purpose="mfa").delete()
        spent["unknown token"].append(timed(client, unknown, "x", 400))

    times = {kind: statistics.median(samples) for kind, samples in spent.items()}
    of_unknown = times.pop("unknown token")
    assert max(times.values()) < 1.5 * min(times.values()), times
    # Without the statements that a code costs; the response itself says that the token is invalid.
    assert of_unknown < max(times.values()), times


def timed(client: APIClient, token: str, code: str, status: int) -> float:
    started = time.perf_counter()
    response = client.post(f"{API}/auth/mfa", {"mfa_token": token, "code": code})
    assert response.status_code == status
    return time.perf_counter() - started
