"""The steps with which the doctor checks a running service, as a temporary user."""

import json
import re
import secrets
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pyotp
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from health.views import CheckError
from ops import mailbox

MAXIMUM_WAIT = 90  # seconds to wait for rate limits in total
DELIVERY = 30  # seconds in which an email is delivered
API = f"/{settings.API_PATH.rstrip('/')}"


def problem_in(content: bytes) -> dict[str, Any]:
    """Return the problem document of an error response, or {} for a proxy's page."""
    try:
        problem = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


class SkippedError(Exception):
    """The step cannot be checked from here."""


class Service:
    """A client of a running service, with a temporary user."""

    def __init__(self, url: str, host: str = "") -> None:
        self.url = url
        self.host = host  # of the requests, where it differs from the URL's
        self.is_local = urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}
        self.username = f"doctor-{secrets.token_hex(6)}"
        self.email = f"{self.username}@example.com"
        self.password = secrets.token_urlsafe(24)
        self.user_id: int | None = None
        self.bearer = ""
        self.headers: dict[str, str] = {}
        self.wait_left = MAXIMUM_WAIT
        self.seen: set[str] = set()  # tokens of emails
        self.recovery_codes: list[str] = []

    def call(self, method: str, path: str, body: Any = None, *, expect: int) -> dict[str, Any]:
        """Return the response's body; wait for rate limits and a busy service."""
        while True:
            status, headers, content = self.send(method, f"{API}{path}", body)
            wait = int(headers.get("Retry-After") or 0)
            if status not in {429, 503} or status == expect or not 0 < wait <= self.wait_left:
                break
            self.wait_left -= wait
            time.sleep(wait)
        if status != expect:
            raise CheckError(f"{method} {path} returned {status} instead of {expect}{self.hint()}")
        return content

    def hint(self) -> str:
        """Return a reason of unexpected responses that the settings of this process show."""
        host = self.host or urlsplit(self.url).hostname or ""
        if settings.DEBUG or validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
            return ""
        return f": ALLOWED_HOSTS does not contain {host}; use --host with one of its names"

    def send(self, method: str, path: str, body: Any) -> tuple[int, Any, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)  # noqa: S310 - the operator's URL
        request.add_header("Content-Type", "application/json")
        if self.host:
            request.add_header("Host", self.host)
        request.add_header("User-Agent", f"{settings.SERVICE_NAME}-doctor")
        if self.bearer:
            request.add_header("Authorization", f"Bearer {self.bearer}")
        for name, value in self.headers.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310 - as above
                return response.status, response.headers, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, problem_in(error.read())

    def emailed_token(self, address: str, page: str) -> str:
        """Wait for an email to this address that links to a page, and return its new token."""
        if not (settings.MAILBOX and self.is_local):
            raise SkippedError(
                "it needs the emailed link, which the doctor reads in the development mailbox "
                "(DEBUG, EMAIL_URL=filemail:///path, a service on this machine)"
            )
        link = re.compile(rf"/{page}#token=([\w-]+)")
        deadline = time.monotonic() + DELIVERY
        while time.monotonic() < deadline:
            for email in map(mailbox.read, mailbox.files()[: mailbox.SHOWN]):
                found = email.header.get("to") == address and link.search(email.text)
                if found and found[1] not in self.seen:
                    self.seen.add(found[1])
                    return found[1]
            time.sleep(0.2)
        raise CheckError(f"no email arrived within {DELIVERY} s; does manage.py mailworker run?")

    # A session

    def check_readiness(self) -> str:
        checks = self.call("GET", "/health/ready", expect=200)["checks"]
        if degraded := [name for name, check in checks.items() if check["status"] != "ok"]:
            raise CheckError(f"{', '.join(degraded)} is degraded")
        return "database, cache and migrations are ok"

    def register(self) -> str:
        user = {"username": self.username, "email": self.email, "password": self.password}
        if settings.REGISTRATION == "verified":
            self.call("POST", "/auth/registration", {"email": user.pop("email")}, expect=202)
            user["registration_token"] = self.emailed_token(self.email, "register")
        self.user_id = self.call("POST", "/users", user, expect=201)["id"]
        return f"user {self.user_id}"

    def log_in(self, code: str = "") -> str:
        """Log in, with a code if the user has a second factor."""
        path, body = "/auth/login", {"identity": self.username, "password": self.password}
        self.bearer = ""
        if self.recovery_codes:
            token = self.call("POST", path, body, expect=403)["mfa_token"]
            path, body = "/auth/mfa", {"mfa_token": token, "code": code or self.recovery_codes[0]}
        self.pair = self.call("POST", path, body, expect=200)
        self.bearer = self.pair["access_token"]
        return f"tokens for {self.pair['expires_in']} and {self.pair['refresh_expires_in']} s"

    def check_address(self) -> str:
        """Check the client's address. Behind a proxy's address all clients share rate limits."""
        page = self.call("GET", "/auth/sessions", expect=200)
        seen = next(session["ip_address"] for session in page["results"] if session["current"])
        if ip_address(seen).is_private and not self.is_local:
            raise CheckError(
                f"the client address is {seen}; if it is a proxy's, set TRUSTED_PROXY_COUNT to "
                f"the number of proxies (now {settings.TRUSTED_PROXY_COUNT})"
            )
        return f"{seen}; if it is a proxy's, set TRUSTED_PROXY_COUNT to the number of proxies"

    def refresh(self) -> str:
        # The second rotation makes the first token a replay also within REFRESH_GRACE_SECONDS.
        tokens = [self.pair["refresh_token"]]
        for _ in range(2):
            body = {"refresh_token": tokens[-1]}
            self.pair = self.call("POST", "/auth/refresh", body, expect=200)
            tokens.append(self.pair["refresh_token"])
        if len(set(tokens)) < len(tokens):
            raise CheckError("the refresh token was not rotated")
        self.spent = tokens[0]
        self.bearer = self.pair["access_token"]
        self.call("GET", "/users/me", expect=200)
        return "new tokens, and the last ones work"

    def refresh_by_cookie(self) -> str:
        """Refresh as a page on the host of the service, whose origin the service must see."""
        if not settings.REFRESH_COOKIE:
            return "REFRESH_COOKIE is off"
        token, address = self.pair["refresh_token"], urlsplit(self.url)
        origin = f"{address.scheme}://{self.host or address.netloc}"
        self.headers = {"Cookie": f"__Host-refresh={token}; refresh={token}", "Origin": origin}
        try:
            self.call("POST", "/auth/refresh", {}, expect=200)
        except CheckError as error:
            raise CheckError(f"{error}; check TRUSTED_PROXY_COUNT and PUBLIC_URL") from error
        finally:
            self.headers = {}
        return f"allowed for {origin}"

    def replay(self) -> str:
        self.call("POST", "/auth/refresh", {"refresh_token": self.spent}, expect=401)
        return "the used token was rejected"

    def check_ended(self) -> str:
        self.call("GET", "/users/me", expect=401)
        body = {"refresh_token": self.pair["refresh_token"]}
        self.bearer = ""
        self.call("POST", "/auth/refresh", body, expect=401)
        return "the session has ended"

    # Emails

    def verify(self) -> str:
        """Verify the address, unless the registration has verified it."""
        self.log_in()
        if settings.REGISTRATION != "verified":
            token = self.emailed_token(self.email, "verify-email")
            self.call("POST", "/users/me/email/verify", {"token": token}, expect=200)
        return self.check_email(self.email)

    def check_email(self, address: str) -> str:
        user = self.call("GET", "/users/me", expect=200)
        if (user["email"], user["email_verified"]) != (address, True):
            raise CheckError("the user does not have the verified address")
        return "the address is verified"

    def forget(self) -> str:
        self.bearer = ""
        self.call("POST", "/auth/password/forgot", {"identity": self.email}, expect=202)
        self.reset_token = self.emailed_token(self.email, "reset-password")
        return "the reset link has arrived"

    def reset(self) -> str:
        self.choose_password(self.reset_token)
        body = {"token": self.reset_token, "new_password": self.password}
        self.call("POST", "/auth/password/reset", body, expect=400)
        return "the link worked once"

    def choose_password(self, token: str) -> None:
        """Reset the password by an emailed token, and log in with the new one."""
        new = secrets.token_urlsafe(24)
        body = {"token": token, "new_password": new}
        self.call("POST", "/auth/password/reset", body, expect=204)
        self.password = new
        self.log_in()

    def change_address(self) -> str:
        new = f"new-{self.email}"
        self.call("POST", "/users/me/email", {"email": new}, expect=202)
        token = self.emailed_token(new, "verify-email")
        self.call("POST", "/users/me/email/verify", {"token": token}, expect=200)
        return self.check_email(new)

    def add_factor(self) -> str:
        """Add an authenticator app, log in with it, and remove it."""
        totp = pyotp.TOTP(self.call("POST", "/users/me/totp", expect=201)["secret"])
        added = self.call("POST", "/users/me/totp/confirm", {"code": totp.now()}, expect=200)
        self.recovery_codes = added["recovery_codes"]
        # A code works once, so this is the next one.
        self.log_in(totp.at(datetime.now(UTC), counter_offset=1))
        self.call("DELETE", "/users/me/totp", expect=204)
        self.recovery_codes = []
        return "a login needs its code"

    def undo(self) -> str:
        if not settings.UNDO_LIFETIME:
            raise SkippedError("UNDO_DAYS is 0, so no undo link is sent")
        self.choose_password(self.emailed_token(self.email, "reset-password"))
        self.check_email(self.email)
        return "the former address and a new password"

    def clean_up(self) -> str:
        if self.user_id is None:
            return "no user to delete"
        path = f"/users/{self.user_id}"
        if self.send("DELETE", f"{API}{path}", None)[0] != 204:  # The session is not fresh.
            self.log_in()
            self.call("DELETE", path, expect=204)
        return f"user {self.user_id} is deleted"
