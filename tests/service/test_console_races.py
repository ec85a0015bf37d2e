"""Concurrent changes in the console and the API, with threads and commits."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.contrib.messages import get_messages
from django.db import connection, transaction
from django.test import Client

from accounts.models import Event, User
from accounts.tests.test_races import at_once
from conftest import API, PASSWORD, SignIn
from tests.articles.models import Article
from tests.rig.forms import Fields, fields_of

ROUNDS = 40
NEW = "a rainy night in June"
ACTIONS = ["deactivate", "activate", "force_password_change", "end_sessions", "delete_selected"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("lifted_limits")]


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


def posting(console: Client, path: str, body: Fields | dict[str, Any]) -> Callable[[Any], Any]:
    return lambda _: console.post(path, body)


def test_a_password_that_was_changed_stays_changed(
    console: Client, make_user: Callable[..., User], sign_in: SignIn
) -> None:
    for n in range(ROUNDS):
        user = make_user(f"user{n}")
        form = fields_of(console.get(page_of(user))) | {"names": ["Alice"]}
        change = {"identity": f"user{n}", "current_password": PASSWORD, "new_password": NEW}

        saved, changed = at_once(
            posting(console, page_of(user), form),
            lambda client, change=change: client.post(f"{API}/auth/password", change),
        )

        assert (saved.status_code, changed.status_code) == (302, 204)
        assert sign_in(user, NEW).get(f"{API}/users/me").json()["names"] == "Alice"


def test_an_account_that_was_deleted_stays_deleted(
    console: Client, make_user: Callable[..., User], sign_in: SignIn
) -> None:
    for n in range(ROUNDS):
        user = make_user(f"user{n}")
        device = sign_in(user)
        form = fields_of(console.get(page_of(user))) | {"names": ["Alice"]}

        saved, deleted = at_once(
            posting(console, page_of(user), form),
            lambda _, device=device, user=user: device.delete(f"{API}/users/{user.pk}"),
        )

        assert (saved.status_code, deleted.status_code) == (302, 204)
        assert not User.objects.filter(pk=user.pk).exists()


def test_an_article_keeps_what_its_owner_changed(
    console: Client, user: User, sign_in: SignIn
) -> None:
    device = sign_in(user)
    for _ in range(ROUNDS):
        article = Article.objects.create(owner=user, title="Lamp", amount=1)
        page = f"/admin/articles/article/{article.pk}/change/"
        form = fields_of(console.get(page)) | {"title": ["Desk lamp"]}

        saved, changed = at_once(
            posting(console, page, form),
            lambda _, pk=article.pk: device.patch(f"{API}/articles/{pk}", {"amount": 2}),
        )

        assert (saved.status_code, changed.status_code) == (302, 200)
        article.refresh_from_db()
        assert (article.title, article.amount) == ("Desk lamp", 2)


def test_an_article_that_was_deleted_stays_deleted(
    console: Client, user: User, sign_in: SignIn
) -> None:
    device = sign_in(user)
    for _ in range(ROUNDS):
        article = Article.objects.create(owner=user, title="Lamp", amount=1)
        page = f"/admin/articles/article/{article.pk}/change/"
        form = fields_of(console.get(page)) | {"title": ["Desk lamp"]}

        saved, deleted = at_once(
            posting(console, page, form),
            lambda _, pk=article.pk: device.delete(f"{API}/articles/{pk}"),
        )

        assert (saved.status_code, deleted.status_code) == (302, 204)
        assert not Article.objects.exists()


BLOCKED = """
    SELECT EXISTS (SELECT FROM pg_locks
                    WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))
"""


def commit_after_the_validation(write: Callable[[], object], save: Callable[[], Any]) -> Any:
    """Write, and commit when what `save` writes waits for it; return the response of `save`."""
    written = threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            write()
            written.set()
            end = time.monotonic() + 10
            while not cursor.execute(BLOCKED).fetchone()[0] and time.monotonic() < end:
                time.sleep(0.01)
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert written.wait(10)
        response = save()
        holding.result()
    return response


BOB = {"username": "bob", "email": "bob@example.com", "is_active": "on"}


@pytest.mark.parametrize(
    ("page", "body", "write", "error"),
    [
        pytest.param(
            "accounts/user/{user}/change/",
            BOB,
            lambda user: User.objects.create_user("bob", "b@example.com", NEW),
            b"A user with this username already exists.",
            id="another username",
        ),
        pytest.param(
            "accounts/user/{user}/change/",
            BOB,
            lambda user: User.objects.create_user("bert", "bob@example.com", NEW),
            b"A user with this e-mail address already exists.",
            id="another address",
        ),
        pytest.param(
            "auth/group/add/",
            {"name": "Editors"},
            lambda user: Group.objects.create(name="Editors"),
            b"Group with this Name already exists.",
            id="a group",
        ),
        pytest.param(
            "articles/article/add/",
            {"title": "Lamp", "amount": "1", "owner": "{user}"},
            lambda user: user.delete(),
            b"Select a valid choice.",
            id="a deleted owner",
        ),
    ],
)
def test_what_another_saved_after_the_validation_is_an_error_of_the_form(
    console: Client,
    user: User,
    page: str,
    body: dict[str, str],
    write: Callable[[User], object],
    error: bytes,
) -> None:
    form = {name: value.format(user=user.pk) for name, value in body.items()}
    path = f"/admin/{page.format(user=user.pk)}"

    response = commit_after_the_validation(lambda: write(user), lambda: console.post(path, form))

    assert response.status_code == 200
    assert error in response.content
    assert b"successfully" not in response.content
    assert b"successfully" not in console.get("/admin/").content
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_counts_only_the_users_who_are_still_there(
    console: Client, make_user: Callable[..., User], sign_in: SignIn, action: str
) -> None:
    for n in range(15):
        users = [make_user(f"user{n}-{m}") for m in range(3)]
        devices = [(sign_in(user), user.pk) for user in users]
        body = {"action": action, "_selected_action": [user.pk for user in users]}

        done, *deleted = at_once(
            posting(console, "/admin/accounts/user/", body | {"post": "yes", "confirmed": "yes"}),
            *(
                lambda _, device=device, pk=pk: device.delete(f"{API}/users/{pk}")
                for device, pk in devices[:2]
            ),
        )

        assert done.status_code == 302
        assert {response.status_code for response in deleted} <= {204, 401}
        texts = [str(message) for message in get_messages(done.wsgi_request)]
        if action == "delete_selected":
            gone = Event.objects.filter(kind="account_deleted", username__startswith=f"user{n}-")
            number = gone.filter(actor="boss").count()
            assert not User.objects.filter(pk__in=body["_selected_action"]).exists()
            assert texts == [f"Successfully deleted {number} user{'s' if number > 1 else ''}."]
        elif action != "end_sessions":
            assert sum(int(text.split()[0]) for text in texts) <= 3
        console.cookies.pop("messages", None)


def test_two_deletions_of_the_same_users_count_each_once(
    console: Client, make_user: Callable[..., User]
) -> None:
    other = Client(raise_request_exception=False)
    other.force_login(User.objects.get(username="boss"))
    users = [make_user(f"user{n}") for n in range(6)]
    selected = [user.pk for user in users]
    body = {"action": "delete_selected", "post": "yes", "_selected_action": selected}

    responses = at_once(
        posting(console, "/admin/accounts/user/", body),
        posting(other, "/admin/accounts/user/", body),
    )

    assert [response.status_code for response in responses] == [302, 302]
    assert Event.objects.filter(kind="account_deleted").count() == 6
