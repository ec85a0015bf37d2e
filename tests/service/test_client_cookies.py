"""The client of docs/clients with its refresh token in a cookie, in tabs of Chromium."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from accounts.models import Event, Session
from conftest import PASSWORD
from tests.rig.browser import chromium, front_end, needs_chromium
from tests.rig.clients import CLIENTS
from tests.rig.gunicorn import Server, serve

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

ROUNDS = 200
OPEN = """async ([base, hasOwnMemory]) => {
    Object.assign(window, await import("/latchkey.js"));
    window.signedOut = 0;
    window.api = new Latchkey(base, {
        cookie: true,
        onSignedOut: () => signedOut++,
        ...(hasOwnMemory && { store: { ...memoryStore(), name: "latchkey" } }),
    });
}"""
ME = """api.request("GET", "/users/me").then(
    (user) => user.username, (error) => [error.status, error.code])"""
SIGNED_OUT = [401, "not_authenticated"]

OpenTab = Callable[..., Page]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a front end on the host of the service, at another port."""
    with front_end(CLIENTS) as origin:
        yield origin


@pytest.fixture(scope="module")
def other_site() -> Iterator[str]:
    """The origin of a front end on another site: `localhost` and 127.0.0.1 are two."""
    with front_end(CLIENTS, "localhost") as origin:
        yield origin


@pytest.fixture
def variables() -> dict[str, str]:
    return {}


@pytest.fixture
def server(
    db: None, origin: str, other_site: str, tmp_path: Path, variables: dict[str, str]
) -> Iterator[Server]:
    given = {"AUTH_RATE_LIMIT": "10000/m", "REFRESH_COOKIE": "true"}
    given["CORS_ALLOWED_ORIGINS"] = f"{origin},{other_site}"
    with serve(tmp_path / "log", **given, **variables) as server:
        for name in ("alice", "bob"):
            user = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            assert server.post("/users", user)[0] == 201
        yield server


@pytest.fixture
def browser(server: Server) -> Iterator[BrowserContext]:
    with chromium() as browser:
        yield browser.new_context()


@pytest.fixture
def open_tab(browser: BrowserContext, server: Server, origin: str) -> OpenTab:
    def tab(origin: str = origin, *, has_own_memory: bool = False) -> Page:
        page = browser.new_page()
        page.goto(f"{origin}/latchkey.js")
        page.evaluate(OPEN, [f"http://127.0.0.1:{server.port}/api/v1", has_own_memory])
        return page

    return tab


def sign_in(page: Page, name: str = "alice") -> None:
    assert page.evaluate(f'api.login("{name}", "{PASSWORD}")')["username"] == name


@pytest.fixture
def tab(open_tab: OpenTab) -> Page:
    page = open_tab()
    sign_in(page)
    return page


def expire(page: Page) -> None:
    """Make the access token invalid, as if it had expired."""
    page.evaluate(
        """async () => {
            const pair = await api.store.get();
            await api.store.set({ ...pair, access_token: pair.access_token + "x" });
        }"""
    )


def cookies(browser: BrowserContext) -> list[Any]:
    return list(browser.cookies())


def test_the_refresh_token_is_in_a_cookie_and_nothing_is_stored(
    tab: Page, browser: BrowserContext
) -> None:
    [cookie] = cookies(browser)
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("refresh", True, "Strict")
    assert "refresh_token" not in tab.evaluate("api.store.get()")
    stored = tab.evaluate(
        """async () => [
            document.cookie, localStorage.length, sessionStorage.length,
            (await indexedDB.databases()).length, (await caches.keys()).length,
        ]"""
    )
    assert stored == ["", 0, 0, 0, 0]


def test_a_page_that_lost_its_storage_signs_in_silently(
    tab: Page, open_tab: OpenTab, browser: BrowserContext
) -> None:
    tab.evaluate(
        """async () => {
            localStorage.clear();
            sessionStorage.clear();
            for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name);
        }"""
    )
    tab.close()
    [before] = cookies(browser)

    later = open_tab()

    assert later.evaluate(f"Promise.all([{ME}, {ME}, {ME}])") == ["alice"] * 3
    [after] = cookies(browser)
    assert before["value"] != after["value"]
    assert Session.objects.active().count() == 1


def test_a_new_tab_gets_the_token_of_an_open_one(tab: Page, open_tab: OpenTab) -> None:
    other = open_tab()

    assert other.evaluate(ME) == "alice"
    assert other.evaluate("api.store.get()") == tab.evaluate("api.store.get()")


def test_a_visitor_asks_once_and_reads_what_is_public(open_tab: OpenTab) -> None:
    page = open_tab()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))

    found = page.evaluate(
        """() => Promise.all([1, 2, 3].map(() => api.request("GET", "/articles")))"""
    )

    assert [articles["count"] for articles in found] == [0, 0, 0]
    assert page.evaluate(ME) == SIGNED_OUT
    assert page.evaluate("signedOut") == 0
    assert len([line for line in sent if line.startswith("POST")]) == 1


