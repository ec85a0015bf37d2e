"""The export of an account: what it contains, who gets it, and that its size costs no memory."""

import gc
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, OutgoingEmail, Session, Ticket, TOTPDevice, User
from accounts.serializers.sessions import EventSerializer
from api import exports
from conftest import API, PASSWORD, SignIn
from tests.articles.models import Article
from tests.articles.serializers import ArticleSerializer
from tests.rig.api_tokens import issue_token, using
from tests.rig.factors import code_of, enrol, sign_in_with
from tests.rig.passkeys import add_passkey, device_of

pytestmark = pytest.mark.usefixtures("lifted_limits")

EXPORT = f"{API}/users/me/export"
ROWS = 2 * exports.BATCH + 1
ADD_EVENTS = """
    INSERT INTO accounts_event (kind, detail, user_id, username, actor, device, request_id,
                                is_new_device, created_at)
    SELECT 'signed_in', 'row ' || n, %s, 'alice', '', '', '', false,
           now() - n / 3 * interval '1 second'
      FROM generate_series(1, %s) n
"""


def read(device: APIClient) -> Any:
    response = device.get(EXPORT)
    assert response.status_code == 200, response.content
    return json.loads(response.getvalue())


def add_events(user: User, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(ADD_EVENTS, [user.pk, number])


@pytest.fixture
def place_count() -> Iterator[Callable[[], int]]:
    """Count the free places, which are as many after each test."""

    def count() -> int:
        gc.collect()
        return exports.PLACES._value

    before = count()
    yield count
    assert count() == before


class TestContent:
    def test_it_has_the_account_and_a_list_of_each_kind(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user, HTTP_USER_AGENT="curl/8.5")
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.CONFIRM_EMAIL, user, address="a@b.example")

        export = read(device)

        assert list(export)[:6] == [
            "account", "sessions", "events", "emails", "factors", "tokens",
        ]  # fmt: skip
        me = device.get(f"{API}/users/me").json()
        assert export["account"] | me == export["account"]
        assert export["account"]["pending_email"] == "a@b.example"
        [listed], [session] = (
            device.get(f"{API}/auth/sessions").json()["results"],
            export["sessions"],
        )
        assert listed.pop("current")
        assert session | listed == session
        assert export["events"] == device.get(f"{API}/auth/events").json()["results"][::-1]
        kinds = [event["event"] for event in export["events"]]
        assert kinds == ["account_created", "signed_in", "exported"]
        [email] = export["emails"]
        assert (email["kind"], email["address"]) == ("confirm_email", "a@b.example")

    def test_it_has_ended_sessions_too(self, user: User, sign_in: SignIn) -> None:
        sign_in(user).post(f"{API}/auth/logout")

        ended, current = read(sign_in(user))["sessions"]

        assert (ended["end_reason"], current["end_reason"]) == ("logout", "")
        assert ended["ended_at"]

    def test_it_has_nothing_of_others(
        self, user: User, stranger: User, boss: User, sign_in: SignIn
    ) -> None:
        sign_in(stranger)
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.VERIFY_EMAIL, stranger)
        browser = Client(REMOTE_ADDR="192.0.2.99")
        browser.force_login(boss)
        browser.post(f"/admin/accounts/user/{user.pk}/set/force-password-change/")
        User.objects.filter(pk=user.pk).update(must_change_password=False)

        text = json.dumps(read(sign_in(user)))

        assert "password_change_required" in text
        for foreign in ("mallory", "192.0.2.99", "boss"):
            assert foreign not in text

    def test_it_has_no_secret(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        ticket = Ticket.objects.issue("reset", user, address=user.email)
        session = Session.objects.get()

        text = device.get(EXPORT).getvalue().decode()

        tokens = (device.tokens["access_token"], device.tokens["refresh_token"], ticket.token)
        for secret in (PASSWORD, user.password, *tokens, str(session.token_id), str(ticket.pk)):
            assert secret not in text

    def test_it_names_factors_and_api_tokens_without_their_secrets(
        self, user: User, sign_in: SignIn
    ) -> None:
        token = issue_token(user, name="Nightly report")
        device = sign_in(user)
        passkey = add_passkey(device)
        user.refresh_from_db()
        codes = user.replace_recovery_codes(session=None)

        assert device.get(EXPORT).status_code == 403
        text = device_of(passkey).get(EXPORT).getvalue().decode()

        export = json.loads(text)
        [listed] = export["tokens"]
        assert (listed["name"], listed["id"]) == ("Nightly report", token.pk)
        kinds = [factor["method"] for factor in export["factors"]]
        assert kinds == ["recovery_code"] * 10 + ["passkey"]
        assert export["factors"][-1]["name"] == "Laptop"
        for secret in (token.text, token.digest, *codes):
            assert str(secret) not in text

    def test_it_names_an_authenticator_app_that_was_confirmed(
        self, user: User, sign_in: SignIn
    ) -> None:
        secret, _ = enrol(user)
        response = sign_in_with(code_of(secret)).get(EXPORT)

        text = response.getvalue().decode()

        [app, *_] = json.loads(text)["factors"]
        assert app["method"] == "totp"
        assert app["created_at"]
        assert secret not in text
        assert TOTPDevice.objects.get().secret not in text

    def test_its_text_is_readable(self, make_user: Callable[..., User], sign_in: SignIn) -> None:
        device = sign_in(make_user("zoe", names='Zoë "Z" \N{SNOWMAN}'))

        assert "Zoë" in device.get(EXPORT).getvalue().decode()
        assert read(device)["account"]["names"] == User.objects.get().names

    def test_any_number_of_rows_comes_in_order_and_once(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        add_events(user, ROWS)

        events = [event["id"] for event in read(device)["events"]]

        stored = Event.objects.order_by("created_at", "id").values_list("pk", flat=True)
        assert len(events) == ROWS + 3
        assert events == list(stored)

    def test_a_session_that_is_used_meanwhile_is_not_missing(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "BATCH", 1)
        devices = [sign_in(user) for _ in range(3)]
        expected = {str(pk) for pk in Session.objects.values_list("pk", flat=True)}
        sessions = dict(exports.parts_of(user))["sessions"]
        found = [next(sessions)["id"]]

        devices[1].post(
            f"{API}/auth/refresh", {"refresh_token": devices[1].tokens["refresh_token"]}
        )

        assert {str(pk) for pk in [*found, *(row["id"] for row in sessions)]} == expected


class TestAccess:
    def test_it_is_a_file_that_nothing_keeps(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).get(EXPORT)

        assert response.streaming
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Content-Disposition"] == (
            'attachment; filename="latchkey-export.json"'
        )
        assert response.headers["Cache-Control"] == "no-store"
        assert "ETag" not in response.headers
        assert response.getvalue()

    def test_it_needs_a_fresh_token(
        self, client: APIClient, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        device = sign_in(user)
        settings.FRESH_LIFETIME = timedelta(seconds=-1)

        stale, anonymous = device.get(EXPORT), client.get(EXPORT)

        assert (stale.status_code, stale.json()["code"]) == (403, "reauthentication_required")
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "not_authenticated")
        assert not Event.objects.filter(kind="exported").exists()

    def test_an_api_token_gets_none(self, user: User) -> None:
        response = using(issue_token(user)).get(EXPORT)

        assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
        assert not Event.objects.filter(kind="exported").exists()

    def test_it_is_an_event_of_the_session(self, user: User, sign_in: SignIn) -> None:
        read(sign_in(user))

        event = Event.objects.get(kind="exported")
        assert (event.user_id, event.session_id) == (user.pk, Session.objects.get().pk)
        assert (event.detail, event.actor) == ("", "alice")

    def test_it_is_limited(self, user: User, sign_in: SignIn, settings: Settings) -> None:
        device = sign_in(user)
        settings.AUTH_RATE_LIMIT = (5, 60)

        for _ in range(5):
            response = device.get(EXPORT)
            assert response.headers["RateLimit-Policy"] == '"auth";q=5;w=60'
            assert response.getvalue()

        assert device.get(EXPORT).status_code == 429

    def test_a_head_request_records_and_reads_nothing(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).head(EXPORT)

        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"
        assert not Event.objects.filter(kind="exported").exists()

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
    def test_it_is_only_read(self, user: User, sign_in: SignIn, method: str) -> None:
        assert getattr(sign_in(user), method)(EXPORT).status_code == 405


class TestPlaces:
    def test_a_process_has_two_at_once(
        self, user: User, sign_in: SignIn, place_count: Callable[[], int]
    ) -> None:
        device = sign_in(user)
        first, second = device.get(EXPORT), device.get(EXPORT)

        busy = device.get(EXPORT)

        assert (busy.status_code, busy.json()["code"]) == (503, "service_unavailable")
        assert int(busy.headers["Retry-After"]) == 10
        assert Event.objects.filter(kind="exported").count() == 2
        first.getvalue()
        second.getvalue()
        assert read(device)

    def test_a_response_that_is_not_sent_keeps_none(
        self,
        user: User,
        sign_in: SignIn,
        monkeypatch: pytest.MonkeyPatch,
        place_count: Callable[[], int],
    ) -> None:
        device = sign_in(user)

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError

        with monkeypatch.context() as patch:
            patch.setattr(type(Event.objects.all()), "record", fail)
            for _ in range(5):
                assert device.get(EXPORT).status_code == 500

        assert read(device)


class TestParts:
    def test_an_app_adds_its_own(self, user: User) -> None:
        assert "articles" in dict(exports.parts_of(user))

    def test_two_of_the_same_name_are_an_error_before_the_first_byte(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(user)
        other = apps.get_app_config("api")
        monkeypatch.setattr(other, "export", lambda user: [("events", [])], raising=False)

        with pytest.raises(ImproperlyConfigured, match="same name"):
            exports.parts_of(user)
        assert device.get(EXPORT).status_code == 500

    def test_lists_and_objects_are_values_as_they_are(self, db: None) -> None:
        parts = [("a", []), ("b", {"c": None}), ("d", iter([1, "x"])), ("e", ({"f": 1.5},))]

        text = b"".join(exports.Export(parts))

        assert text == b'{"a":[],"b":{"c":null},"d":[1,"x"],"e":[{"f":1.5}]}'
        assert b"".join(exports.Export([])) == b"{}"

    def test_an_order_that_cannot_be_followed_is_an_error(self, user: User) -> None:
        for order in (["-amount", "pk"], ["owner__username"]):
            with pytest.raises(ImproperlyConfigured, match="order"):
                exports.rows(Article.objects.order_by(*order), ArticleSerializer)


@pytest.mark.django_db(transaction=True)
class TestCost:
    def test_each_statement_reads_a_batch_outside_any_transaction(
        self, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        add_events(user, ROWS)
        response = device.get(EXPORT)
        statements = []

        def check(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            assert not connection.in_atomic_block
            result = execute(sql, params, many, context)
            assert context["cursor"].rowcount <= exports.BATCH
            statements.append(sql)
            return result

        with connection.execute_wrapper(check):
            response.getvalue()

        of_events = [sql for sql in statements if "accounts_event" in sql]
        assert len(of_events) == ROWS // exports.BATCH + 1
        assert all(" LIMIT " in sql for sql in of_events)

    def test_the_first_chunk_needs_no_more_than_a_part_of_the_rows(
        self, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        add_events(user, 10 * exports.BATCH)
        response = device.get(EXPORT)
        statements: list[str] = []

        def count(execute: Any, sql: str, *args: Any) -> Any:
            statements.append(sql)
            return execute(sql, *args)

        with connection.execute_wrapper(count):
            chunk = next(iter(response.streaming_content))

        assert len(chunk) < 2 * exports.CHUNK
        assert len(statements) <= 3
        assert response.getvalue()

    def test_memory_does_not_grow_with_the_rows(self, user: User, sign_in: SignIn) -> None:
        peaks = []
        for number in (2 * exports.BATCH, 10 * exports.BATCH):
            add_events(user, number)
            events = Event.objects.filter(user_id=user.pk).order_by("created_at", "pk")
            parts = [("events", exports.rows(events, EventSerializer))]
            tracemalloc.start()
            size = sum(map(len, exports.Export(parts)))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert size > 150 * number

        assert peaks[1] < 1.3 * peaks[0], peaks

    def test_a_user_who_is_deleted_meanwhile_gets_the_end_of_the_document(
        self, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        Article.objects.bulk_create(
            Article(owner=user, title=f"Lamp {n}", amount=1) for n in range(ROWS)
        )
        chunks = iter(device.get(EXPORT).streaming_content)
        first = next(chunks)

        def leave() -> None:
            User.objects.get(pk=user.pk).delete()
            connection.close()

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()

        assert len(json.loads(first + b"".join(chunks))["articles"]) < ROWS
