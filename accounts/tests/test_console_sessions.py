"""Whatever ends a user's sessions ends those of the console too."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from accounts.models import Session, User
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"


@pytest.fixture
def staff(make_user: Callable[..., User]) -> User:
    return make_user("susan", is_staff=True)


@pytest.fixture
def boss(make_user: Callable[..., User]) -> Client:
    browser = Client()
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    return browser


@pytest.fixture
def browser(staff: User) -> Client:
    browser = Client()
    body = {"username": "susan", "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", body).status_code == 302
    assert is_signed_in(browser)
    return browser


def is_signed_in(browser: Client) -> bool:
    return browser.get("/admin/").status_code == 200


def log_out_everywhere(staff: User, sign_in: SignIn, boss: Client) -> None:
    assert sign_in(staff).post(f"{API}/auth/logout-all").json() == {"revoked": 1}


def change_password(staff: User, sign_in: SignIn, boss: Client) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW}
    assert sign_in(staff).post(f"{API}/auth/password", body).status_code == 204


def change_password_by_identity(staff: User, sign_in: SignIn, boss: Client) -> None:
    body = {"identity": "susan", "current_password": PASSWORD, "new_password": NEW}
    assert sign_in(staff).post(f"{API}/auth/password", body).status_code == 204


def end_by_command(staff: User, sign_in: SignIn, boss: Client) -> None:
    call_command("endsessions", "susan")


def end_all_by_command(staff: User, sign_in: SignIn, boss: Client) -> None:
    call_command("endsessions", "--all")


def end_in_the_console(staff: User, sign_in: SignIn, boss: Client) -> None:
    assert boss.post(f"/admin/accounts/user/{staff.pk}/end-sessions/").status_code == 302


def end_by_action(staff: User, sign_in: SignIn, boss: Client) -> None:
    body = {"action": "end_sessions", "_selected_action": [staff.pk], "confirmed": "yes"}
    assert boss.post("/admin/accounts/user/", body).status_code == 302


def end_by_action_on_a_session(staff: User, sign_in: SignIn, boss: Client) -> None:
    sign_in(staff)
    selected = [str(staff.sessions.get().pk)]
    body = {"action": "end_all_of_users", "_selected_action": selected, "confirmed": "yes"}
    assert boss.post("/admin/accounts/session/", body).status_code == 302


def deactivate_and_activate(staff: User, sign_in: SignIn, boss: Client) -> None:
    for action in ("deactivate", "activate"):
        assert boss.post(f"/admin/accounts/user/{staff.pk}/set/{action}/").status_code == 302


def deactivate_by_form_and_activate(staff: User, sign_in: SignIn, boss: Client) -> None:
    form = {"username": "susan", "email": staff.email, "names": "", "is_staff": "on"}
    for state in ({}, {"is_active": "on"}):
        address = f"/admin/accounts/user/{staff.pk}/change/"
        assert boss.post(address, form | state).status_code == 302


def deactivate_by_query_and_activate(staff: User, sign_in: SignIn, boss: Client) -> None:
    User.objects.filter(pk=staff.pk).update(is_active=False)
    assert boss.post(f"/admin/accounts/user/{staff.pk}/set/activate/").status_code == 302


@pytest.mark.parametrize(
    "end",
    [
        log_out_everywhere,
        change_password,
        change_password_by_identity,
        end_by_command,
        end_all_by_command,
        end_in_the_console,
        end_by_action,
        end_by_action_on_a_session,
        deactivate_and_activate,
        deactivate_by_form_and_activate,
        deactivate_by_query_and_activate,
    ],
)
def test_every_way_to_end_sessions_ends_them_in_the_console_and_in_the_api(
    browser: Client,
    staff: User,
    boss: Client,
    sign_in: SignIn,
    end: Callable[..., None],
) -> None:
    device = sign_in(staff) if end is not end_by_action_on_a_session else None

    end(staff, sign_in, boss) if device is None else end(staff, lambda _: device, boss)

    assert not is_signed_in(browser)
    by_token = end not in {change_password, change_password_by_identity}
    if device and by_token:
        assert device.get(f"{API}/users/me").status_code == 401
    assert User.objects.get(pk=staff.pk).is_active


def test_a_new_password_set_in_the_console_keeps_the_console_session_that_set_it(
    browser: Client, staff: User, sign_in: SignIn
) -> None:
    device, other = sign_in(staff), Client()
    other.force_login(User.objects.get(pk=staff.pk))
    body = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}

    assert browser.post("/admin/password_change/", body).status_code == 302

    assert is_signed_in(browser)
    assert not is_signed_in(other)
    assert device.get(f"{API}/users/me").status_code == 401


def test_other_changes_end_no_console_session(browser: Client, staff: User, boss: Client) -> None:
    form = {"username": "susan", "email": "susan@example.com", "names": "Susan"}
    form |= {"is_staff": "on", "is_active": "on"}

    assert boss.post(f"/admin/accounts/user/{staff.pk}/change/", form).status_code == 302

    assert is_signed_in(browser)


def test_another_address_ends_every_session(
    browser: Client, staff: User, boss: Client, sign_in: SignIn
) -> None:
    device = sign_in(staff)
    form = {"username": "susan", "email": "s@example.com", "names": ""}
    form |= {"is_staff": "on", "is_active": "on"}

    assert boss.post(f"/admin/accounts/user/{staff.pk}/change/", form).status_code == 302

    assert not is_signed_in(browser)
    assert device.get(f"{API}/users/me").status_code == 401
    assert staff.sessions.get().end_reason == "email_changed"


def test_the_end_of_one_session_of_the_api_ends_none_of_the_console(
    browser: Client, staff: User, sign_in: SignIn
) -> None:
    sign_in(staff).post(f"{API}/auth/logout")

    assert is_signed_in(browser)


def test_an_earlier_secret_verifies_console_sessions_of_the_present_epoch_only(
    browser: Client, staff: User, settings: Settings
) -> None:
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret of more than 32 characters"
    kept, ended = Client(), Client()
    kept.cookies = browser.cookies
    ended.cookies["sessionid"] = copy_of(browser.session)

    assert is_signed_in(kept)
    staff.end_sessions(Session.Reason.STAFF)
    assert not is_signed_in(ended)


def copy_of(session: Any) -> str:
    """Store the data of a console session under another key."""
    copy = type(session)()
    copy.update(session.items())
    copy.save()
    return str(copy.session_key)
