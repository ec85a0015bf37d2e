"""The console's pages that take a password, and the sign-out."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Ticket, User
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"
LOGIN = "/admin/login/"
CHANGE = "/admin/password_change/"
FORCED = "/admin/login/password/"


def sign_in_to_console(identity: str, password: str = PASSWORD, **headers: str) -> Any:
    body = {"username": identity, "password": password, "next": "/admin/"}
    return Client(raise_request_exception=False).post(LOGIN, body, **headers)


def new_password(new: str = NEW) -> dict[str, str]:
    return {"new_password1": new, "new_password2": new}


def change(old: str = PASSWORD, new: str = NEW) -> dict[str, str]:
    return {"old_password": old, **new_password(new)}


def details(kind: str = "refused") -> list[str]:
    return list(Event.objects.filter(kind=kind).order_by("id").values_list("detail", flat=True))


class TestSignIn:
    def test_a_right_password_of_a_user_who_is_not_staff_is_recorded(self, user: User) -> None:
        sign_in_to_console("alice")

        event = Event.objects.latest("id")
        assert (event.kind, event.detail, event.username) == ("refused", "not staff", "alice")

    def test_it_gets_the_response_of_a_wrong_password(self, user: User) -> None:
        pages = [sign_in_to_console("alice", text) for text in (PASSWORD, "wrong")]

        right, wrong = (re.sub(r'value="\w{64}"', "", page.content.decode()) for page in pages)
        assert right == wrong

    def test_it_counts_as_a_failure_and_clears_none(
        self, user: User, client: APIClient, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        body = {"identity": "alice", "password": "wrong"}
        for _ in range(2):
            client.post(f"{API}/auth/login", body)
        sign_in_to_console("alice")

        assert client.post(f"{API}/auth/login", body).status_code == 429

    def test_a_long_address_signs_in(self, make_user: Callable[..., User]) -> None:
        email = f"{'a' * 60}@{'b' * 60}.example"
        make_user("boss", is_staff=True, email=email)
        page = Client().get(LOGIN).content.decode()

        assert sign_in_to_console(email).status_code == 302
        assert 'maxlength="254"' in page

    def test_a_name_too_long_to_be_one_is_not_looked_up(
        self, boss: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(User.objects), "with_identity", None)

        response = sign_in_to_console("a" + "\u0315\u0327" * 200)

        assert (response.status_code, b"at most 254" in response.content) == (200, True)

    def test_posts_of_other_sites_are_not_counted(self, boss: User) -> None:
        browser = Client(enforce_csrf_checks=True, raise_request_exception=False)
        body = {"username": "boss", "password": "wrong"}

        responses = [browser.post(LOGIN, body) for _ in range(6)]

        assert [response.status_code for response in responses] == [403] * 6
        assert b"This form has expired" in responses[0].content
        assert b"<style" not in responses[0].content
        assert sign_in_to_console("boss").status_code == 302


def test_every_password_field_masks_its_input(make_user: Callable[..., User]) -> None:
    forced, browser = Client(), Client()
    make_user("susan", is_staff=True, must_change_password=True)
    forced.post(LOGIN, {"username": "susan", "password": PASSWORD})
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    pages = [browser.get(CHANGE), Client().get(LOGIN), forced.get(FORCED)]

    for page in pages:
        fields = re.findall(
            r"<input[^>]*name=\"[^\"]*password[^\"]*\"[^>]*>", page.content.decode()
        )
        assert fields
        assert all('type="password"' in field for field in fields)


class TestForcedChange:
    @pytest.fixture
    def susan(self, make_user: Callable[..., User]) -> User:
        return make_user("susan", is_staff=True, must_change_password=True)

    @pytest.fixture
    def browser(self, susan: User) -> Client:
        """A browser that the sign-in has led to the page."""
        browser = Client()
        body = {"username": "susan", "password": PASSWORD, "next": "/admin/"}
        assert browser.post(LOGIN, body).url == f"{FORCED}?next=%2Fadmin%2F"
        return browser

    def test_it_is_done_before_the_sign_in(self, susan: User, browser: Client) -> None:
        page = browser.get(FORCED).content.decode()
        assert "must be changed before you sign in" in page
        assert 'name="old_password"' not in page
        assert "Log out" not in page
        assert browser.get("/admin/").status_code == 302
        done = browser.post(FORCED, new_password(), follow=True)

        assert b"Your password was changed. Sign in with the new one." in done.content
        assert sign_in_to_console("susan", NEW).status_code == 302
        susan.refresh_from_db()
        assert not susan.must_change_password
        assert details() == ["password change required"]

    def test_the_same_password_is_rejected(self, susan: User, browser: Client) -> None:
        page = browser.post(FORCED, new_password(PASSWORD))

        assert b"must differ from the current one" in page.content
        assert page.context["form"].errors.as_data()["new_password1"][0].code == (
            "password_unchanged"
        )
        susan.refresh_from_db()
        assert susan.must_change_password
        assert browser.post(FORCED, new_password()).url == LOGIN

    def test_a_password_like_the_name_is_rejected(self, browser: Client) -> None:
        page = browser.post(FORCED, new_password("susan12x"))

        assert b"too similar" in page.content
        assert not Event.objects.filter(kind="password_reset").exists()

    def test_it_is_for_the_browser_that_has_proven_the_account(self, browser: Client) -> None:
        for method in ("get", "post"):
            response = getattr(Client(), method)(FORCED, new_password())
            assert (response.status_code, response.url) == (302, LOGIN)

        assert not Event.objects.filter(kind="password_reset").exists()

    def test_it_works_once(self, browser: Client) -> None:
        assert browser.post(FORCED, new_password()).url == LOGIN
        assert browser.post(FORCED, new_password("another rainy night")).url == LOGIN

        assert Event.objects.filter(kind="password_reset").count() == 1
        assert sign_in_to_console("susan", NEW).status_code == 302

    def test_another_change_meanwhile_ends_it(
        self, susan: User, browser: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reset = User.reset_password

        def change_meanwhile(self: User, ticket: Ticket, password: str) -> None:
            Ticket.objects.all().end()
            reset(self, ticket, password)

        monkeypatch.setattr(User, "reset_password", change_meanwhile)

        assert browser.post(FORCED, new_password()).url == LOGIN
        assert not Event.objects.filter(kind="password_reset").exists()

    def test_it_is_limited_like_the_sign_in(self, browser: Client) -> None:
        pages = [browser.post(FORCED, new_password("short")) for _ in range(6)]

        assert [page.status_code for page in pages] == [200] * 5 + [429]


class TestOwnPassword:
    def test_it_is_changed_and_the_session_goes_on(
        self, console: Client, boss: User, sign_in: SignIn
    ) -> None:
        device = sign_in(boss)

        response = console.post(CHANGE, change())

        assert (response.status_code, response.url) == (302, f"{CHANGE}done/")
        assert console.get("/admin/").status_code == 200
        assert device.get(f"{API}/users/me").status_code == 401
        assert Event.objects.filter(kind="password_changed", actor="boss").count() == 1

    def test_wrong_guesses_are_counted_for_the_account(
        self, console: Client, client: APIClient, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(3):
            assert b"entered incorrectly" in console.post(CHANGE, change("wrong")).content

        login = client.post(f"{API}/auth/login", {"identity": "boss", "password": PASSWORD})
        page = console.post(CHANGE, change())

        assert (login.status_code, page.status_code) == (429, 429)
        assert page.headers["Content-Type"].startswith("text/html")
        assert details() == ["wrong password"] * 3

    def test_it_is_limited_like_the_sign_in(self, console: Client) -> None:
        pages = [console.post(CHANGE, change("wrong")) for _ in range(6)]

        assert [page.status_code for page in pages] == [200] * 5 + [429]
        assert pages[-1].headers["RateLimit-Policy"] == '"auth";q=5;w=60'
        assert console.get(CHANGE).status_code == 200

    @pytest.mark.parametrize("new", ["short", "password", PASSWORD])
    def test_the_new_one_is_validated_before_the_old_one_is_verified(
        self, console: Client, new: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(User, "check_password", None)

        page = console.post(CHANGE, change(new=new))

        assert page.status_code == 200
        assert set(page.context["form"].errors) <= {"new_password1", "new_password2"}

    def test_a_change_of_the_account_meanwhile_stops_it(
        self, console: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verify = User.check_password

        def deactivate_meanwhile(self: User, raw: str) -> bool:
            User.objects.filter(pk=self.pk).update(is_active=False)
            return verify(self, raw)

        monkeypatch.setattr(User, "check_password", deactivate_meanwhile)

        page = console.post(CHANGE, change())

        assert b"The account was changed meanwhile" in page.content
        assert not Event.objects.filter(kind="password_changed").exists()


class TestSignOut:
    @pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
    def test_only_a_post_signs_out_and_is_recorded(self, console: Client, method: str) -> None:
        response = getattr(console, method)("/admin/logout/")

        assert response.status_code == (200 if method == "options" else 405)
        assert console.get("/admin/").status_code == 200
        assert not Event.objects.filter(kind="signed_out").exists()

    def test_a_method_that_is_not_allowed_gets_a_page(self, console: Client) -> None:
        response = console.get("/admin/logout/")

        assert response.headers["Content-Type"].startswith("text/html")
        assert b"Method Not Allowed" in response.content
        assert "POST" in response.headers["Allow"]