@pytest.mark.parametrize("has_own_memory", [False, True], ids=["shared memory", "own memory"])
@pytest.mark.parametrize(
    "variables",
    [{"REFRESH_GRACE_SECONDS": grace} for grace in ("0", "10")],
    ids=["strict", "grace"],
)
def test_tabs_that_refresh_at_the_same_instant_lose_no_session(
    open_tab: OpenTab, browser: BrowserContext, *, has_own_memory: bool
) -> None:
    tabs = [open_tab(has_own_memory=has_own_memory) for _ in range(2)]
    sign_in(tabs[0])
    assert tabs[1].evaluate(ME) == "alice"
    refresh = """(at) => {
        const instant = new Promise((resolve) => setTimeout(resolve, at - Date.now()));
        window.refreshed = instant.then(() => api.refresh(old)).then((pair) => pair.access_token);
    }"""

    tokens = set()
    for _ in range(ROUNDS):
        for page in tabs:
            page.evaluate("async () => { window.old = await api.store.get(); }")
        at = tabs[0].evaluate("Date.now() + 15")
        for page in tabs:
            page.evaluate(refresh, at)
        tokens |= {page.evaluate("refreshed") for page in tabs}

    assert len(tokens) == 2 * ROUNDS if has_own_memory else len(tokens) >= ROUNDS
    assert [page.evaluate(ME) for page in tabs] == ["alice"] * 2
    assert Session.objects.active().count() == 1
    assert not Event.objects.filter(kind=Event.Kind.REPLAYED).exists()
    for page in tabs:
        page.close()
    assert open_tab().evaluate(ME) == "alice"


def test_an_expired_token_is_refreshed_by_the_cookie(tab: Page, browser: BrowserContext) -> None:
    [before] = cookies(browser)
    expire(tab)

    assert tab.evaluate(f"Promise.all([{ME}, {ME}, {ME}])") == ["alice"] * 3

    [after] = cookies(browser)
    assert before["value"] != after["value"]


def test_a_new_proof_moves_the_cookie_to_the_new_token(tab: Page, browser: BrowserContext) -> None:
    [before] = cookies(browser)

    tab.evaluate(f'api.reauthenticate({{ password: "{PASSWORD}" }})')

    [after] = cookies(browser)
    assert before["value"] != after["value"]
    expire(tab)
    assert tab.evaluate(ME) == "alice"
    assert Session.objects.active().count() == 1


@pytest.mark.parametrize("call", ["logout", "logoutAll"])
def test_a_sign_out_deletes_the_cookie_and_reaches_the_other_tabs(
    tab: Page, open_tab: OpenTab, browser: BrowserContext, call: str
) -> None:
    other = open_tab()
    assert other.evaluate(ME) == "alice"

    tab.evaluate(f"api.{call}()")

    other.wait_for_function("signedOut === 1")
    assert cookies(browser) == []
    for page in (tab, other, open_tab()):
        assert page.evaluate(ME) == SIGNED_OUT
    assert not Session.objects.active().exists()


def test_a_new_page_can_sign_out_at_once(
    tab: Page, open_tab: OpenTab, browser: BrowserContext
) -> None:
    tab.close()

    open_tab().evaluate("api.logout()")

    assert cookies(browser) == []
    assert not Session.objects.active().exists()


def test_a_session_that_was_ended_signs_out_and_deletes_the_cookie(
    tab: Page, browser: BrowserContext
) -> None:
    Session.objects.active().end(Session.Reason.STAFF)

    assert tab.evaluate(ME) == [401, "token_not_valid"]

    assert tab.evaluate("signedOut") == 1
    assert cookies(browser) == []


def test_a_sign_in_of_another_user_reaches_the_other_tabs(tab: Page, open_tab: OpenTab) -> None:
    other = open_tab()
    assert other.evaluate(ME) == "alice"

    sign_in(tab, "bob")

    other.wait_for_function("signedOut === 1")
    assert other.evaluate(ME) == "bob"
    assert tab.evaluate("signedOut") == 0


def test_no_request_is_repeated_as_the_user_of_another_page(tab: Page, open_tab: OpenTab) -> None:
    """Pages without a common memory, such as those of two origins, have one cookie."""
    other = open_tab(has_own_memory=True)
    sign_in(other, "bob")
    tab.evaluate("api.store = { ...memoryStore(), name: 'latchkey' }")
    sign_in(tab)

    expire(other)

    assert other.evaluate(ME) == [401, "token_not_valid"]
    assert other.evaluate("signedOut") == 1
    assert tab.evaluate(ME) == "alice"


def test_across_sites_a_browser_keeps_no_cookie(
    open_tab: OpenTab, browser: BrowserContext, other_site: str
) -> None:
    """The guide says so, although the origin is listed."""
    page = open_tab(other_site)
    sign_in(page)
    assert page.evaluate(ME) == "alice"

    expire(page)

    assert page.evaluate(ME) == SIGNED_OUT
    assert cookies(browser) == []


def test_without_the_network_nothing_is_lost(tab: Page, browser: BrowserContext) -> None:
    expire(tab)
    browser.set_offline(True)
    assert (
        tab.evaluate("api.request('GET', '/users/me').catch((error) => error.name)") == "TypeError"
    )

    browser.set_offline(False)

    assert tab.evaluate(ME) == "alice"


def test_a_page_that_was_opened_without_the_network_signs_in_later(
    tab: Page, open_tab: OpenTab, browser: BrowserContext
) -> None:
    tab.close()
    page = open_tab()
    browser.set_offline(True)
    assert (
        page.evaluate("api.request('GET', '/users/me').catch((error) => error.name)") == "TypeError"
    )

    browser.set_offline(False)

    assert page.evaluate(ME) == "alice"
