"""Passkeys in a real browser, with its virtual authenticators, against the real service."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.db.models.functions import Now
from playwright.sync_api import Browser, Error, Page, Route

from accounts.models import Event, Passkey, Session, Ticket, User
from conftest import PASSWORD
from tests.rig.browser import chromium, needs_chromium
from tests.rig.clients import CLIENTS
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT
from tests.rig.virtual_authenticator import VirtualAuthenticator

pytestmark = needs_chromium
TRANSPORTS = ["internal", "usb"]
PAGE = """<!doctype html><title>A front end</title>
<input autocomplete="username webauthn">
<script type="module">
  import { Latchkey, memoryStore } from "./latchkey.js";
  window.api = new Latchkey("/api/v1", { store: memoryStore() });
</script>"""
# What a page does by hand, where the client would not do it.
BY_HAND = """async ([options, rpId, userVerification]) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(
    { ...options, rpId, userVerification });
  return (await navigator.credentials.get({ publicKey })).toJSON();
}"""


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("passkeys") / "log", AUTH_RATE_LIMIT="1000/m") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def alice(alice: User) -> User:
    """A verified user."""
    User.objects.update(email_verified_at=Now())
    return alice


def respond(route: Route) -> None:
    """Serve a front end below /app/, and leave other requests to the service."""
    name = route.request.url.rpartition("/app/")[2]
    if name:
        route.fulfill(path=CLIENTS / name)
    else:
        route.fulfill(body=PAGE, content_type="text/html")


@pytest.fixture
def page(browser: Browser, server: Server, alice: User) -> Iterator[Page]:
    """A front end of the same origin as the service, in a window of its own."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/app/*", respond)
    open_page(page, f"http://localhost:{server.port}")
    yield page
    context.close()


def open_page(page: Page, origin: str) -> None:
    page.goto(f"{origin}/app/")
    page.wait_for_function("window.api")


def login(page: Page) -> None:
    page.evaluate(f"api.login('alice', '{PASSWORD}')")


def add_passkey(page: Page) -> Any:
    login(page)
    return page.evaluate("api.addPasskey('Laptop')")


def sign_in(page: Page) -> Any:
    """Sign in with a passkey; return the user, or the status and code of the error."""
    return page.evaluate(
        "api.loginWithPasskey().catch(({ status, code, name }) => [status ?? name, code])"
    )


WRONG = [401, "invalid_credentials"]


def present(server: Server, credential: Any) -> list[Any]:
    """Send a credential that a page got, and return the status and the code."""
    status, body = server.post("/auth/passkey", {"credential": credential})
    return [status, body.get("code")]


