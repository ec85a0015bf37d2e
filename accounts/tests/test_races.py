"""What several do at once, with real threads and real commits."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Session, User
from accounts.models.batches import prune
from accounts.models.managers import UserManager
from accounts.permissions import IsSelfOrReadOnly
from conftest import API, PASSWORD, SignIn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.REFRESH_GRACE = timedelta(0)


def at_once(*calls: Callable[[APIClient], Any]) -> list[Any]:
    """Make each call in a thread of its own, all released at the same moment."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[APIClient], Any]) -> Any:
        try:
            barrier.wait()
            return call(APIClient(raise_request_exception=False))
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def refreshing(token: str) -> Callable[[APIClient], Any]:
    return lambda client: client.post(f"{API}/auth/refresh", {"refresh_token": token})


def statuses(responses: list[Any]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


def test_of_16_refreshes_with_one_token_one_wins(user: User, sign_in: SignIn) -> None:
    for _ in range(30):
        token = sign_in(user).tokens["refresh_token"]

        responses = at_once(*[refreshing(token)] * 16)

        assert statuses(responses) == {200: 1, 401: 15}
    assert Session.objects.count() == 30
    assert set(user.sessions.values_list("end_reason", flat=True)) == {"token_reuse"}


def test_within_the_grace_the_others_get_the_winners_pair(
    user: User, sign_in: SignIn, settings: Settings
) -> None:
    settings.REFRESH_GRACE = timedelta(seconds=10)
    token = sign_in(user).tokens["refresh_token"]

    responses = at_once(*[refreshing(token)] * 16)

    assert statuses(responses) == {200: 16}
    assert len({response.json()["refresh_token"] for response in responses}) == 1
    assert refreshing(responses[0].json()["refresh_token"])(APIClient()).status_code == 200


@pytest.mark.parametrize("grace", [0, 10])
def test_of_several_reauthentications_one_replaces_the_refresh_token(
    user: User, sign_in: SignIn, settings: Settings, monkeypatch: pytest.MonkeyPatch, grace: int
) -> None:
    settings.REFRESH_GRACE = timedelta(seconds=grace)
    device, verify, verified = sign_in(user), User.check_password, Barrier(4)

    def verify_together(self: User, raw: str) -> bool:
        is_right = verify(self, raw)
        verified.wait()
        return is_right

    monkeypatch.setattr(User, "check_password", verify_together)
    calls = [lambda _: device.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})] * 4

    responses = at_once(*calls)

    assert statuses(responses) == {200: 4}
    [token] = {response.json()["refresh_token"] for response in responses}
    assert refreshing(token)(APIClient()).status_code == 200
    assert Event.objects.filter(kind="reauthenticated").count() == 4


def test_logout_all_leaves_nothing_alive(user: User, sign_in: SignIn) -> None:
    devices = [sign_in(user) for _ in range(12)]
    calls = [refreshing(device.tokens["refresh_token"]) for device in devices]

    *responses, ended = at_once(*calls, lambda _: devices[0].post(f"{API}/auth/logout-all"))

    assert ended.status_code == 200
    assert set(statuses(responses)) <= {200, 401}
    assert not user.sessions.active().exists()
    pairs = [response.json() for response in responses if response.status_code == 200]
    again = [refreshing(pair["refresh_token"])(APIClient()) for pair in pairs]
    assert set(statuses(again)) <= {401}


def test_16_registrations_of_one_name_make_one_user() -> None:
    body = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}

    responses = at_once(*[lambda client: client.post(f"{API}/users", body)] * 16)

    assert statuses(responses) == {201: 1, 400: 15}
    assert User.objects.count() == 1
    for response in responses:
        if response.status_code == 400:
            assert {error["code"] for error in response.json()["errors"]} == {"unique"}


