"""What staff do in the console, who may, and what is on record afterwards."""

from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import Event, Session, User
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    """Sign in as a member of a group, or as a superuser."""
    # Tests that commit leave the database without what migrations put there.
    import_module("accounts.migrations.0003_support_group").make_group(apps, None)

    def sign_in(group: str = "", name: str = "boss", *permissions: str) -> Client:
        user = make_user(name, is_staff=True, is_superuser=not group and not permissions)
        user.groups.set(Group.objects.filter(name=group))
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client(HTTP_USER_AGENT="curl/8", REMOTE_ADDR="192.0.2.99")
        browser.force_login(user)
        return browser

    return sign_in


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


class TestUsersPage:
    def test_it_shows_devices_and_events(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        sign_in(user, REMOTE_ADDR="192.0.2.7")

        page = staff().get(page_of(user)).content.decode()

        for text in (
            "Signed in on 1 device",
            "192.0.2.7",
            "Account created",
            f"ID {user.pk}",
        ):
            assert text in page
        assert "new device" in page

    def test_one_session_ends_beside_its_row(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        stolen, own = sign_in(user), sign_in(user)
        session = user.sessions.order_by("created_at").first()
        browser = staff("Support", "susan")

        response = browser.post(
            f"/admin/accounts/user/{user.pk}/end-session/{session.pk}/", follow=True
        )

        assert b"1 session ended" in response.content
        assert stolen.get(f"{API}/users/me").status_code == 401
        assert own.get(f"{API}/users/me").status_code == 200
        event = Event.objects.latest("id")
        assert (event.kind, event.detail, event.username) == ("session_ended", "staff", "alice")
        assert (event.actor, event.ip_address) == ("susan", "192.0.2.99")
        again = f"/admin/accounts/user/{user.pk}/end-session/{session.pk}/"
        assert b"No session was active" in browser.post(again, follow=True).content

    def test_all_of_them_end(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        devices = [sign_in(user) for _ in range(3)]

        staff("Support").post(f"/admin/accounts/user/{user.pk}/end-sessions/")

        assert {d.get(f"{API}/users/me").status_code for d in devices} == {401}

    def test_another_users_session_is_not_this_users(
        self, staff: Callable[..., Client], user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device = sign_in(stranger)
        session = stranger.sessions.get()

        staff().post(f"/admin/accounts/user/{user.pk}/end-session/{session.pk}/")

        assert device.get(f"{API}/users/me").status_code == 200

    def test_states_are_changed(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        device, browser = sign_in(user), staff()
        address = f"/admin/accounts/user/{user.pk}/set"
        browser.post(f"{address}/force-password-change/")
        user.refresh_from_db()
        assert user.must_change_password
        assert "must change password" in browser.get(page_of(user)).content.decode()

        browser.post(f"{address}/deactivate/")
        assert device.get(f"{API}/users/me").status_code == 401
        assert "inactive" in browser.get("/admin/accounts/user/").content.decode()
        browser.post(f"{address}/activate/")
        user.refresh_from_db()
        assert user.is_active
        assert device.get(f"{API}/users/me").status_code == 401
        kinds = Event.objects.filter(actor="boss", user_id=user.pk).values_list("kind", flat=True)
        assert set(kinds) == {
            "password_change_required", "account_deactivated", "session_ended",
            "account_activated", "password_reset_asked",
        }  # fmt: skip
        assert browser.post(f"{address}/promote/").status_code == 403

    def test_the_user_learns_what_staff_did_but_not_from_where(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        sign_in(user, HTTP_USER_AGENT="Wget/1.21")
        browser, address = staff(), f"/admin/accounts/user/{user.pk}"
        browser.post(f"{address}/end-sessions/")
        browser.post(f"{address}/set/deactivate/")
        browser.post(f"{address}/set/activate/")

        events = sign_in(user).get(f"{API}/auth/events").json()["results"]

        told = {e["event"]: (e["device"], e["ip_address"]) for e in events[1:4]}
        assert told == {
            "account_activated": ("", None),
            "account_deactivated": ("", None),
            "session_ended": ("Wget", None),
        }

    def test_nothing_is_done_by_a_link(self, staff: Callable[..., Client], user: User) -> None:
        address = f"/admin/accounts/user/{user.pk}"
        for path in ("end-sessions", "set/deactivate"):
            assert staff(name=f"boss-{path[:3]}").get(f"{address}/{path}/").status_code == 405

    def test_a_number_finds_its_user(self, staff: Callable[..., Client], user: User) -> None:
        page = staff().get("/admin/accounts/user/", {"q": str(user.pk)}).content.decode()

        assert "alice@example.com" in page


class TestConfirmation:
    @pytest.mark.parametrize("across", ["0", "1"])
    def test_all_sessions_of_these_users(
        self,
        staff: Callable[..., Client],
        user: User,
        stranger: User,
        sign_in: SignIn,
        across: str,
    ) -> None:
        for owner in (user, user, stranger):
            sign_in(owner)
        one = user.sessions.first().pk
        body = {
            "action": "end_all_of_users",
            "_selected_action": [str(one)],
            "select_across": across,
        }
        browser = staff("Support")

        question = browser.post("/admin/accounts/session/", body).content.decode()
        asked = "End 2 sessions of 1 user?" if across == "0" else "End 3 sessions of 2 users?"
        assert asked in question
        assert user.sessions.active().count() == 2

        browser.post("/admin/accounts/session/", body | {"confirmed": "yes"})
        assert user.sessions.active().count() == 0
        assert stranger.sessions.active().count() == int(across == "0")


class TestEvents:
    def test_they_are_found_by_user_and_address(
        self, staff: Callable[..., Client], user: User, stranger: User, sign_in: SignIn
    ) -> None:
        sign_in(user, REMOTE_ADDR="192.0.2.7")
        number = user.pk
        user.delete()
        browser = staff("Support")
        for query, found in (
            ({"q": "alice"}, 3),
            ({"q": "192.0.2.7"}, 1),
            ({"q": "mallory@example.com"}, 1),
            ({"q": "nobody"}, 0),
            ({"user_id__exact": number}, 3),
            ({"kind__exact": "account_deleted"}, 1),
        ):
            page = browser.get("/admin/accounts/event/", query).content.decode()
            assert f"{found} event" in page, query

    def test_they_are_sorted_by_time_alone(self, staff: Callable[..., Client], user: User) -> None:
        page = staff().get("/admin/accounts/event/").content.decode()

        assert page.count('class="sortable') == page.count("sorted descending") == 1

    def test_a_row_is_a_record(self, staff: Callable[..., Client], user: User) -> None:
        event = Event.objects.get(user_id=user.pk)
        address = f"/admin/accounts/event/{event.pk}"
        browser = staff()

        assert b"account created" in browser.get(f"{address}/change/").content
        assert browser.post(f"{address}/change/", {"username": "x"}).status_code == 403
        assert browser.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
        assert browser.get("/admin/accounts/event/add/").status_code == 403


class TestSupport:
    def test_it_sees_and_changes_nothing_else(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        browser = staff("Support")
        page = browser.get(page_of(user)).content.decode()
        index = browser.get("/admin/").content.decode()

        assert "End all 1" in page
        for offered in ("Deactivate", "Force a password", 'name="_save"', "deletelink"):
            assert offered not in page
        assert user.password not in page
        assert user.password.rpartition("$")[2] not in page
        assert "auth/group" not in index
        for address in (
            page_of(user),
            f"/admin/accounts/user/{user.pk}/set/deactivate/",
            f"/admin/accounts/user/{user.pk}/delete/",
            f"/admin/accounts/user/{user.pk}/set/send-reset-link/",
            "/admin/accounts/user/add/",
            "/admin/auth/group/add/",
        ):
            assert browser.post(address, {"username": "x", "post": "yes"}).status_code == 403
        for action in ("deactivate", "force_password_change", "delete_selected"):
            body = {"action": action, "_selected_action": [user.pk], "post": "yes"}
            browser.post("/admin/accounts/user/", body)
        user.refresh_from_db()
        assert (user.is_active, user.must_change_password) == (True, False)

    @pytest.mark.parametrize(
        ("path", "body", "ends_all"),
        [
            ("user/{user}/end-session/{session}/", {}, False),
            ("user/{user}/end-sessions/", {}, True),
            ("user/", {"action": "end_sessions", "_selected_action": "{user}"}, True),
            ("session/", {"action": "end", "_selected_action": "{session}"}, False),
            ("session/", {"action": "end_all_of_users", "_selected_action": "{session}"}, True),
        ],
    )
    @pytest.mark.parametrize("may_end", [True, False])
    def test_it_ends_sessions_of_superusers_in_every_way(
        self,
        staff: Callable[..., Client],
        sign_in: SignIn,
        path: str,
        body: dict[str, str],
        *,
        ends_all: bool,
        may_end: bool,
    ) -> None:
        console = staff(name="root")
        device = sign_in(User.objects.get(username="root"))
        session = Session.objects.get()
        browser = staff("Support", "susan")
        if not may_end:
            Group.objects.get(name="Support").permissions.through.objects.filter(
                permission__codename="end_session"
            ).delete()
        keys = {"user": session.user_id, "session": session.pk}
        form = {name: value.format(**keys) for name, value in body.items()} | {"confirmed": "yes"}

        browser.post(f"/admin/accounts/{path.format(**keys)}", form)

        assert device.get(f"{API}/users/me").status_code == (401 if may_end else 200)
        is_signed_in = console.get("/admin/").status_code == 200
        assert is_signed_in == (not (ends_all and may_end))

    def test_it_does_nothing_else_to_a_superuser(self, staff: Callable[..., Client]) -> None:
        staff(name="root")
        root = User.objects.get(username="root")
        browser = staff("Support", "susan")

        for path in ("change", "delete", "set/deactivate", "set/force-password-change"):
            page = f"/admin/accounts/user/{root.pk}/{path}/"
            assert browser.post(page, {"username": "x", "post": "yes"}).status_code == 403
        for action in ("deactivate", "force_password_change", "delete_selected"):
            body = {"action": action, "_selected_action": [root.pk], "post": "yes"}
            browser.post("/admin/accounts/user/", body)

        assert User.objects.filter(pk=root.pk, is_active=True, must_change_password=False).exists()

    def test_the_api_knows_the_same_permissions(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        staff("Support", "susan")
        susan = sign_in(User.objects.get(username="susan"))

        assert susan.get(f"{API}/users/{user.pk}").json()["email"] == "alice@example.com"


class TestRanks:
    """Someone who may change users, but is no superuser."""

    @pytest.fixture
    def clerk(self, staff: Callable[..., Client]) -> Client:
        return staff(
            "", "clerk", "view_user", "change_user", "add_user", "delete_user", "change_group",
            "view_group", "delete_session",
        )  # fmt: skip

    def test_users_are_changed_but_not_raised(self, clerk: Client, user: User) -> None:
        form: dict[str, object] = {"username": "alice", "email": user.email, "names": "Alice"}
        form |= {
            "is_active": "on",
            "is_staff": "on",
            "is_superuser": "on",
            "user_permissions": ["1"],
        }

        assert clerk.post(page_of(user), form).status_code == 302

        user.refresh_from_db()
        assert (user.names, user.is_staff, user.is_superuser) == ("Alice", False, False)
        assert not user.user_permissions.exists()

    def test_staff_are_not_touched(
        self, clerk: Client, make_user: Callable[..., User], user: User
    ) -> None:
        boss = make_user("boss", is_staff=True, is_superuser=True)
        himself = User.objects.get(username="clerk")
        for target in (boss, himself):
            assert clerk.post(page_of(target), {"username": "x"}).status_code == 403
            address = f"/admin/accounts/user/{target.pk}"
            for path in ("delete", "set/deactivate", "set/send-reset-link"):
                assert clerk.post(f"{address}/{path}/", {"post": "yes"}).status_code == 403
        body = {"action": "deactivate", "_selected_action": [boss.pk, user.pk]}
        page = clerk.post("/admin/accounts/user/", body, follow=True).content.decode()
        body = {"action": "delete_selected", "_selected_action": [boss.pk], "post": "yes"}
        clerk.post("/admin/accounts/user/", body)

        boss.refresh_from_db()
        user.refresh_from_db()
        assert (boss.is_active, user.is_active) == (True, False)
        assert "1 of them are staff" in page

    def test_groups_are_for_superusers(self, clerk: Client) -> None:
        group = Group.objects.get(name="Support")
        address = f"/admin/auth/group/{group.pk}/change/"

        assert clerk.post(address, {"name": "x", "permissions": ["1"]}).status_code == 403

    def test_a_superuser_raises_and_it_is_on_record(
        self, staff: Callable[..., Client], user: User
    ) -> None:
        group = Group.objects.get_or_create(name="Support")[0]
        form = {"username": "alice", "email": user.email, "names": "", "is_active": "on"}
        form |= {"is_staff": "on", "groups": str(group.pk)}

        assert staff().post(page_of(user), form).status_code == 302

        details = Event.objects.filter(kind="account_changed", actor="boss").order_by("id")
        assert list(details.values_list("detail", flat=True)) == ["is_staff", "groups"]

    def test_the_selected_are_deleted_one_by_one(
        self, staff: Callable[..., Client], user: User, stranger: User
    ) -> None:
        selected = [user.pk, stranger.pk]
        body = {"action": "delete_selected", "post": "yes", "_selected_action": selected}

        staff().post("/admin/accounts/user/", body)

        gone = Event.objects.filter(kind="account_deleted", actor="boss")
        assert set(gone.values_list("username", flat=True)) == {"alice", "mallory"}


class TestDoor:
    def test_coming_and_going_is_on_record(self, make_user: Callable[..., User]) -> None:
        make_user("boss", is_staff=True)
        browser = Client()
        body = {"username": "boss", "password": PASSWORD, "next": "/admin/"}

        assert browser.post("/admin/login/", body).status_code == 302
        browser.post("/admin/logout/")
        browser.post("/admin/logout/")

        events = Event.objects.filter(detail__startswith="console").order_by("id")
        assert [(e.kind, e.detail, e.username) for e in events] == [
            ("signed_in", "console, pwd", "boss"), ("signed_out", "console", "boss"),
        ]  # fmt: skip

    def test_a_forced_change_is_reported_and_made_through_the_api(
        self, make_user: Callable[..., User], client: APIClient
    ) -> None:
        make_user("boss", is_staff=True, must_change_password=True)
        body = {"username": "boss", "password": PASSWORD, "next": "/admin/"}
        page = Client().post("/admin/login/", body)
        assert (page.status_code, page.url) == (302, "/admin/login/password/?next=%2Fadmin%2F")

        change = {"identity": "boss", "current_password": PASSWORD, "new_password": NEW}
        assert client.post(f"{API}/auth/password", change).status_code == 204
        assert Client().post("/admin/login/", body | {"password": NEW}).status_code == 302
