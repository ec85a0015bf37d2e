"""What ends API tokens and what does not, and the same at one moment with real commits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from accounts.models import (
    ApiToken,
    ApiTokenLimitError,
    EmailNotVerifiedError,
    Event,
    SecondFactorRequiredError,
    Session,
    StaleLoginError,
    Ticket,
    User,
)
from accounts.tests.test_races import at_once, deactivate, statuses
from conftest import API, PASSWORD, SignIn
from tests.rig import factors
from tests.rig.api_tokens import NEW_TOKEN, TOKENS, code_of, issue_token, using, verified
from tests.rig.lifecycle import NEW_PASSWORD, change_address, inbox, reset
from tests.rig.machine import wait_until

Act = Callable[[User, SignIn, Client], Any]


def endings() -> list[str]:
    rows = Event.objects.filter(kind="token_ended").order_by("id")
    return [detail.partition(": ")[2] for detail in rows.values_list("detail", flat=True)]


def is_accepted(token: ApiToken) -> bool:
    response = using(token).get(f"{API}/users/me")
    assert response.status_code == 200 or code_of(response) == (401, "token_not_valid")
    return bool(response.status_code == 200)


def by_ticket(purpose: str) -> Act:
    def act(user: User, sign_in: SignIn, console: Client) -> None:
        token = Ticket.objects.issue(purpose, user, address=user.email).token
        assert reset(token).status_code == 204

    return act


def deactivate_in_the_console(user: User, sign_in: SignIn, console: Client) -> None:
    console.post(f"/admin/accounts/user/{user.pk}/set/deactivate/")


def deactivate_by_a_form(user: User, sign_in: SignIn, console: Client) -> None:
    form = {"username": user.username, "email": user.email, "names": ""}
    assert console.post(f"/admin/accounts/user/{user.pk}/change/", form).status_code == 302


def deactivate_by_save(user: User, sign_in: SignIn, console: Client) -> None:
    user.is_active = False
    user.save()


def activate_after_an_update(user: User, sign_in: SignIn, console: Client) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)
    console.post(f"/admin/accounts/user/{user.pk}/set/activate/")


def delete_in_the_api(user: User, sign_in: SignIn, console: Client) -> None:
    assert sign_in(user).delete(f"{API}/users/{user.pk}").status_code == 204


def delete_in_the_console(user: User, sign_in: SignIn, console: Client) -> None:
    page = f"/admin/accounts/user/{user.pk}/delete/"
    assert console.post(page, {"post": "yes"}).status_code == 302


def end_in_the_api(user: User, sign_in: SignIn, console: Client) -> None:
    device = sign_in(user)
    for token in user.api_tokens.all():
        assert device.delete(f"{TOKENS}/{token.pk}").status_code == 204


def end_in_the_console(user: User, sign_in: SignIn, console: Client) -> None:
    for token in user.api_tokens.all():
        console.post(f"/admin/accounts/user/{user.pk}/end-api-token/{token.pk}/")


def end_in_the_consoles_list(user: User, sign_in: SignIn, console: Client) -> None:
    selected = list(user.api_tokens.values_list("pk", flat=True))
    console.post("/admin/accounts/apitoken/", {"action": "end", "_selected_action": selected})


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (by_ticket("reset"), "password_reset"),
        (by_ticket("undo"), "password_reset"),
        (by_ticket("force"), "password_reset"),
        (deactivate_in_the_console, "account_changed"),
        (deactivate_by_a_form, "account_changed"),
        (deactivate_by_save, "account_changed"),
        (activate_after_an_update, "account_changed"),
        (delete_in_the_api, None),
        (delete_in_the_console, None),
        (end_in_the_api, "user"),
        (end_in_the_console, "staff"),
        (end_in_the_consoles_list, "staff"),
    ],
)
def test_every_way_that_ends_the_tokens_of_a_user_ends_them_at_once(
    user: User,
    stranger: User,
    sign_in: SignIn,
    console: Client,
    act: Act,
    reason: str | None,
) -> None:
    tokens, other = [issue_token(user), issue_token(user)], issue_token(stranger)
    assert all(map(is_accepted, tokens))

    act(user, sign_in, console)

    User.objects.filter(pk=user.pk).update(is_active=True)  # Reactivation restores none.
    assert not any(map(is_accepted, tokens))
    assert is_accepted(other)
    assert endings() == ([reason] * 2 if reason else [])
    assert not ApiToken.objects.exclude(pk=other.pk).exists()


def change_password(user: User, sign_in: SignIn, console: Client) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert sign_in(user).post(f"{API}/auth/password", body).status_code == 204


def log_out_everywhere(user: User, sign_in: SignIn, console: Client) -> None:
    assert sign_in(user).post(f"{API}/auth/logout-all").status_code == 200


def end_sessions(user: User, sign_in: SignIn, console: Client) -> None:
    call_command("endsessions", "alice")


def change_the_address(user: User, sign_in: SignIn, console: Client) -> None:
    change_address(sign_in(user), "new@example.com")


def require_a_change(user: User, sign_in: SignIn, console: Client) -> None:
    console.post(f"/admin/accounts/user/{user.pk}/set/force-password-change/")


@pytest.mark.parametrize(
    "act",
    [change_password, log_out_everywhere, end_sessions, change_the_address, require_a_change],
)
def test_what_ends_sessions_only_leaves_the_tokens(
    user: User, sign_in: SignIn, console: Client, act: Act
) -> None:
    token = issue_token(user)

    act(user, sign_in, console)

    assert is_accepted(token)
    assert endings() == []


def test_the_notice_of_a_changed_password_says_that_api_tokens_work_on(
    user: User, sign_in: SignIn, console: Client
) -> None:
    change_password(verified(user), sign_in, console)
    [notice] = inbox(user.email)
    assert "API tokens still work" in str(notice.body)


def test_the_notice_of_a_new_token_names_no_token(user: User) -> None:
    token = issue_token(user, name="Deployment")
    [notice] = [m for m in inbox(user.email) if "API token" in m.subject]
    for part in (str(notice.body), str(notice.alternatives)):
        assert "ends every API token" in part
        assert "Deployment" not in part
        assert str(token.text)[20:] not in part


class TestTheModel:
    def test_an_unverified_user_gets_none(self, user: User) -> None:
        session = start(user)
        with pytest.raises(EmailNotVerifiedError):
            issue(user, session)

    @pytest.mark.parametrize("state", ["ended", "inactive", "deleted", "another's"])
    def test_an_ended_session_gets_none(self, user: User, stranger: User, state: str) -> None:
        session = start(verified(user))
        if state == "ended":
            user.sessions.end("logout")
        elif state == "inactive":
            User.objects.filter(pk=user.pk).update(is_active=False)
        elif state == "deleted":
            User.objects.get(pk=user.pk).delete()
        else:
            session = start(stranger)
        with pytest.raises(StaleLoginError):
            issue(user, session)
        assert not ApiToken.objects.exists()

    def test_a_session_without_the_factor_gets_none(self, user: User) -> None:
        """The first factor may be added while a request of the same session is in progress."""
        session = start(verified(user))
        secret = user.begin_totp(session=session)
        user.confirm_totp(factors.code_of(secret), session=session)
        with pytest.raises(SecondFactorRequiredError):
            issue(user, session)

    def test_the_limit_holds_for_every_caller(self, user: User) -> None:
        session = start(verified(user))
        for _ in range(20):
            issue(user, session)
        with pytest.raises(ApiTokenLimitError):
            issue(user, session)

    @pytest.mark.parametrize(
        "change",
        [{"scope": "admin"}, {"expires_at": Now() + timedelta(days=366)}, {"name": "x" * 51}],
    )
    def test_the_database_holds_the_rules(self, user: User, change: dict[str, Any]) -> None:
        issue_token(user)
        with pytest.raises((IntegrityError, DatabaseError)), transaction.atomic():
            ApiToken.objects.update(**change)


def start(user: User) -> Session:
    return Session.objects.start(user, address="192.0.2.1", user_agent="", device="x")


def issue(user: User, session: Session) -> ApiToken:
    lifetime = timedelta(days=365)
    return ApiToken.objects.issue(user, name="x", scope="read", lifetime=lifetime, session=session)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    @pytest.fixture(autouse=True)
    def lifted_limits(self, settings: Settings) -> None:
        settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)

    @pytest.fixture(params=range(5))
    def alice(self, request: pytest.FixtureRequest, user: User) -> User:
        """A user, once for each round."""
        return user

    def creating(self, user: User, sign_in: SignIn) -> Callable[[], Any]:
        return partial(sign_in(verified(user)).post, TOKENS, NEW_TOKEN)

    def test_16_requests_do_not_exceed_the_limit(self, user: User, sign_in: SignIn) -> None:
        for _ in range(15):
            issue_token(user)

        responses = race(*[self.creating(user, sign_in)] * 16)

        assert statuses(responses) == {201: 5, 409: 11}
        assert user.api_tokens.count() == 20

    def test_a_reset_during_a_creation_leaves_no_token(self, alice: User, sign_in: SignIn) -> None:
        ticket = Ticket.objects.issue("reset", alice, address=alice.email)

        created, changed = race(self.creating(alice, sign_in), partial(reset, ticket.token))

        assert changed.status_code == 204
        assert created.status_code in {201, 401}
        assert not ApiToken.objects.exists()

    def test_a_deactivation_during_a_creation_leaves_no_token(
        self, alice: User, sign_in: SignIn
    ) -> None:
        created, _ = race(self.creating(alice, sign_in), partial(deactivate, alice))

        assert created.status_code in {201, 401}
        assert not ApiToken.objects.exists()

    def test_a_deletion_during_a_creation_leaves_no_token(
        self, alice: User, sign_in: SignIn
    ) -> None:
        created, deleted = race(self.creating(alice, sign_in), alice.delete)

        assert deleted[0]
        assert created.status_code in {201, 401}
        assert not ApiToken.objects.exists()

    def test_an_address_that_is_unverified_meanwhile_gets_none(
        self, user: User, sign_in: SignIn
    ) -> None:
        """The permission reads the user before the change commits, the model after it."""
        create = self.creating(user, sign_in)
        with ThreadPoolExecutor() as pool:
            with transaction.atomic():
                User.objects.filter(pk=user.pk).update(email_verified_at=None)
                created = pool.submit(closing_connection, create)
                assert wait_until(is_waiting_for_a_lock, seconds=10) < 10

            assert code_of(created.result()) == (403, "email_not_verified")
        assert not ApiToken.objects.exists()

    def test_of_16_ends_of_one_token_one_succeeds(self, user: User, sign_in: SignIn) -> None:
        token, device = issue_token(user), sign_in(user)

        responses = race(*[partial(device.delete, f"{TOKENS}/{token.pk}")] * 16)

        assert statuses(responses) == {204: 1, 404: 15}
        assert endings() == ["user"]

    def test_requests_during_the_end_are_accepted_or_rejected(
        self, user: User, sign_in: SignIn
    ) -> None:
        token, device = issue_token(user), sign_in(user)
        end = partial(device.delete, f"{TOKENS}/{token.pk}")

        ended, *responses = race(end, *[partial(using(token).get, f"{API}/users/me")] * 15)

        assert ended.status_code == 204
        assert set(statuses(responses)) <= {200, 401}
        assert not is_accepted(token)

    def test_a_first_use_by_16_writes_once(self, user: User) -> None:
        token = issue_token(user)

        responses = race(*[partial(using(token).get, f"{API}/users/me")] * 16)

        assert statuses(responses) == {200: 16}
        with connection.cursor() as cursor:
            cursor.execute("SELECT xmin::text FROM accounts_apitoken WHERE id = %s", [token.pk])
            first = cursor.fetchone()
            using(token).get(f"{API}/users/me")
            cursor.execute("SELECT xmin::text FROM accounts_apitoken WHERE id = %s", [token.pk])
            assert cursor.fetchone() == first


def race(*calls: Callable[[], Any]) -> list[Any]:
    return at_once(*[lambda _, call=call: call() for call in calls])


def closing_connection(call: Callable[[], Any]) -> Any:
    try:
        return call()
    finally:
        connection.close()


def is_waiting_for_a_lock() -> bool:
    waiting = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # Kept for the whole transaction.
        cursor.execute(waiting)
        return cursor.fetchone() is not None