def test_a_name_that_was_taken_just_now_is_reported_by_its_field(
    user: User, stranger: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = sign_in(stranger)
    monkeypatch.setattr(UserManager, "identify", lambda self, identity: (identity, None))
    body = {"username": "bob", "email": "ALICE@example.com", "password": PASSWORD}

    registered = APIClient().post(f"{API}/users", body)
    changed = device.patch(f"{API}/users/{stranger.pk}", {"username": "ALICE"})

    for response, field in ((registered, "email"), (changed, "username")):
        assert response.status_code == 400
        [error] = response.json()["errors"]
        assert (error["field"], error["code"]) == (field, "unique")
    assert User.objects.count() == 2


def test_of_two_who_take_one_name_at_once_one_is_rejected(
    user: User, stranger: User, sign_in: SignIn
) -> None:
    devices = {one: sign_in(one) for one in (user, stranger)}

    def take(one: User) -> Callable[[APIClient], Any]:
        return lambda _: devices[one].patch(f"{API}/users/{one.pk}", {"username": "Wanted"})

    responses = at_once(take(user), take(stranger))

    assert statuses(responses) == {200: 1, 400: 1}
    assert User.objects.filter(username="Wanted").count() == 1


def deactivate(user: User) -> None:
    user = User.objects.get(pk=user.pk)
    user.is_active = False
    user.save()


def set_password(user: User) -> None:
    user = User.objects.get(pk=user.pk)
    user.set_password("another one entirely")
    user.save()


def delete(user: User) -> None:
    User.objects.get(pk=user.pk).delete()


def force_password_change(user: User) -> None:
    user = User.objects.get(pk=user.pk)
    user.must_change_password = True
    user.save()


@pytest.mark.parametrize("change", [deactivate, set_password, delete])
def test_a_login_that_hashes_meanwhile_leaves_no_live_session(
    user: User, monkeypatch: pytest.MonkeyPatch, change: Callable[[User], None]
) -> None:
    verify = User.check_password

    def change_after_verifying(self: User, raw: str) -> bool:
        is_right = verify(self, raw)
        change(self)
        return is_right

    monkeypatch.setattr(User, "check_password", change_after_verifying)
    body = {"identity": "alice", "password": PASSWORD}

    response = APIClient().post(f"{API}/auth/login", body)

    assert response.status_code == 401
    assert response.json()["code"] == "invalid_credentials"
    assert not Session.objects.active().exists()
    rejected = Event.objects.filter(kind="refused").values_list("user_id", "detail")
    assert list(rejected) == [(user.pk, "account changed meanwhile")]


def change_after_verifying(monkeypatch: pytest.MonkeyPatch, change: Callable[[User], None]) -> None:
    verify = User.check_password

    def check_password(self: User, raw: str) -> bool:
        is_right = verify(self, raw)
        change(self)
        return is_right

    monkeypatch.setattr(User, "check_password", check_password)


def test_a_login_that_hashes_while_a_new_password_is_required_gets_no_pair(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_after_verifying(monkeypatch, force_password_change)

    response = APIClient().post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})

    assert (response.status_code, response.json()["code"]) == (403, "password_change_required")
    assert not Session.objects.exists()


def test_the_same_password_is_rejected_where_another_is_required_meanwhile(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_after_verifying(monkeypatch, force_password_change)
    body = {"identity": "alice", "current_password": PASSWORD, "new_password": PASSWORD}

    response = APIClient().post(f"{API}/auth/password", body)

    assert [error["code"] for error in response.json()["errors"]] == ["password_unchanged"]
    user.refresh_from_db()
    assert user.must_change_password


@pytest.mark.parametrize("change", [deactivate, set_password, delete])
def test_a_password_change_that_comes_too_late_is_a_wrong_password(
    user: User, monkeypatch: pytest.MonkeyPatch, change: Callable[[User], None]
) -> None:
    change_after_verifying(monkeypatch, change)
    body = {"identity": "alice", "current_password": PASSWORD, "new_password": "rain in June"}

    response = APIClient().post(f"{API}/auth/password", body)

    assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")


def test_of_8_deletions_at_once_one_succeeds(
    make_user: Callable[..., User], sign_in: SignIn
) -> None:
    for n in range(5):
        user = make_user(f"user{n}")
        devices = [sign_in(user) for _ in range(8)]
        calls = [partial(device.delete, f"{API}/users/{user.pk}") for device in devices]

        responses = at_once(*[lambda _, call=call: call() for call in calls])

        assert statuses(responses) == {204: 1, 401: 7}
        codes = {response.json()["code"] for response in responses if response.content}
        assert codes == {"token_not_valid"}
        assert Event.objects.filter(kind="account_deleted", user_id=user.pk).count() == 1


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_a_user_deleted_after_the_token_was_read_is_a_401(
    user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    device = sign_in(user)
    check = IsSelfOrReadOnly.has_permission

    def delete_meanwhile(self: IsSelfOrReadOnly, *args: Any) -> bool:
        delete(user)
        return check(self, *args)

    monkeypatch.setattr(IsSelfOrReadOnly, "has_permission", delete_meanwhile)

    response = getattr(device, method)(f"{API}/users/{user.pk}", {})

    assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")


def test_logins_at_once_keep_the_session_limit(
    user: User, sign_in: SignIn, settings: Settings
) -> None:
    settings.SESSION_LIMIT = 3

    at_once(*[lambda _: sign_in(user)] * 12)

    assert user.sessions.active().count() == 3


@pytest.mark.parametrize("change", [deactivate, set_password])
def test_a_stale_save_at_the_same_moment_undoes_nothing(
    user: User, change: Callable[[User], None]
) -> None:
    for n in range(10):
        User.objects.update(is_active=True)
        stale = User.objects.get(pk=user.pk)
        stale.names = f"Alice {n}"

        at_once(lambda _, stale=stale: stale.save(), lambda _: change(user))

        stored = User.objects.get(pk=user.pk)
        assert stored.names == f"Alice {n}"
        assert (stored.is_active, stored.check_password(PASSWORD)) == (
            change is not deactivate, change is not set_password,
        )  # fmt: skip


def test_two_prunings_at_once_share_the_work(user: User, sign_in: SignIn) -> None:
    for _ in range(10):
        sign_in(user)
    user.sessions.update(expires_at=user.date_joined - timedelta(days=365))

    def prune_ended(_: APIClient) -> int:
        return sum(prune(Session.objects.ended_before(timedelta(days=30)), size=2))

    assert sum(at_once(prune_ended, prune_ended)) == 10
    assert not Session.objects.exists()
