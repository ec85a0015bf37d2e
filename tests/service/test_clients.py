"""The clients of docs/clients: expiry, tabs, rate limits, ended sessions."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from accounts.models import Event, Session, User
from conftest import PASSWORD
from tests.articles.models import Article
from tests.rig.browser import front_end
from tests.rig.clients import CLIENTS, latchkey
from tests.rig.gunicorn import Server, serve

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a front end that serves the client to a browser."""
    with front_end(CLIENTS) as origin:
        yield origin


@pytest.fixture
def server(db: None, origin: str, tmp_path: Path) -> Iterator[Server]:
    # A window of two seconds, so that the client can wait for it.
    variables = {"AUTH_RATE_LIMIT": "3/2s", "CORS_ALLOWED_ORIGINS": origin}
    with serve(tmp_path / "log", **variables) as server:
        user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        assert server.post("/users", user)[0] == 201
        yield server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/api/v1"


class TestPython:
    @pytest.fixture
    def api(self, server: Server) -> Any:
        api = latchkey.Latchkey(url(server))
        assert api.login("alice", PASSWORD)["username"] == "alice"
        return api

    def test_it_creates_and_signs_out(self, api: Any) -> None:
        lamp = api.request("POST", "/articles", {"title": "Lamp", "amount": 3})
        assert api.request("GET", f"/articles/{lamp['id']}") == lamp
        assert api.request("DELETE", f"/articles/{lamp['id']}") is None

        api.logout()

        with pytest.raises(latchkey.ApiError) as error:
            api.request("GET", "/users/me")
        assert (error.value.status, error.value.code) == (401, "not_authenticated")

    def test_threads_with_an_expired_token_share_one_refresh(self, api: Any) -> None:
        api.pair["access_token"] += "x"

        with ThreadPoolExecutor(8) as threads:
            users = list(threads.map(lambda _: api.request("GET", "/users/me"), range(8)))

        assert {user["username"] for user in users} == {"alice"}
        assert Session.objects.active().count() == 1
        assert not Event.objects.filter(kind=Event.Kind.REPLAYED).exists()

    def test_it_waits_out_a_limit(self, api: Any) -> None:
        for _ in range(5):
            assert api.request("GET", "/auth/sessions")["count"] == 1

    def test_a_session_that_was_ended_signs_it_out(self, api: Any) -> None:
        Session.objects.active().end(Session.Reason.STAFF)

        with pytest.raises(latchkey.ApiError) as error:
            api.request("GET", "/users/me")

        assert (error.value.code, api.pair) == ("token_not_valid", None)

    def test_it_registers_and_lists_sessions_and_events(self, server: Server) -> None:
        api, other = latchkey.Latchkey(url(server)), latchkey.Latchkey(url(server))
        user = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
        assert api.register(user)["username"] == "bob"
        api.login("bob", PASSWORD)
        other.login("bob", PASSWORD)

        [ended] = [session["id"] for session in api.sessions() if not session["current"]]
        api.end_session(ended)
        api.change_password(PASSWORD, f"{PASSWORD} and June")

        assert [event["event"] for event in api.events()][:3] == [
            "password_changed",
            "session_ended",
            "signed_in",
        ]
        assert api.logout_all() == 1
        assert api.pair is None

    def test_it_iterates_over_all_pages(self, api: Any) -> None:
        owner = User.objects.get()
        Article.objects.bulk_create(
            Article(title=f"Lamp {n:02}", amount=n, owner=owner) for n in range(25)
        )

        articles = list(api.paginate("/articles?limit=10&ordering=title"))

        assert [article["amount"] for article in articles] == list(range(25))

    def test_an_error_contains_the_reason(self, api: Any) -> None:
        with pytest.raises(latchkey.ApiError, match="1 field needs attention") as error:
            api.request("POST", "/articles", {"title": "Lamp"})

        assert error.value.problem["errors"][0]["field"] == "amount"