def get_by_hand(
    page: Page, server: Server, rp_id: str = "localhost", verification: str = "required"
) -> Any:
    status, options = server.post("/auth/passkey/options", {})
    assert status == 200
    return page.evaluate(BY_HAND, [options, rp_id, verification])


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("synced", [True, False])
def test_a_passkey_from_its_registration_to_its_removal(
    page: Page, transport: str, synced: bool
) -> None:
    flags = {"defaultBackupEligibility": synced, "defaultBackupState": synced}
    authenticator = VirtualAuthenticator(page, transport, **flags)
    added = add_passkey(page)

    assert (added["name"], added["synced"]) == ("Laptop", synced)
    assert len(added["recovery_codes"]) == 10
    assert len(authenticator.credentials) == 1
    assert Passkey.objects.get().transports == [transport]
    page.evaluate("api.logout()")

    assert sign_in(page)["username"] == "alice"
    [listed] = page.evaluate("Array.fromAsync(api.passkeys())")
    assert listed["last_used_at"] is not None
    assert Session.objects.latest("created_at").methods == ["pop", "user", "mfa"]

    assert page.evaluate("async (id) => api.removePasskey(id)", listed["id"]) is None
    assert not Passkey.objects.exists()
    page.evaluate("api.logout()")
    assert sign_in(page) == WRONG


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_passkey_completes_a_login(page: Page, transport: str) -> None:
    VirtualAuthenticator(page, transport)
    add_passkey(page)

    user = page.evaluate(
        f"""() => api.login('alice', '{PASSWORD}').catch((error) => {{
          if (error.code !== "mfa_required") throw error;
          return api.completeLoginWithPasskey(error.problem);
        }})"""
    )

    assert user["username"] == "alice"
    assert Session.objects.latest("created_at").methods == ["pwd", "pop", "user", "mfa"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_passkey_makes_a_session_fresh(page: Page, transport: str) -> None:
    VirtualAuthenticator(page, transport)
    added = add_passkey(page)

    # The session began with the password alone.
    code = page.evaluate("(id) => api.removePasskey(id).catch(({ code }) => code)", added["id"])
    assert code == "reauthentication_required"
    page.evaluate("api.reauthenticateWithPasskey()")
    page.evaluate("(id) => api.removePasskey(id)", added["id"])

    assert not Passkey.objects.exists()


def test_a_browser_creates_one_passkey_of_a_user(page: Page) -> None:
    VirtualAuthenticator(page)
    add_passkey(page)
    page.evaluate("api.loginWithPasskey()")

    failed = page.evaluate("api.addPasskey('Again').catch((error) => error.name)")

    assert failed == "InvalidStateError"


def test_a_field_offers_the_passkeys(page: Page) -> None:
    VirtualAuthenticator(page)
    add_passkey(page)

    user = page.evaluate("api.loginWithPasskey({ mediation: 'conditional' })")

    assert user["username"] == "alice"


def test_an_offer_outlives_its_challenge_and_can_be_cancelled(page: Page) -> None:
    """Without an authenticator the field has nothing to offer."""
    page.route(
        "**/auth/passkey/options",
        lambda route: route.fulfill(json={**route.fetch().json(), "timeout": 100}),
    )
    outcome = page.evaluate(
        """async () => {
          const controller = new AbortController();
          setTimeout(() => controller.abort(new Error("enough")), 1000);
          const options = { mediation: "conditional", signal: controller.signal };
          return api.loginWithPasskey(options).catch((error) => error.message);
        }"""
    )

    page.unroute_all(behavior="wait")

    assert outcome == "enough"
    assert Ticket.objects.filter(purpose="passkey").count() >= 3


class TestGuide:
    """The programs of docs/AUTH_GUIDE.md."""

    @pytest.fixture
    def programs(self) -> list[str]:
        guide = (ROOT / "docs/AUTH_GUIDE.md").read_text().partition("## Passkeys")[2]
        programs = re.findall(r"```javascript\n(.*?)```", guide, re.DOTALL)
        return [program.replace("a clear day in July", PASSWORD) for program in programs]

    def test_by_hand(self, page: Page, server: Server, programs: list[str]) -> None:
        page.goto(f"http://localhost:{server.port}/")
        VirtualAuthenticator(page)
        lines: list[str] = []
        page.on("console", lambda line: lines.append(line.text))
        page.evaluate(f"(async () => {{ {programs[0]} }})()")

        codes, user = lines
        assert codes.startswith("Keep these codes: [")
        assert user == "Signed in: alice"

    def test_by_the_client(self, page: Page, programs: list[str]) -> None:
        VirtualAuthenticator(page)
        page.evaluate(f"(async () => {{ {programs[1]} }})()")

        assert not Passkey.objects.exists()
        methods = list(Session.objects.order_by("created_at").values_list("methods", flat=True))
        assert methods == [
            ["pwd"],
            ["pop", "user", "mfa"],
            ["pop", "user", "mfa"],  # after a reauthentication
        ]

    def test_in_a_field(self, page: Page, programs: list[str]) -> None:
        VirtualAuthenticator(page)
        add_passkey(page)
        page.evaluate(f"(async () => {{ {programs[2]} }})()")

        assert Session.objects.latest("created_at").methods == ["pop", "user", "mfa"]


class TestRejected:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    def test_no_user_verification(self, page: Page, server: Server, transport: str) -> None:
        authenticator = VirtualAuthenticator(page, transport)
        add_passkey(page)
        authenticator.verify_user(False)

        assert sign_in(page)[0] == "NotAllowedError"
        if transport == "internal":  # A security key insists by itself.
            assert present(server, get_by_hand(page, server, verification="discouraged")) == WRONG
        authenticator.verify_user(True)
        assert sign_in(page)["username"] == "alice"

    def test_a_registration_without_user_verification(self, page: Page) -> None:
        VirtualAuthenticator(page, "usb", hasUserVerification=False, isUserVerified=False)
        # The page weakens what the service requires.
        page.evaluate(
            """() => {
              const create = navigator.credentials.create.bind(navigator.credentials);
              navigator.credentials.create = ({ publicKey }) => {
                publicKey.authenticatorSelection = { userVerification: "discouraged" };
                return create({ publicKey });
              };
            }"""
        )
        login(page)
        outcome = page.evaluate("api.addPasskey('Key').catch(({ problem }) => problem.errors[0])")

        assert (outcome["field"], outcome["code"]) == ("credential", "invalid")
        assert not Passkey.objects.exists()

    def test_another_origin_and_another_relying_party(self, page: Page, server: Server) -> None:
        authenticator = VirtualAuthenticator(page)
        add_passkey(page)
        [stored] = authenticator.credentials

        open_page(page, f"http://localhost:{server.port + 1}")
        assert present(server, get_by_hand(page, server)) == WRONG
        open_page(page, f"http://phishing.localhost:{server.port}")
        authenticator.replace(stored, rpId="phishing.localhost")
        assert present(server, get_by_hand(page, server, "phishing.localhost")) == WRONG
        with pytest.raises(Error, match="SecurityError"):
            get_by_hand(page, server, "example.com")

    def test_a_used_an_expired_and_a_foreign_challenge(self, page: Page, server: Server) -> None:
        VirtualAuthenticator(page)
        add_passkey(page)
        used, expired = get_by_hand(page, server), get_by_hand(page, server)

        assert present(server, used) == [200, None]
        assert present(server, used) == WRONG
        Ticket.objects.update(expires_at=Now())
        assert present(server, expired) == WRONG
        page.evaluate("api.loginWithPasskey()")
        options = page.evaluate("api.request('POST', '/users/me/passkeys/options')")
        credential = page.evaluate(
            BY_HAND, [{"challenge": options["challenge"]}, "localhost", "required"]
        )
        assert present(server, credential) == WRONG

    def test_a_foreign_credential(self, page: Page, alice: User) -> None:
        authenticator = VirtualAuthenticator(page)
        add_passkey(page)
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        [stored] = authenticator.credentials
        authenticator.replace(stored, privateKey=base64.b64encode(encoded).decode())
        assert sign_in(page) == WRONG

        other = base64.b64encode(b"another credential").decode()
        authenticator.of_it("removeCredential", credentialId=stored["credentialId"])
        authenticator.of_it("addCredential", credential={**stored, "credentialId": other})
        assert sign_in(page) == WRONG

    def test_a_bent_signature(self, page: Page, server: Server) -> None:
        VirtualAuthenticator(page)
        add_passkey(page)
        credential = get_by_hand(page, server)
        signature = credential["response"]["signature"]
        end = "A" if signature[-2] != "A" else "B"
        credential["response"]["signature"] = signature[:-2] + end + signature[-1]

        assert present(server, credential) == WRONG

    def test_a_copy_with_a_counter_that_does_not_grow(self, page: Page) -> None:
        authenticator = VirtualAuthenticator(page, "usb")
        add_passkey(page)
        [copied] = authenticator.credentials
        sign_in(page)
        sign_in(page)
        authenticator.replace(copied)

        assert sign_in(page) == WRONG
        assert Event.objects.filter(kind="passkey_cloned", username="alice").count() == 1

    def test_a_synced_one_whose_counter_does_not_grow_is_accepted(self, page: Page) -> None:
        authenticator = VirtualAuthenticator(page, defaultBackupEligibility=True)
        add_passkey(page)
        [copied] = authenticator.credentials
        sign_in(page)
        authenticator.replace(copied)

        assert sign_in(page)["username"] == "alice"
        assert not Event.objects.filter(kind="passkey_cloned").exists()
