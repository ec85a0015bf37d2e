"""The example of a front end in a window of Chromium, as its user handles it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.core.management import call_command
from playwright.sync_api import BrowserContext, Locator, Page, expect

from accounts.models import User
from conftest import PASSWORD, find_tickets
from tests.rig.lifecycle import make_stale

MODES = {"bearer": "In the storage of the browser", "cookie": "In a cookie that no script can read"}
SECONDS = 10
REFRESH = """async () => {
    const { session: { api } } = await import("/example/session.js");
    await api.refresh(await api.store.get());
}"""


@dataclass
class Window:
    """A window of the example, whose methods are what its user does and sees."""

    page: Page
    origin: str
    mode: str = "bearer"

    @property
    def part(self) -> Locator:
        """The dialog that is open, or the view."""
        return self.page.locator("main > section:not([hidden]), dialog[open]").last

    def open(self, address: str = "/example/") -> None:
        self.page.goto(self.origin + address)

    def act(self, button: str, fields: dict[str, str] | None = None) -> None:
        for label, value in (fields or {}).items():
            self.part.get_by_label(label, exact=True).fill(value)
        self.part.get_by_role("button", name=button, exact=True).click()

    def act_outside(self, button: str) -> None:
        self.page.locator("header").get_by_role("button", name=button).click()

    def go(self, link: str) -> None:
        self.page.get_by_role("link", name=link, exact=True).click()

    def sees(self, heading: str) -> None:
        expect(self.part.locator("h2")).to_have_text(heading)

    def is_told(self, message: str) -> None:
        expect(self.page.locator("#message")).to_contain_text(message)

    def sign_in(self, password: str = PASSWORD) -> None:
        self.page.get_by_label(MODES[self.mode]).check()
        self.act("Sign in", {"Username or email address": "alice", "Password": password})

    def sign_in_again(self, code: str = "") -> None:
        self.sees("Sign in again")
        self.act("Continue", {"Password": PASSWORD} | ({"Code": code} if code else {}))

    def row(self, text: str) -> Locator:
        return self.part.locator("li", has_text=text)

    def follow_the_email(self, subject: str) -> None:
        """Deliver all emails, and follow the link of one in the mailbox of development."""
        call_command("mailworker", "--once", verbosity=0)
        self.open("/mail")
        self.page.get_by_role("link", name=subject).first.click()
        self.page.locator("pre a[href*='#token=']").click()

    def let_time_pass(self, user: User) -> None:
        """Let the sign-in become too old for a sensitive act, and get a token that says so."""
        make_stale(user)
        self.page.evaluate(REFRESH)


@contextmanager
def watched(context: BrowserContext) -> Iterator[Page]:
    """A page in which nothing fails in silence, and which sends no token of a link in a URL."""
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    errors: list[str] = []
    urls: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: urls.append(request.url))
    yield page
    context.close()
    # The browser reports a status of 400 or above on its own.
    assert not [error for error in errors if "Failed to load resource" not in error], errors
    assert all(re.match(r"http://localhost:\d+/|blob:", url) for url in urls)
    assert not find_tickets(" ".join(url.partition("#")[0] for url in urls))
