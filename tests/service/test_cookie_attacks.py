"""Attacks on a session by cookie in Chromium: injected scripts, and pages of other origins."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from playwright.sync_api import BrowserContext, Page

from accounts.models import Event, Session, User
from conftest import API, PASSWORD
from tests.rig.browser import chromium, front_end, needs_chromium
from tests.rig.clients import CLIENTS
from tests.rig.gunicorn import Server, serve

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

LIMIT = 50
# Returns what a script in the page can find: storage, messages, and all that the page exchanges.
INJECTED = """async ([base, password]) => {
    const loot = [];
    const post = (path, body, headers) => fetch(base + path, {
        method: "POST", credentials: "include", body: JSON.stringify(body),
        headers: { "Content-Type": "application/json", ...headers },
    }).then(async (response) => {
        loot.push([...response.headers].join("\\n"), await response.clone().text());
        return response.json().catch(() => ({}));
    });

    const original = window.fetch;
    window.fetch = async (...sent) => {
        const response = await original(...sent);
        loot.push(JSON.stringify(sent), [...response.headers].join("\\n"));
        loot.push(await response.clone().text());
        return response;
    };
    for (const name of ["latchkey", "latchkey-tokens"]) {
        const channel = new BroadcastChannel(name);
        channel.onmessage = ({ data }) => loot.push(JSON.stringify(data));
        channel.postMessage({ isQuestion: true });
    }

    // The page goes on: it gets its token, reads, signs in again.
    await api.request("GET", "/users/me");
    await api.reauthenticate({ password });
    await api.refresh(await api.store.get());

    const { access_token } = await post("/auth/refresh", {});
    const bearer = { Authorization: `Bearer ${access_token}` };
    await post("/auth/refresh", { cookie: false }, bearer);
    await post("/auth/refresh", { refresh_token: null }, bearer);
    await post("/auth/refresh", { refresh_token: access_token });
    await post("/auth/reauthenticate", { password: "a guess", cookie: false }, bearer);
    for (const path of ["/users/me", "/auth/sessions", "/auth/events"]) {
        loot.push(await (await fetch(base + path, { headers: bearer })).text());
    }

    await new Promise((resolve) => setTimeout(resolve, 200));
    loot.push(document.cookie, JSON.stringify(await cookieStore?.getAll()));
    loot.push(JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }));
    loot.push(JSON.stringify(await indexedDB.databases()), JSON.stringify(await caches.keys()));
    loot.push(JSON.stringify(await api.store.get()), JSON.stringify(performance.getEntries()));
    return loot;
}"""
# Everything that a page can send to another origin, and whether the browser sent it.
FORGED = """async ([base, paths]) => {
    const outcomes = [];
    const attempt = (name, request) => request.then(
        (response) => outcomes.push([name, response.type, response.status]),
        () => outcomes.push([name, "blocked", 0]));
    const types = ["text/plain", "application/x-www-form-urlencoded", "application/json", null];
    for (const path of paths) {
        for (const mode of ["cors", "no-cors"]) {
            for (const type of types) {
                const headers = type ? { "Content-Type": type } : {};
                const body = type ? '{"cookie": true}' : undefined;
                const sent = { method: "POST", mode, credentials: "include", headers, body };
                await attempt(`${mode} ${type} ${path}`, fetch(base + path, sent));
            }
        }
        const read = { mode: "no-cors", credentials: "include" };
        await attempt(`get ${path}`, fetch(base + path, read));
        for (const enctype of ["text/plain", "multipart/form-data", types[1]]) {
            const frame = document.body.appendChild(document.createElement("iframe"));
            frame.name = `frame-${Math.random()}`;
            const form = document.body.appendChild(document.createElement("form"));
            const action = base + path;
            Object.assign(form, { method: "post", action, enctype, target: frame.name });
            const field = form.appendChild(document.createElement("input"));
            [field.name, field.value] = ['{"cookie": true, "x": "', '"}'];
            form.submit();
        }
        for (const tag of ["img", "script"]) {
            const element = document.createElement(tag);
            const done = new Promise((resolve) => (element.onload = element.onerror = resolve));
            element.src = base + path;
            document.body.append(element);
            await done;
        }
        navigator.sendBeacon(base + path, '{"cookie": true}');
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    return outcomes;
}"""
PATHS = ["/auth/refresh", "/auth/logout", "/auth/logout-all", "/auth/login", "/auth/password"]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with front_end(CLIENTS) as origin:
        yield origin


@pytest.fixture
def server(db: None, origin: str, tmp_path: Path) -> Iterator[Server]:
    given = {"AUTH_RATE_LIMIT": f"{LIMIT}/h", "REFRESH_COOKIE": "true"}
    with serve(tmp_path / "log", CORS_ALLOWED_ORIGINS=origin, **given) as server:
        user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        assert server.post("/users", user)[0] == 201
        yield server


@pytest.fixture
def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}{API}"


@pytest.fixture
def browser(server: Server) -> Iterator[BrowserContext]:
    with chromium() as browser:
        yield browser.new_context()


@pytest.fixture
def victim(browser: BrowserContext, base: str, origin: str) -> Page:
    """The page of a user who signed in, in the browser that other pages are opened in."""
    page = browser.new_page()
    page.goto(f"{origin}/latchkey.js")
    page.evaluate(
        """async (base) => {
            Object.assign(window, await import("/latchkey.js"));
            window.api = new Latchkey(base, { cookie: true });
        }""",
        base,
    )
    assert page.evaluate(f'api.login("alice", "{PASSWORD}")')["username"] == "alice"
    return page


def tokens_in(texts: list[str | None]) -> list[str]:
    return re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "\n".join(filter(None, texts)))


class TestInjectedScript:
    @pytest.fixture
    def loot(self, victim: Page, base: str) -> list[str | None]:
        found: list[str | None] = victim.evaluate(INJECTED, [base, PASSWORD])
        return found

    def test_it_finds_no_refresh_token(
        self, loot: list[str | None], browser: BrowserContext
    ) -> None:
        [cookie] = browser.cookies()
        claims = [jwt.decode(t, options={"verify_signature": False}) for t in tokens_in(loot)]

        # It finds what any script of the page has, so it would find more.
        assert {claim["token_type"] for claim in claims} == {"access"}
        assert jwt.decode(cookie["value"], options={"verify_signature": False})["sid"]
        assert cookie["value"].partition(".")[2] not in "\n".join(filter(None, loot))
        assert not any("set-cookie" in (text or "").lower() for text in loot)

    def test_what_it_takes_away_ends_with_the_access_token(
        self, loot: list[str | None], server: Server
    ) -> None:
        taken = set(tokens_in(loot))

        for token in taken:
            claims = jwt.decode(token, options={"verify_signature": False})
            assert claims["exp"] - claims["iat"] == 900
            # It renews nothing, wherever it is presented.
            assert server.post("/auth/refresh", {"refresh_token": token})[0] == 401
            forged = {"Cookie": f"refresh={token}", "Origin": f"http://127.0.0.1:{server.port}"}
            assert server.post("/auth/refresh", {}, **forged)[0] == 401
        assert Session.objects.active().count() == 1

    def test_a_sign_out_ends_it_at_once(
        self, loot: list[str | None], victim: Page, server: Server
    ) -> None:
        bearer = {"Authorization": f"Bearer {tokens_in(loot)[-1]}"}
        response, _ = server.request("GET", f"{API}/users/me", **bearer)
        assert response.status == 200

        victim.evaluate("api.logout()")

        response, _ = server.request("GET", f"{API}/users/me", **bearer)
        assert response.status == 401


def sends_the_cookie(page: Page) -> bool:
    return any("refresh=" in sent["headers"].get("Cookie", "") for sent in page.exchanges)


def state() -> Any:
    """Return all that an attack could change."""
    tables = (Session.objects, Event.objects, User.objects)
    return [list(table.order_by("pk").values()) for table in tables]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another site", "the same site"])
class TestOtherOrigin:
    @pytest.fixture
    def attacker(self, host: str, browser: BrowserContext, tmp_path: Path) -> Iterator[Page]:
        """A page of another origin, in the victim's browser, with what it sends and receives."""
        directory = tmp_path / "attacker"
        directory.mkdir()
        (directory / "index.html").write_text("<!doctype html><body></body>")
        with front_end(directory, host) as origin:
            page = browser.new_page()
            page.goto(origin)
            responses: list[Any] = []
            exchanges: list[Any] = []
            page.on("response", lambda response: responses.append(response))
            # Playwright itself does not report the cookies of a request to another origin.
            network = browser.new_cdp_session(page)
            network.on("Network.requestWillBeSentExtraInfo", lambda sent: exchanges.append(sent))
            network.send("Network.enable")
            page.responses, page.exchanges = responses, exchanges
            yield page

    def test_it_changes_nothing_and_spends_no_count(
        self, victim: Page, attacker: Page, base: str, host: str
    ) -> None:
        before = state()

        outcomes = attacker.evaluate(FORGED, [base, PATHS])

        assert state() == before
        posts = [r for r in attacker.responses if r.request.method == "POST" and base in r.url]
        assert len(posts) >= 5 * len(PATHS)
        # Signing out needs a token, which no browser sends by itself.
        assert {response.status for response in posts} == {401, 415}
        # The page can read no response, and what needs a preflight is not sent.
        assert {kind for _, kind, _ in outcomes} == {"blocked", "opaque"}
        assert sends_the_cookie(attacker) == (host == "127.0.0.1")
        assert remaining(victim, "/auth/refresh", {}) == LIMIT - 1
        # Once when the victim signed in.
        login = {"identity": "alice", "password": PASSWORD, "cookie": True}
        assert remaining(victim, "/auth/login", login) == LIMIT - 2

    @pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout-all"])
    def test_a_top_level_post_changes_nothing(
        self, victim: Page, attacker: Page, base: str, path: str, host: str
    ) -> None:
        before = state()

        with attacker.expect_navigation() as navigation:
            attacker.evaluate(
                """(action) => {
                    const form = document.body.appendChild(document.createElement("form"));
                    const type = "text/plain";
                    Object.assign(form, { method: "post", action, enctype: type });
                    const field = form.appendChild(document.createElement("input"));
                    [field.name, field.value] = ['{"cookie": true, "x": "', '"}'];
                    form.submit();
                }""",
                base + path,
            )

        assert navigation.value.status == (415 if path == "/auth/refresh" else 401)
        assert sends_the_cookie(attacker) == (host == "127.0.0.1")
        assert state() == before
        assert remaining(victim, "/auth/refresh", {}) == LIMIT - 1

    def test_a_frame_of_the_service_shows_nothing(
        self, victim: Page, attacker: Page, base: str
    ) -> None:
        """Neither for clicks on it, nor with the opaque origin of a sandbox."""
        before = state()

        blocked = attacker.evaluate(
            """(base) => new Promise((resolve) => {
                const frame = document.createElement("iframe");
                frame.sandbox = "allow-scripts";
                frame.srcdoc = `<script>fetch("${base}/auth/refresh", {
                    method: "POST", credentials: "include", body: "{}",
                    headers: { "Content-Type": "application/json" },
                }).then(() => parent.postMessage("sent", "*"),
                        () => parent.postMessage("blocked", "*"))</script>`;
                window.onmessage = ({ data }) => resolve(data);
                document.body.append(frame);
            })""",
            base,
        )

        assert blocked == "blocked"
        assert state() == before


def remaining(page: Page, path: str, body: Any) -> int:
    """Return what is left of the limit of a route, after a request of an allowed page."""
    header = page.evaluate(
        """([url, body]) => fetch(url, {
            method: "POST", credentials: "include", body: JSON.stringify(body),
            headers: { "Content-Type": "application/json" },
        }).then((response) => response.headers.get("RateLimit"))""",
        [page.evaluate("api.base") + path, body],
    )
    return int(re.findall("r=([0-9]+)", header)[0])
