"""Passkeys used at the same moment as other changes of the account, with real commits."""

from functools import partial
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Passkey, Session, User
from accounts.permissions import IsFresh, IsVerified
from accounts.tests.test_races import deactivate, statuses
from accounts.tests.test_ticket_races import race
from conftest import API, PASSWORD, SignIn
from tests.rig.authenticator import Authenticator
from tests.rig.lifecycle import post
from tests.rig.passkeys import PATH, add_passkey, begin_registration, begin_sign_in, device_of

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS = 40


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)


@pytest.fixture
def device(user: User, sign_in: SignIn) -> APIClient:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    return sign_in(user)


def signing_in(passkey: Authenticator, options: Any = None, **bent: Any) -> Any:
    credential = passkey.get(options or begin_sign_in(), **bent)
    return partial(post, "/auth/passkey", {"credential": credential})


def test_of_16_sign_ins_with_one_challenge_one_succeeds(device: APIClient) -> None:
    passkey = add_passkey(device)
    for _ in range(ROUNDS):
        responses = race(*[signing_in(passkey)] * 16)

        assert statuses(responses) == {200: 1, 401: 15}
    assert Event.objects.filter(kind="signed_in", detail="pop, user, mfa").count() == ROUNDS


def test_of_16_registrations_with_one_challenge_one_succeeds(device: APIClient) -> None:
    credential = Authenticator().create(begin_registration(device))
    body = {"name": "Laptop", "credential": credential}

    responses = race(*[partial(device.post, PATH, body)] * 16)

    assert statuses(responses)[201] == 1
    assert set(statuses(responses)) <= {201, 400, 403}
    assert Passkey.objects.count() == 1
    assert Event.objects.filter(kind="factor_added").count() == 1


def test_of_two_copies_with_one_counter_one_succeeds(device: APIClient) -> None:
    passkey = add_passkey(device, counter=1)
    for counter in range(2, 7):
        responses = race(*[signing_in(passkey, counter=counter) for _ in range(2)])

        assert statuses(responses) == {200: 1, 401: 1}
    assert Event.objects.filter(kind="passkey_cloned").count() == 5


def test_of_several_new_passkeys_the_20th_is_the_last(device: APIClient) -> None:
    device = device_of(add_passkey(device))
    values = {"name": "Key", "public_key": b"", "sign_count": 0, "synced": False}
    user = User.objects.get()
    Passkey.objects.bulk_create(
        [Passkey(user=user, credential_id=b"%d" % n, **values) for n in range(18)]
    )
    bodies = [
        {"name": "Key", "credential": Authenticator().create(begin_registration(device))}
        for _ in range(4)
    ]

    responses = race(*[partial(device.post, PATH, body) for body in bodies])

    assert statuses(responses) == {201: 1, 409: 3}
    assert Passkey.objects.count() == 20


@pytest.mark.parametrize("attempt", range(5))
def test_a_sign_in_during_a_removal_is_before_or_rejected(device: APIClient, attempt: int) -> None:
    passkey = add_passkey(device)
    device = device_of(passkey)

    removed, signed_in = race(
        partial(device.delete, f"{PATH}/{passkey.response['id']}"), signing_in(passkey)
    )

    assert removed.status_code == 204
    assert signed_in.status_code in {200, 401}
    assert not User.objects.get().has_second_factor


@pytest.mark.parametrize("attempt", range(5))
def test_a_sign_in_during_a_deactivation_leaves_no_session(
    device: APIClient, user: User, attempt: int
) -> None:
    passkey = add_passkey(device)

    _, signed_in = race(partial(deactivate, user), signing_in(passkey))

    assert signed_in.status_code in {200, 401}
    assert not Session.objects.active().exists()


@pytest.mark.parametrize("attempt", range(5))
def test_a_sign_in_during_a_deletion_is_before_or_rejected(
    device: APIClient, user: User, attempt: int
) -> None:
    passkey = add_passkey(device)
    device = device_of(passkey)

    deleted, signed_in = race(partial(device.delete, f"{API}/users/{user.pk}"), signing_in(passkey))

    assert deleted.status_code == 204
    assert signed_in.status_code in {200, 401}
    assert not Passkey.objects.exists()


@pytest.mark.parametrize("attempt", range(5))
def test_the_first_passkey_ends_a_login_in_progress(device: APIClient, attempt: int) -> None:
    credential = Authenticator().create(begin_registration(device))
    body = {"identity": "alice", "password": PASSWORD}

    added, *logins = race(
        partial(device.post, PATH, {"name": "Laptop", "credential": credential}),
        *[partial(post, "/auth/login", body)] * 3,
    )

    assert added.status_code == 201
    assert set(statuses(logins)) <= {200, 403}
    assert Session.objects.active().count() == 1


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("post", "/options", deactivate),
        ("post", "", User.end_sessions),
        ("delete", "/{id}", User.end_sessions),
    ],
)
def test_a_session_that_ends_meanwhile_changes_nothing(
    device: APIClient,
    user: User,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    change: Any,
) -> None:
    passkey = add_passkey(device)
    device = device_of(passkey)
    credential = Authenticator().create(begin_registration(device))
    original = IsFresh.has_permission

    def has_permission(*args: Any) -> bool:
        is_fresh = original(*args)
        change(user, *(["staff"] if change is User.end_sessions else []))
        return is_fresh

    monkeypatch.setattr(IsFresh, "has_permission", has_permission)
    body = {"name": "Laptop", "credential": credential} if method == "post" else None
    response = getattr(device, method)(f"{PATH}{path}".format(**passkey.response), body)

    assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")
    assert Passkey.objects.count() == 1


def test_an_address_that_is_unverified_meanwhile_adds_none(
    device: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model decides, not the permission alone."""
    credential = Authenticator().create(begin_registration(device))
    User.objects.update(email_verified_at=None)
    monkeypatch.setattr(IsVerified, "has_permission", lambda *args: True)
    response = device.post(PATH, {"name": "Laptop", "credential": credential})

    assert (response.status_code, response.json()["code"]) == (403, "email_not_verified")
