"""The clients of docs/clients: expiry, tabs, rate limits, ended sessions."""

import functools
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from accounts.models import Event, Session
from conftest import PASSWORD
from tests.rig.browser import chromium, needs_chromium
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT, free_port

pytestmark = pytest.mark.django_db(transaction=True)

CLIENTS = ROOT / "docs/clients"

specification = importlib.util.spec_from_file_location("latchkey", CLIENTS / "latchkey.py")
latchkey = importlib.util.module_from_spec(specification)
specification.loader.exec_module(latchkey)


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a front end that serves the client to a browser."""
    handler = functools.partial(Files, directory=str(CLIENTS))
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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

    def test_an_error_contains_the_reason(self, api: Any) -> None:
        with pytest.raises(latchkey.ApiError, match="1 field needs attention") as error:
            api.request("POST", "/articles", {"title": "Lamp"})

        assert error.value.problem["errors"][0]["field"] == "amount"


@needs_chromium
class TestJavaScript:
    @pytest.fixture
    def browser(self, server: Server) -> Iterator[BrowserContext]:
        with chromium() as browser:
            yield browser.new_context()

    @pytest.fixture
    def open_tab(self, browser: BrowserContext, server: Server, origin: str) -> Any:
        def tab() -> Page:
            page = browser.new_page()
            page.goto(f"{origin}/latchkey.js")
            page.evaluate(
                """async (base) => {
                    const { Latchkey, browserStore } = await import("/latchkey.js");
                    window.store = browserStore();
                    window.signedOut = 0;
                    const onSignedOut = () => window.signedOut++;
                    window.api = new Latchkey(base, { store: window.store, onSignedOut });
                }""",
                url(server),
            )
            return page

        return tab

    @pytest.fixture
    def tab(self, open_tab: Any) -> Page:
        page: Page = open_tab()
        login = f'api.login("alice", "{PASSWORD}")'
        assert page.evaluate(login)["username"] == "alice"
        return page

    def test_it_creates_and_signs_out(self, tab: Page) -> None:
        lamp = tab.evaluate('api.request("POST", "/articles", {title: "Lamp", amount: 3})')
        assert tab.evaluate(f'api.request("GET", "/articles/{lamp["id"]}")') == lamp
        assert tab.evaluate(f'api.request("DELETE", "/articles/{lamp["id"]}")') is None

        tab.evaluate("api.logout()")

        assert tab.evaluate("store.get()") is None
        code = 'api.request("GET", "/users/me").catch((e) => [e.status, e.code])'
        assert tab.evaluate(code) == [401, "not_authenticated"]

    def test_tabs_with_an_expired_token_share_one_refresh(self, tab: Page, open_tab: Any) -> None:
        tabs = [tab, open_tab(), open_tab()]
        tab.evaluate('store.set({...store.get(), access_token: store.get().access_token + "x"})')

        for page in tabs:  # Each begins before any has ended.
            page.evaluate(
                """() => {
                    window.asked = Promise.all(
                        [1, 2, 3].map(() => api.request("GET", "/users/me")));
                }"""
            )
        names = [user["username"] for page in tabs for user in page.evaluate("asked")]

        assert names == ["alice"] * 9
        assert Session.objects.active().count() == 1
        assert not Event.objects.filter(kind=Event.Kind.REPLAYED).exists()

    def test_it_waits_out_a_limit(self, tab: Page) -> None:
        """A page of another origin can read Retry-After."""
        code = """async () => {
            const counts = [];
            for (let n = 0; n < 5; n++)
                counts.push((await api.request("GET", "/auth/sessions")).count);
            return counts;
        }"""
        assert tab.evaluate(code) == [1] * 5

    def test_a_session_that_was_ended_signs_it_out(self, tab: Page) -> None:
        Session.objects.active().end(Session.Reason.STAFF)

        code = 'api.request("GET", "/users/me").catch((e) => [e.code, signedOut, store.get()])'
        assert tab.evaluate(code) == ["token_not_valid", 1, None]
