"""A field of any kind that an owner adds to the user is what the ORM would make of it."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import connection, models

from accounts import tokens
from accounts.models import Session, User
from accounts.models.managers import user_query
from accounts.models.session_tokens import authentication_query, user_fields
from conftest import SignIn


class ReversedField(models.TextField):  # type: ignore[type-arg]  # not generic at runtime
    """A field that the database has in another form, as an encrypted field."""

    def from_db_value(self, value: str, expression: Any, connection: Any) -> str:
        return value[::-1]

    def get_prep_value(self, value: str) -> str:
        return value[::-1]


@pytest.fixture(autouse=True)
def added_fields(db: None) -> Iterator[None]:
    added: dict[str, Any] = {
        "preferences": models.JSONField(default=dict),
        "phone": ReversedField(default=""),
    }
    for name, field in added.items():
        User.add_to_class(name, field)
        with connection.schema_editor() as editor:
            editor.add_field(User, field)
    forget_compiled_queries()
    yield
    for name, field in added.items():
        User._meta.local_fields.remove(field)
        delattr(User, name)
    forget_compiled_queries()


def forget_compiled_queries() -> None:
    apps.clear_cache()
    for compiled in (authentication_query, user_query, user_fields):
        compiled.cache_clear()


@pytest.fixture
def user(user: User) -> User:
    user.preferences, user.phone = {"theme": "dark"}, "123"
    user.save()
    return user


def stored() -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT preferences::text, phone FROM accounts_user")
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def test_a_request_and_a_login_get_what_the_orm_gives(user: User, sign_in: SignIn) -> None:
    sign_in(user)
    session = Session.objects.get()
    claims = tokens.Claims(user.pk, session.pk, session.token_id, session.expires_at)

    for found in (Session.objects.authenticate(claims).user, User.objects.with_identity("alice")):
        assert (found.preferences, found.phone) == ({"theme": "dark"}, "123")


def test_a_save_stores_what_the_orm_would(user: User, sign_in: SignIn) -> None:
    found = User.objects.with_identity("alice")
    found.preferences, found.phone = {"theme": "light"}, "456"
    found.save()
    assert stored() == ('{"theme": "light"}', "654")

    found.save()
    sign_in(user)
    assert stored() == ('{"theme": "light"}', "654")


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_value_that_is_changed_in_place_is_saved(user: User, is_saved: bool) -> None:
    found = User.objects.with_identity("alice")
    if is_saved:
        found.phone = "456"
        found.save()

    found.preferences["theme"] = "light"
    found.save()

    assert stored()[0] == '{"theme": "light"}'


def test_an_account_is_created_with_the_defaults(user: User) -> None:
    boss = User.objects.create_superuser("boss", "boss@example.com")

    boss.refresh_from_db()
    assert (boss.preferences, boss.phone) == ({}, "")


def test_a_token_names_a_user_by_a_primary_key_of_any_kind(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(User._meta, "pk", models.UUIDField())
    user_id = uuid4()

    assert tokens.read_user_id(str(user_id)) == user_id
    for claim in (user_id.hex, str(user_id).upper(), "1", "", None, 1, "\x00"):
        with pytest.raises(tokens.TokenError):
            tokens.read_user_id(claim)
