"""A save changes what its own reader changed, and nothing else."""

from collections.abc import Callable

import pytest
from django.contrib.auth.hashers import make_password
from django.core.management import CommandError, call_command
from django.db import DatabaseError

from accounts.models import Event, PasswordUnchangedError, User
from accounts.models.changes import RowDeletedError
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"


def read(user: User) -> User:
    return User.objects.get(pk=user.pk)


def test_a_stale_row_does_not_undo_what_others_changed(user: User) -> None:
    stale = read(user)
    other = read(user)
    other.set_password(NEW)
    other.is_active = False
    other.email = "new@example.com"
    other.save()

    stale.names = "Alice Archer"
    stale.save()

    stored = read(user)
    assert stored.names == "Alice Archer"
    assert (stored.is_active, stored.email) == (False, "new@example.com")
    assert stored.check_password(NEW)


def test_changepassword_does_not_undo_a_deactivation(
    user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(user)

    def deactivate_while_typing(prompt: str) -> str:
        other = read(user)
        other.is_active = False
        other.save()
        return NEW

    monkeypatch.setattr("getpass.getpass", deactivate_while_typing)

    call_command("changepassword", "alice")

    stored = read(user)
    assert not stored.is_active
    assert stored.check_password(NEW)


@pytest.mark.parametrize("changes", [{}, {"names": "Alice"}])
def test_a_deleted_user_is_not_created_again(user: User, changes: dict[str, str]) -> None:
    stale = read(user)
    read(user).delete()
    for name, value in changes.items():
        setattr(stale, name, value)

    with pytest.raises(RowDeletedError):
        stale.save()
    with pytest.raises(DatabaseError):
        stale.save(update_fields=["names"])

    assert not User.objects.exists()


def test_changepassword_does_not_create_a_deleted_user_again(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_while_typing(prompt: str) -> str:
        User.objects.filter(pk=user.pk).delete()
        return NEW

    monkeypatch.setattr("getpass.getpass", delete_while_typing)

    with pytest.raises(RowDeletedError):
        call_command("changepassword", "alice")

    assert not User.objects.exists()


def test_fields_that_are_named_are_written(user: User) -> None:
    stale = read(user)
    User.objects.update(names="other")

    stale.save(update_fields=["names"])

    assert read(user).names == ""


def test_a_row_that_was_read_in_part_saves_what_was_set(user: User) -> None:
    User.objects.update(names="Alice")
    partly = User.objects.only("username").get(pk=user.pk)
    User.objects.update(names="Alice Archer")
    partly.email = "new@example.com"
    assert partly.names == "Alice Archer"

    partly.save()

    stored = read(user)
    assert (stored.email, stored.names) == ("new@example.com", "Alice Archer")


def test_a_refreshed_row_has_no_changes(user: User) -> None:
    stale = read(user)
    stale.names = "lost"
    stale.email = "kept@example.com"
    User.objects.update(names="Alice")
    stale.refresh_from_db(fields=["names"])

    stale.save()

    stored = read(user)
    assert (stored.names, stored.email) == ("Alice", "kept@example.com")


def test_a_second_save_writes_what_changed_since_the_first(user: User) -> None:
    user.names = "Alice"
    user.save()
    User.objects.update(names="other")
    user.email = "new@example.com"

    user.save()

    assert read(user).names == "other"


@pytest.mark.parametrize("must_change", [False, True])
def test_any_new_password_clears_a_required_change(user: User, must_change: bool) -> None:
    User.objects.update(must_change_password=must_change)
    stale = read(user)
    User.objects.update(must_change_password=True)

    stale.set_password(NEW)
    stale.save()

    assert not read(user).must_change_password


def test_changepassword_clears_a_required_change(
    make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_user("alice", must_change_password=True)
    assert user.must_change_password
    monkeypatch.setattr("getpass.getpass", lambda prompt: NEW)

    call_command("changepassword", "alice")

    assert not read(user).must_change_password


def test_no_way_of_saving_keeps_a_password_that_must_change(
    make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_user("alice", must_change_password=True)
    stale = read(user)
    stale.must_change_password = False
    monkeypatch.setattr("getpass.getpass", lambda prompt: PASSWORD)

    for row in (read(user), stale):
        row.set_password(PASSWORD)
        with pytest.raises(PasswordUnchangedError):
            row.save()
    with pytest.raises(CommandError, match="must differ from the current one"):
        call_command("changepassword", "alice")

    assert read(user).must_change_password
    assert read(user).password == user.password


def test_a_password_for_one_sign_in_keeps_the_required_change(user: User) -> None:
    user.set_password(NEW)
    user.must_change_password = True
    user.save()

    assert read(user).must_change_password


@pytest.mark.parametrize("password", [make_password(NEW), "!"], ids=["usable", "unusable"])
def test_a_hash_set_by_hand_ends_the_sessions(user: User, sign_in: SignIn, password: str) -> None:
    device = sign_in(user)
    user.password = password
    user.save()

    assert device.get(f"{API}/users/me").status_code == 401
    assert Event.objects.filter(kind="password_changed").count() == 1


def test_an_unusable_password_ends_the_sessions(user: User, sign_in: SignIn) -> None:
    device = sign_in(user)
    user.set_unusable_password()
    user.save()

    assert device.get(f"{API}/users/me").status_code == 401


def test_an_upgraded_hash_is_not_a_new_password(user: User, sign_in: SignIn) -> None:
    User.objects.update(password=make_password(PASSWORD, hasher="md5", salt="x" * 22))
    device = sign_in(user)
    stale = read(user)

    assert stale.check_password(PASSWORD)
    stale.names = "Alice"
    stale.save()

    assert device.get(f"{API}/users/me").status_code == 200
