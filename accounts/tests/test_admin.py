from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Session, User
from conftest import API, PASSWORD, SignIn


class TestDoor:
    def test_staff_sign_in_with_name_or_address(self, boss: User) -> None:
        for identity in ("boss", "BOSS@example.com"):
            browser = Client()
            body = {"username": identity, "password": PASSWORD}
            response = browser.post("/admin/login/?next=/admin/", body)
            assert (response.status_code, response.url) == (302, "/admin/")
            assert browser.get("/admin/").status_code == 200

    def test_users_do_not(self, user: User) -> None:
        response = Client().post("/admin/login/", {"username": "alice", "password": PASSWORD})

        assert response.status_code == 200
        assert b"staff account" in response.content

    def test_a_password_too_long_to_be_one_is_not_hashed(
        self, boss: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(User, "check_password", None)

        response = Client().post("/admin/login/", {"username": "boss", "password": "x" * 129})

        assert (response.status_code, b"correct" in response.content) == (200, True)

    def test_it_is_limited_like_the_api(self, boss: User) -> None:
        body = {"username": "boss", "password": "wrong"}
        responses = [Client().post("/admin/login/", body) for _ in range(6)]
        right = Client().post("/admin/login/", body | {"password": PASSWORD})

        assert [response.status_code for response in responses] == [200] * 5 + [429]
        assert right.status_code == 429
        assert right.headers["Content-Type"].startswith("text/html")
        assert int(right.headers["Retry-After"]) >= 1
        assert right.headers["RateLimit-Policy"] == '"auth";q=5;w=60'
        assert Client().get("/admin/login/").status_code == 200

    def test_failures_share_the_accounts_count(self, boss: User, settings: Settings) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        browser = Client(raise_request_exception=False)
        api = {"identity": "boss", "password": "wrong"}
        for _ in range(2):
            browser.post(f"{API}/auth/login", api, "application/json")
        browser.post("/admin/login/", {"username": "boss@example.com", "password": "wrong"})

        response = browser.post("/admin/login/", {"username": "boss", "password": PASSWORD})

        assert response.status_code == 429
        assert response.headers["Content-Type"].startswith("text/html")
        assert response.headers["RateLimit-Policy"] == '"login-failures";q=3;w=900'


class TestUsers:
    def test_a_list_costs_the_same_for_many(
        self,
        console: Client,
        make_user: Callable[..., User],
        sign_in: SignIn,
        django_assert_max_num_queries: DjangoAssertNumQueries,
    ) -> None:
        for n in range(12):
            user = make_user(f"user{n}")
            sign_in(user, REMOTE_ADDR=f"192.0.2.{n}")

        for path in ("accounts/user/", "accounts/session/"):
            with django_assert_max_num_queries(8):
                response = console.get(f"/admin/{path}")
            assert response.status_code == 200
            assert b"user11" in response.content

    @pytest.mark.parametrize("query", ["alice", "ALICE@example", "Archer"])
    def test_they_are_found(self, console: Client, make_user: Any, query: str) -> None:
        make_user("alice", names="Alice Archer")

        page = console.get("/admin/accounts/user/", {"q": query}).content.decode()

        assert "alice@example.com" in page
        assert "boss@example.com" not in page

    def test_a_change_keeps_the_rules_of_the_api(
        self, console: Client, user: User, stranger: User
    ) -> None:
        url = f"/admin/accounts/user/{stranger.pk}/change/"
        form = {"username": "mallory", "names": "", "email": stranger.email, "is_active": "on"}
        for changes in ({"username": "ALICE"}, {"username": "a@b"}, {"email": "ALICE@EXAMPLE.COM"}):
            assert console.post(url, form | changes).status_code == 200

        form |= {"username": " bob ", "names": "\ufb01nch"}
        assert console.post(url, form).status_code == 302
        assert User.objects.get(username="bob").names == "finch"

    def test_deactivation_ends_the_sessions(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        form = {"username": "alice", "email": user.email, "names": ""}

        url = f"/admin/accounts/user/{user.pk}/change/"
        assert console.post(url, form).status_code == 302

        assert device.get(f"{API}/users/me").status_code == 401
        assert user.sessions.get().end_reason == "account_changed"

    def test_a_user_is_deleted_with_the_sessions(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)

        url = f"/admin/accounts/user/{user.pk}/delete/"
        assert console.post(url, {"post": "yes"}).status_code == 302

        assert not User.objects.filter(pk=user.pk).exists()
        assert not Session.objects.exists()

    def test_all_sessions_of_the_selected_end(
        self, console: Client, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(user), sign_in(stranger)
        body = {"action": "end_sessions", "_selected_action": [user.pk]}

        question = console.post("/admin/accounts/user/", body)
        assert b"End 1 session of 1 user?" in question.content
        assert device.get(f"{API}/users/me").status_code == 200
        console.post("/admin/accounts/user/", body | {"confirmed": "yes"})

        assert device.get(f"{API}/users/me").status_code == 401
        assert other.get(f"{API}/users/me").status_code == 200


class TestSessions:
    def test_the_selected_end(self, console: Client, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)
        session = user.sessions.order_by("created_at").first()
        body = {"action": "end", "_selected_action": [str(session.pk)]}

        response = console.post("/admin/accounts/session/", body, follow=True)

        assert b"1 session ended" in response.content
        assert device.get(f"{API}/users/me").status_code == 401
        assert other.get(f"{API}/users/me").status_code == 200
        assert user.sessions.get(pk=session.pk).end_reason == "staff"

    def test_a_row_is_a_record_without_a_token(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        session = user.sessions.get()
        url = f"/admin/accounts/session/{session.pk}"

        page = console.get(f"{url}/change/").content.decode()

        assert "127.0.0.1" in page
        assert session.token_id.hex not in page.replace("-", "")
        assert console.post(f"{url}/change/", {"device": "x"}).status_code == 403
        assert console.post(f"{url}/delete/", {"post": "yes"}).status_code == 403
        assert console.get("/admin/accounts/session/add/").status_code == 403
        body = {"action": "delete_selected", "_selected_action": [str(session.pk)], "post": "yes"}
        console.post("/admin/accounts/session/", body)
        assert user.sessions.active().exists()

    def test_who_may_only_look_ends_nothing(
        self, make_user: Callable[..., User], user: User, sign_in: SignIn
    ) -> None:
        viewer = make_user("viewer", is_staff=True)
        names = ["view_session", "view_user"]
        viewer.user_permissions.set(Permission.objects.filter(codename__in=names))
        browser = Client()
        browser.force_login(viewer)
        sign_in(user)

        for path, action, key in (
            ("session", "end", str(user.sessions.get().pk)),
            ("user", "end_sessions", str(user.pk)),
        ):
            body = {"action": action, "_selected_action": [key]}
            browser.post(f"/admin/accounts/{path}/", body)

        assert user.sessions.active().exists()

    @pytest.mark.parametrize("query", ["alice", "ALICE@example.com", "lic", "2001:DB8:0::7", " "])
    def test_they_are_found_by_user_and_address(
        self, console: Client, user: User, stranger: User, sign_in: SignIn, query: str
    ) -> None:
        sign_in(user, REMOTE_ADDR="2001:db8::7")
        if query.strip():
            sign_in(stranger)

        page = console.get("/admin/accounts/session/", {"q": query}).content.decode()

        assert "1 session" in page
        assert "2001:db8::7" in page
        assert (
            "0 sessions" in console.get("/admin/accounts/session/", {"q": "eve"}).content.decode()
        )

    def test_they_are_filtered_by_state(self, console: Client, user: User, sign_in: SignIn) -> None:
        for device in ("ended", "expired", "live"):
            sign_in(user, HTTP_USER_AGENT="curl/8")
            user.sessions.filter(device="curl").update(device=device)
        user.sessions.filter(device="ended").end(Session.Reason.TOKEN_REUSE)
        user.sessions.filter(device="expired").update(expires_at=timezone.now())

        for state, device in (("token_reuse", "ended"), ("expired", "expired"), ("active", "live")):
            page = console.get("/admin/accounts/session/", {"state": state}).content.decode()
            assert "1 session" in page
            assert f">{device}</a>" in page

    def test_its_state_is_shown_in_words(self, user: User, sign_in: SignIn) -> None:
        sign_in(user)
        session = user.sessions.get()
        assert session.state == "active"
        assert str(session) == "Unknown device of alice"

        session.expires_at = session.created_at
        assert session.state == "expired"
        user.sessions.end("token_reuse")
        assert user.sessions.get().state == "refresh token used twice"
