"""The client of docs/clients in tabs of Chromium that share a session."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from accounts.models import Event, Session
from conftest import PASSWORD
from tests.rig.browser import chromium, front_end, needs_chromium
from tests.rig.clients import CLIENTS
from tests.rig.gunicorn import Server, serve

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

ROUNDS = 200
OPEN = """async (base) => {
    Object.assign(window, await import("/latchkey.js"));
    window.signedOut = 0;
    window.waits = [];
    window.api = new Latchkey(base, {
        onSignedOut: () => signedOut++,
        onWait: (seconds) => waits.push(seconds),
    });
}"""

OpenTab = Callable[[], Page]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a front end that serves the client to a browser."""
    with front_end(CLIENTS) as origin:
        yield origin


@pytest.fixture
def variables() -> dict[str, str]:
    # A window of two seconds, so that the client can wait for it.
    return {"AUTH_RATE_LIMIT": "3/2s"}


@pytest.fixture
def server(db: None, origin: str, tmp_path: Path, variables: dict[str, str]) -> Iterator[Server]:
    with serve(tmp_path / "log", CORS_ALLOWED_ORIGINS=origin, **variables) as server:
        user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        assert server.post("/users", user)[0] == 201
        yield server


@pytest.fixture
def browser(server: Server) -> Iterator[BrowserContext]:
    with chromium() as browser:
        yield browser.new_context()


@pytest.fixture
def open_tab(browser: BrowserContext, server: Server, origin: str) -> OpenTab:
    def tab() -> Page:
        page = browser.new_page()
        page.goto(f"{origin}/latchkey.js")
        page.evaluate(OPEN, f"http://127.0.0.1:{server.port}/api/v1")
        return page

    return tab


@pytest.fixture
def tab(open_tab: OpenTab) -> Page:
    page = open_tab()
    assert page.evaluate(f'api.login("alice", "{PASSWORD}")')["username"] == "alice"
    return page


def expire(tab: Page) -> None:
    """Make the stored access token invalid, as if it had expired."""
    tab.evaluate(
        """async () => {
            const pair = await api.store.get();
            await api.store.set({ ...pair, access_token: pair.access_token + "x" });
        }"""
    )


def test_it_creates_and_signs_out(tab: Page) -> None:
    lamp = tab.evaluate('api.request("POST", "/articles", {title: "Lamp", amount: 3})')
    assert tab.evaluate(f'api.request("GET", "/articles/{lamp["id"]}")') == lamp
    assert tab.evaluate(f'api.request("DELETE", "/articles/{lamp["id"]}")') is None

    tab.evaluate("api.logout()")

    assert tab.evaluate("api.store.get()") is None
    code = 'api.request("GET", "/users/me").catch((e) => [e.status, e.code])'
    assert tab.evaluate(code) == [401, "not_authenticated"]
    assert tab.evaluate("signedOut") == 0


def test_a_session_survives_the_end_of_its_tab(tab: Page, open_tab: OpenTab) -> None:
    tab.close()

    assert open_tab().evaluate('api.request("GET", "/users/me")')["username"] == "alice"


def test_tabs_with_an_expired_token_share_one_refresh(tab: Page, open_tab: OpenTab) -> None:
    tabs = [tab, open_tab(), open_tab()]
    expire(tab)

    for page in tabs:  # Each begins before any has ended.
        page.evaluate(
            """() => {
                window.asked = Promise.all([1, 2, 3].map(() => api.request("GET", "/users/me")));
            }"""
        )
    names = [user["username"] for page in tabs for user in page.evaluate("asked")]

    assert names == ["alice"] * 9
    assert Session.objects.active().count() == 1
    assert not Event.objects.filter(kind=Event.Kind.REPLAYED).exists()


@pytest.mark.parametrize(
    "variables",
    [{"AUTH_RATE_LIMIT": "10000/m", "REFRESH_GRACE_SECONDS": grace} for grace in ("0", "10")],
    ids=["strict", "grace"],
)
def test_tabs_that_refresh_at_the_same_instant_lose_no_session(
    tab: Page, open_tab: OpenTab
) -> None:
    tabs = [tab, open_tab()]
    refresh = """(at) => {
        const instant = new Promise((resolve) => setTimeout(resolve, at - Date.now()));
        window.refreshed = instant.then(() => api.refresh(old)).then((pair) => pair.access_token);
    }"""

    tokens = []
    for _ in range(ROUNDS):
        for page in tabs:
            page.evaluate("async () => { window.old = await api.store.get(); }")
        at = tab.evaluate("Date.now() + 15")
        for page in tabs:
            page.evaluate(refresh, at)
        tokens.append({page.evaluate("refreshed") for page in tabs})

    # Both tabs have the token of one refresh, also where the service would allow two.
    assert {len(same) for same in tokens} == {1}
    assert len(set.union(*tokens)) == ROUNDS
    assert Session.objects.active().count() == 1
    assert not Event.objects.filter(kind=Event.Kind.REPLAYED).exists()


@pytest.mark.parametrize("call", ["logout", "logoutAll"])
def test_a_sign_out_reaches_the_other_tabs(tab: Page, open_tab: OpenTab, call: str) -> None:
    other = open_tab()
    assert other.evaluate('api.request("GET", "/users/me")')["username"] == "alice"

    tab.evaluate(f"api.{call}()")

    other.wait_for_function("signedOut === 1")
    code = 'api.request("GET", "/users/me").catch((e) => [e.status, e.code])'
    assert other.evaluate(code) == [401, "not_authenticated"]
    assert tab.evaluate("signedOut") == 0


def test_a_sign_in_of_another_user_reaches_the_other_tabs(tab: Page, open_tab: OpenTab) -> None:
    other = open_tab()
    bob = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
    tab.evaluate("(bob) => api.register(bob)", bob)

    tab.evaluate(f'api.login("bob", "{PASSWORD}")')

    other.wait_for_function("signedOut === 1")
    assert other.evaluate('api.request("GET", "/users/me")')["username"] == "bob"
    assert tab.evaluate("signedOut") == 0


def test_a_session_in_memory_belongs_to_its_tab(tab: Page, open_tab: OpenTab) -> None:
    other = open_tab()
    other.evaluate("api = new Latchkey(api.base, { store: memoryStore() })")
    other.evaluate(f'api.login("alice", "{PASSWORD}")')

    tab.evaluate("api.logout()")

    assert other.evaluate('api.request("GET", "/users/me")')["username"] == "alice"
    assert tab.evaluate("api.store.get()") is None


def test_a_session_that_was_ended_signs_out_all_tabs(tab: Page, open_tab: OpenTab) -> None:
    other = open_tab()
    Session.objects.active().end(Session.Reason.STAFF)

    code = 'api.request("GET", "/users/me").catch(async (e) => [e.code, await api.store.get()])'

    assert tab.evaluate(code) == ["token_not_valid", None]
    for page in (tab, other):
        page.wait_for_function("signedOut === 1")


def test_a_wait_for_a_limit_is_visible(tab: Page) -> None:
    """A page of another origin can read Retry-After."""
    code = """async () => {
        const path = "/auth/sessions/00000000-0000-4000-8000-000000000000";
        for (let n = 0; n < 7; n++) await api.request("DELETE", path).catch(() => {});
        return waits;
    }"""
    seconds, end, *_ = tab.evaluate(code)

    assert (seconds in {1, 2}, end) == (True, 0)
