"""The console's pages that take a password, and the sign-out."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, User
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"
LOGIN = "/admin/login/"
CHANGE = "/admin/password_change/"


def sign_in_to_console(identity: str, password: str = PASSWORD, **headers: str) -> Any:
    body = {"username": identity, "password": password, "next": "/admin/"}
    return Client(raise_request_exception=False).post(LOGIN, body, **headers)


def change(old: str = PASSWORD, new: str = NEW, **more: str) -> dict[str, str]:
    return {"old_password": old, "new_password1": new, "new_password2": new, **more}


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
    browser = Client()
    pages = [browser.get(path).content.decode() for path in ("/admin/login/", CHANGE)]
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    pages.append(browser.get(CHANGE).content.decode())

    for page in pages:
        fields = re.findall(r"<input[^>]*name=\"[^\"]*password[^\"]*\"[^>]*>", page)
        assert fields
        assert all('type="password"' in field for field in fields)


class TestForcedChange:
    @pytest.fixture
    def susan(self, make_user: Callable[..., User]) -> User:
        return make_user("susan", is_staff=True, must_change_password=True)

    def test_it_is_done_before_the_sign_in(self, susan: User) -> None:
        page = sign_in_to_console("susan").content.decode()
        assert "must be changed before you sign in" in page
        assert f'<a href="{CHANGE}">' in page

        browser = Client()
        page = browser.get(CHANGE).content.decode()
        assert 'name="username"' in page
        assert "Log out" not in page
        done = browser.post(CHANGE, change(username="susan"), follow=True)

        assert b"Your password was changed. Sign in with the new one." in done.content
        assert sign_in_to_console("susan", NEW).status_code == 302
        susan.refresh_from_db()
        assert not susan.must_change_password

    def test_the_same_password_is_rejected(self, susan: User) -> None:
        page = Client().post(CHANGE, change(new=PASSWORD, username="susan"))

        assert b"must differ from the current one" in page.content
        assert page.context["form"].errors.as_data()["new_password1"][0].code == (
            "password_unchanged"
        )
        susan.refresh_from_db()
        assert susan.must_change_password

    @pytest.mark.parametrize(
        ("name", "old"), [("susan", "wrong"), ("nobody", PASSWORD), ("alice", PASSWORD)]
    )
    def test_a_wrong_pair_or_a_user_who_is_not_staff_is_rejected(
        self, susan: User, user: User, name: str, old: str
    ) -> None:
        page = Client().post(CHANGE, change(old, username=name))

        assert (page.status_code, b"entered incorrectly" in page.content) == (200, True)
        assert not Event.objects.filter(kind="password_changed").exists()
        assert details() == [
            {"susan": "wrong password", "nobody": "unknown identity", "alice": "not staff"}[name]
        ]

    def test_a_password_like_the_name_is_rejected_once_the_old_one_is_right(
        self, susan: User
    ) -> None:
        page = Client().post(CHANGE, change(new="susan12x", username="susan"))

        assert b"too similar" in page.content
        assert not Event.objects.filter(kind="password_changed").exists()


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
