"""What is recorded: of what happened, to whom, by whom, from where; and how little else."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, OperationalError, connection, transaction
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from accounts.models import Event, Session, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import change_address

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CURL = "curl/8.0"
NEW = "a rainy night in June"


def recorded(user: User | None = None, **fields: object) -> list[str]:
    """Return the kinds of events, the oldest first."""
    events = Event.objects.filter(**fields).order_by("id")
    return list((events.filter(user_id=user.pk) if user else events).values_list("kind", flat=True))


def log_in(client: APIClient, password: str, **extra: str) -> int:
    body = {"identity": "alice", "password": password}
    return client.post(f"{API}/auth/login", body, **extra).status_code


def guess(client: APIClient, identity: str, address: str) -> int:
    body = {"identity": identity, "password": "wrong"}
    return client.post(f"{API}/auth/login", body, REMOTE_ADDR=address).status_code


def lose_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache lose each key between `add` and `incr`, as one under pressure may."""

    def lose(self: object, key: str, *args: object, **kwargs: object) -> int:
        cache.delete(key)
        raise ValueError(key)

    monkeypatch.setattr(LocMemCache, "incr", lose)


class TestSignIn:
    def test_it_has_the_address_and_the_request(self, user: User, sign_in: SignIn) -> None:
        sign_in(
            user, HTTP_USER_AGENT=FIREFOX, REMOTE_ADDR="192.0.2.7", HTTP_X_REQUEST_ID="request-7"
        )

        event = Event.objects.get(kind="signed_in")
        assert (event.user_id, event.username) == (user.pk, "alice")
        assert event.session_id == user.sessions.get().pk
        assert (event.ip_address, event.device) == ("192.0.2.7", "Firefox on Linux")
        assert event.request_id == "request-7"

    def test_a_device_that_is_new_is_marked(self, user: User, sign_in: SignIn) -> None:
        for agent in (FIREFOX, CURL, FIREFOX):
            sign_in(user, HTTP_USER_AGENT=agent)

        marks = Event.objects.filter(kind="signed_in").order_by("id")
        assert list(marks.values_list("is_new_device", flat=True)) == [True, True, False]

    def test_rejections_have_a_reason(self, client: APIClient, user: User) -> None:
        log_in(client, "wrong")
        user.is_active = False
        user.save()
        log_in(client, PASSWORD)
        client.post(f"{API}/auth/login", {"identity": "nobody", "password": PASSWORD})

        events = Event.objects.filter(kind="refused").order_by("id")
        assert [(e.username, e.detail) for e in events] == [
            ("alice", "wrong password"),
            ("alice", "inactive"),
            ("", "unknown identity"),
        ]

    def test_nobody_fills_the_table(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1000, 60)
        for _ in range(25):
            log_in(client, "wrong")
        for n in range(105):
            guess(client, f"nobody{n}", "192.0.2.1")
        guess(client, "nobody", "192.0.2.2")

        assert recorded(kind="refused", username="alice") == ["refused"] * 20
        assert len(recorded(kind="refused", ip_address="192.0.2.1")) == 100
        assert len(recorded(kind="refused", ip_address="192.0.2.2")) == 1

    def test_an_identity_that_does_not_exist_is_recorded_as_often_as_one_that_does(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1000, 60)
        for _ in range(25):
            guess(client, "alice", "192.0.2.1")
            guess(client, "nobody", "192.0.2.2")

        assert len(recorded(kind="refused", ip_address="192.0.2.1")) == 20
        assert len(recorded(kind="refused", ip_address="192.0.2.2")) == 20

    def test_a_right_password_is_recorded_whatever_was_guessed_before(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1000, 60)
        for _ in range(25):
            log_in(client, "wrong")
        User.objects.update(must_change_password=True)

        assert log_in(client, PASSWORD) == 403

        assert Event.objects.latest("id").detail == "password change required"

    def test_a_limit_that_is_reached_is_one_event_for_its_window(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        for _ in range(9):
            log_in(client, "wrong", REMOTE_ADDR="192.0.2.9")
        (event,) = Event.objects.filter(kind="limit_reached")
        assert (event.detail, event.ip_address, event.user_id) == ("auth", "192.0.2.9", None)

        settings.AUTH_RATE_LIMIT = (1000, 60)
        for _ in range(9):
            log_in(client, "wrong")
        event = Event.objects.filter(kind="limit_reached").latest("id")
        assert (event.detail, event.username) == ("login-failures", "alice")
        assert recorded(kind="limit_reached") == ["limit_reached"] * 2

    def test_a_limit_holds_where_it_cannot_be_recorded(
        self, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            log_in(client, "wrong")

        def fail(*args: object, **kwargs: object) -> None:
            raise OperationalError("gone")

        monkeypatch.setattr("accounts.models.events.EventQuerySet.create", fail)

        assert log_in(client, PASSWORD) == 429

    def test_the_limits_that_a_network_reaches_are_bounded(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        cache.set("events:limits:192.0.2.1/32", 20, 3600)
        for address in ("192.0.2.1", "192.0.2.2"):
            for _ in range(6):
                log_in(client, "wrong", REMOTE_ADDR=address)

        (event,) = Event.objects.filter(kind="limit_reached", detail="auth")
        assert event.ip_address == "192.0.2.2"

    def test_no_flood_silences_the_lockout_of_an_account(
        self, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT, settings.LOGIN_FAILURE_LIMIT = (1000, 60), (3, 900)
        for n in range(30):
            for _ in range(4):
                guess(client, f"nobody{n}", "192.0.2.1")
        for _ in range(4):
            guess(client, "alice", "192.0.2.1")

        assert recorded(user, kind="limit_reached", detail="login-failures") == ["limit_reached"]

    def test_a_cache_that_loses_a_key_hides_nothing(
        self, client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Event.objects.record_rejection(user, "wrong password")
        lose_keys(monkeypatch)

        Event.objects.record_rejection(user, "wrong password")

        assert recorded(user, kind="refused") == ["refused"] * 2


class TestEnds:
    def test_of_one_session(self, user: User, sign_in: SignIn) -> None:
        first, second = sign_in(user, HTTP_USER_AGENT=FIREFOX), sign_in(user)
        ended = user.sessions.get(device="Firefox on Linux")

        second.delete(f"{API}/auth/sessions/{ended.pk}")
        second.post(f"{API}/auth/logout")

        events = Event.objects.order_by("-id")[:2]
        assert [(e.kind, e.detail, e.actor) for e in events] == [
            ("signed_out", "logout", "alice"),
            ("session_ended", "user", "alice"),
        ]
        assert (events[1].session_id, events[1].device) == (ended.pk, "Firefox on Linux")
        assert first.get(f"{API}/users/me").status_code == 401

    def test_of_all_of_them(self, user: User, sign_in: SignIn) -> None:
        devices = [sign_in(user) for _ in range(3)]
        devices[0].post(f"{API}/auth/logout-all")

        assert recorded(kind="signed_out", detail="logout_all") == ["signed_out"] * 3

    def test_once_only(self, user: User, sign_in: SignIn) -> None:
        sign_in(user)
        assert user.sessions.end(Session.Reason.STAFF) == 1
        assert user.sessions.end(Session.Reason.USER) == 0

        event = Event.objects.get(kind="session_ended")
        assert (event.detail, event.actor, event.ip_address) == ("staff", "manage.py", None)

    def test_a_replay(
        self, client: APIClient, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.REFRESH_GRACE = timedelta(0)
        body = {"refresh_token": sign_in(user).tokens["refresh_token"]}
        client.post(f"{API}/auth/refresh", body)
        before = Event.objects.count()
        client.post(f"{API}/auth/refresh", body, REMOTE_ADDR="192.0.2.66")

        event = Event.objects.latest("id")
        assert Event.objects.count() == before + 1
        assert (event.kind, event.ip_address, event.username) == ("replayed", "192.0.2.66", "alice")


class TestAccounts:
    def test_changes_to_and_fro_are_bounded_and_hide_no_other(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = (1000, 60)
        device = sign_in(user)
        for n in range(25):
            device.patch(f"{API}/users/{user.pk}", {"names": f"Alice {n}"})
        device.patch(f"{API}/users/{user.pk}", {"username": "alice2"})

        changes = Event.objects.filter(kind="account_changed").order_by("id")
        assert list(changes.values_list("detail", flat=True)) == ["names"] * 20 + ["username"]

    def test_what_staff_change_is_recorded_beside_what_the_user_changes(self, user: User) -> None:
        cache.set(f"events:changes:{user.pk}:{user.pk}:names", 20, 3600)
        user.names = "Alice"
        user.save()

        assert recorded(user)[1:] == ["account_changed"]

    def test_who_renames_the_account_does_not_hide_the_address(
        self, user: User, sign_in: SignIn
    ) -> None:
        thief = sign_in(user, REMOTE_ADDR="192.0.2.66")
        address = {"REMOTE_ADDR": "192.0.2.66"}
        thief.patch(f"{API}/users/{user.pk}", {"username": "eve", "names": "Eve"}, **address)
        thief.post(f"{API}/users/me/email", {"email": "eve@example.com"}, **address)

        events = thief.get(f"{API}/auth/events").json()["results"][:2]

        kinds = ["email_change_asked", "account_changed"]
        assert [event["event"] for event in events] == kinds
        assert [event["ip_address"] for event in events] == ["192.0.2.66"] * 2

    def test_who_takes_the_name_of_a_user_does_not_become_the_actor(
        self, user: User, sign_in: SignIn
    ) -> None:
        event = Event(kind="session_ended", user_id=user.pk, username="alice")
        event.actor, event.actor_id = "alice", user.pk + 1
        assert not event.is_own

        event.actor_id = None  # recorded by an earlier release
        assert event.is_own

    def test_the_life_of_one(self, db: None, client: APIClient, sign_in: SignIn) -> None:
        body = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        number = client.post(f"{API}/users", body).json()["id"]
        user = User.objects.get()
        device = sign_in(user)
        device.patch(f"{API}/users/{number}", {"names": "Alice", "username": "Alice"})
        device.patch(f"{API}/users/{number}", {"names": "Alice"})
        change_address(device, "a@example.com")
        change = {"current_password": PASSWORD, "new_password": NEW}
        device.post(f"{API}/auth/password", change)
        device.delete(f"{API}/users/{number}")

        assert recorded() == [
            "account_created", "signed_in", "account_changed", "email_change_asked",
            "email_changed", "password_changed", "account_deleted",
        ]  # fmt: skip
        assert Event.objects.get(kind="account_changed").detail == "names, username"
        names = {name.lower() for name in Event.objects.values_list("username", flat=True)}
        assert names == {"alice"}
        assert set(Event.objects.values_list("user_id", flat=True)) == {number}

    def test_states(self, user: User, sign_in: SignIn) -> None:
        sign_in(user)
        for field, value in (
            ("is_active", False), ("is_active", True), ("must_change_password", True),
            ("must_change_password", False), ("is_staff", True),
        ):  # fmt: skip
            setattr(user, field, value)
            user.save()

        assert recorded(user)[2:] == [
            "account_deactivated", "session_ended", "account_activated",
            "password_change_required", "account_changed",
        ]  # fmt: skip

    def test_an_ordinary_request_records_nothing(
        self,
        user: User,
        sign_in: SignIn,
        client: APIClient,
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        device = sign_in(user)
        before = Event.objects.count()
        with django_assert_num_queries(1):
            client.post(f"{API}/auth/refresh", {"refresh_token": device.tokens["refresh_token"]})
        with django_assert_num_queries(1):
            device.get(f"{API}/users/me")

        assert Event.objects.count() == before


class TestRecord:
    def test_it_is_never_changed(self, user: User) -> None:
        event = Event.objects.latest("id")
        assert str(event) == "account created: alice"
        assert str(Event(kind="limit_reached")) == "limit_reached"

        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            Event.objects.update(username="mallory")
        with connection.cursor() as cursor:
            cursor.execute("SELECT username FROM accounts_event")
            assert cursor.fetchall() == [("alice",)]

    def test_no_secret_is_part_of_it(self, client: APIClient, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        client.post(f"{API}/auth/login", {"identity": PASSWORD, "password": PASSWORD})
        log_in(client, "wr0ng passw0rd")

        written = repr(list(Event.objects.values()))
        for secret in (PASSWORD, "wr0ng passw0rd", *device.tokens.values()):
            assert not isinstance(secret, str) or secret == "Bearer" or secret not in written


class TestOwnEvents:
    def test_the_newest_come_first(self, user: User, stranger: User, sign_in: SignIn) -> None:
        sign_in(stranger)
        device = sign_in(user, HTTP_USER_AGENT=FIREFOX)

        response = device.get(f"{API}/auth/events")

        page = response.json()
        assert page["count"] == 2
        newest, oldest = page["results"]
        assert newest == {
            "id": newest["id"],
            "event": "signed_in",
            "detail": "pwd",
            "created_at": newest["created_at"],
            "session": str(user.sessions.get().pk),
            "device": "Firefox on Linux",
            "ip_address": "127.0.0.1",
            "new_device": True,
        }
        assert (oldest["event"], oldest["ip_address"]) == ("account_created", None)
        assert response.headers["RateLimit-Policy"] == '"auth-read";q=60;w=60'
        assert response.headers["Cache-Control"] == "no-store"

    def test_pages_and_cursors(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        response = device.get(f"{API}/auth/events?limit=1&page=2")
        assert [event["event"] for event in response.json()["results"]] == ["account_created"]


@pytest.fixture
def forced(make_user: Callable[..., User]) -> User:
    return make_user("alice", must_change_password=True)


class TestForcedChange:
    change = {"identity": "ALICE@example.com", "current_password": PASSWORD, "new_password": NEW}

    def test_only_the_right_password_learns_of_the_required_change(
        self, client: APIClient, forced: User
    ) -> None:
        right = client.post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})
        wrong = client.post(f"{API}/auth/login", {"identity": "alice", "password": "wrong"})

        assert (right.status_code, right.json()["code"]) == (403, "password_change_required")
        assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_credentials")
        assert not forced.sessions.exists()
        reasons = (
            Event.objects.filter(kind="refused").order_by("id").values_list("detail", flat=True)
        )
        assert list(reasons) == ["password change required", "wrong password"]

    def test_the_new_password_must_be_another(self, client: APIClient, forced: User) -> None:
        response = client.post(f"{API}/auth/password", self.change | {"new_password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (400, "validation_error")
        [error] = response.json()["errors"]
        assert (error["field"], error["code"]) == ("new_password", "password_unchanged")
        forced.refresh_from_db()
        assert forced.must_change_password
        assert Event.objects.latest("id").detail == "password unchanged"

    def test_it_is_required_of_a_signed_in_user_too(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        User.objects.update(must_change_password=True)
        body = {"current_password": PASSWORD, "new_password": PASSWORD}

        response = device.post(f"{API}/auth/password", body)

        assert [error["code"] for error in response.json()["errors"]] == ["password_unchanged"]
        body["new_password"] = NEW
        assert device.post(f"{API}/auth/password", body).status_code == 204
        user.refresh_from_db()
        assert not user.must_change_password

    @pytest.mark.parametrize(
        ("new", "code"),
        [("short", "password_too_short"), ("password123", "password_too_common")],
    )
    def test_the_general_rules_come_before_the_current_password(
        self, client: APIClient, user: User, new: str, code: str
    ) -> None:
        for current in (PASSWORD, "wrong"):
            body = self.change | {"current_password": current, "new_password": new}
            response = client.post(f"{API}/auth/password", body)
            assert [error["code"] for error in response.json()["errors"]] == [code]

        assert recorded(kind="refused") == []

    def test_a_right_password_is_recorded_where_the_new_one_is_rejected(
        self, client: APIClient, user: User
    ) -> None:
        for current, status in ((PASSWORD, 400), ("wrong", 401)):
            body = self.change | {"current_password": current, "new_password": "alice@example"}
            assert client.post(f"{API}/auth/password", body).status_code == status

        details = Event.objects.filter(kind="refused", user_id=user.pk).order_by("id")
        assert list(details.values_list("detail", flat=True)) == [
            "new password rejected", "wrong password",
        ]  # fmt: skip

    def test_changed_it_lets_in_again(self, client: APIClient, forced: User) -> None:
        response = client.post(f"{API}/auth/password", self.change)

        assert (response.status_code, response.content) == (204, b"")
        assert not forced.sessions.exists()
        assert log_in(client, PASSWORD) == 401
        assert log_in(client, NEW) == 200

    def test_it_ends_every_session_and_starts_none(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)

        assert client.post(f"{API}/auth/password", self.change).status_code == 204

        assert device.get(f"{API}/users/me").status_code == 401
        assert user.sessions.get().end_reason == "password_changed"

    @pytest.mark.parametrize(
        ("changed", "status", "code"),
        [
            ({"current_password": "wrong"}, 401, "invalid_credentials"),
            ({"identity": "nobody"}, 401, "invalid_credentials"),
            ({"new_password": "alice@example.com"}, 400, "validation_error"),
            ({"new_password": "short"}, 400, "validation_error"),
            ({"identity": 7}, 400, "validation_error"),
        ],
    )
    def test_it_is_rejected_like_a_login(
        self, client: APIClient, forced: User, changed: dict[str, object], status: int, code: str
    ) -> None:
        response = client.post(f"{API}/auth/password", self.change | changed)

        assert (response.status_code, response.json()["code"]) == (status, code)
        forced.refresh_from_db()
        assert forced.must_change_password
        assert forced.check_password(PASSWORD)

    def test_it_counts_like_a_login(
        self, client: APIClient, forced: User, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (2, 900)
        wrong = self.change | {"current_password": "wrong"}
        statuses = [client.post(f"{API}/auth/password", wrong).status_code for _ in range(2)]

        assert statuses == [401, 401]
        assert client.post(f"{API}/auth/password", self.change).status_code == 429
        assert log_in(client, PASSWORD) == 429

    def test_without_a_token_and_a_name_it_is_a_401(self, client: APIClient, user: User) -> None:
        bodies = [{}, [], {"current_password": PASSWORD, "new_password": NEW}, None]
        responses = [client.post(f"{API}/auth/password", body) for body in bodies * 2]
        broken = client.post(f"{API}/auth/password", b"{", content_type="application/json")

        for response in [*responses, broken]:
            assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")

    def test_with_a_token_the_name_means_nothing(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        body = self.change | {"identity": "mallory"}

        assert sign_in(user).post(f"{API}/auth/password", body).status_code == 204

        stranger.refresh_from_db()
        assert stranger.check_password(PASSWORD)
