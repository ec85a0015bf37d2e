"""Check the dependencies of a deployment, and the lifecycle of a session on a running service."""

import json
import secrets
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import Tags, run_checks
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from health import views
from health.views import CheckError

API = f"/{settings.API_PATH.rstrip('/')}"
SKEW = 5  # seconds
MAXIMUM_WAIT = 90  # seconds to wait for rate limits in total


class Command(BaseCommand):
    help = (
        "Check configuration, database, cache, migrations and clock. With --url, also check the "
        "lifecycle of a session on a running service: register, log in, refresh, replay, check "
        "that the session has ended, delete the user. Exits with 1 if a check fails."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", help="URL of a running service, such as http://localhost:3000")

    def handle(self, *args: Any, url: str | None, **options: Any) -> None:
        self.failures = 0
        self.run_check("configuration", check_configuration)
        if not self.failures:
            for name, check in (
                ("database", check_database),
                ("migrations", check_migrations),
                ("cache", check_cache),
                ("clock", check_clock),
            ):
                self.run_check(name, check)
        if url:
            self.check_session(Service(url.rstrip("/")))
        if self.failures:
            raise CommandError(f"{self.failures} check(s) failed.")
        self.stdout.write("All checks passed.")

    def run_check(self, name: str, check: Callable[[], str]) -> bool:
        """Run a check, print its result, and return whether it passed."""
        try:
            result = check()
        except Exception as error:  # noqa: BLE001 - a check may raise anything, and it is reported
            self.failures += 1
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.stdout.write(self.style.ERROR(f"  failed  {name}: {reason}"))
            return False
        self.stdout.write(f"  ok      {name}: {result}")
        return True

    def check_session(self, service: "Service") -> None:
        """Run the steps of a session in order, up to the first failure, and delete the user."""
        steps = (
            ("readiness", service.check_readiness),
            ("register", service.register),
            ("log in", service.log_in),
            ("client address", service.check_address),
            ("refresh", service.refresh),
            ("replay", service.replay),
            ("end", service.check_ended),
        )
        try:
            all(self.run_check(name, step) for name, step in steps)
        finally:
            self.run_check("clean up", service.clean_up)


def check_configuration() -> str:
    faults = [m for m in run_checks() if m.is_serious() and not m.is_silenced()]
    if faults:
        raise CheckError(" ".join(fault.msg for fault in faults))
    return "no faults" + (", DEBUG is on" if settings.DEBUG else "")


def check_database() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), lower('É') = 'é',"
            " current_setting('statement_timeout') <> '0'"
        )
        version, folds, has_timeout = cursor.fetchone()
    if not folds:
        raise CheckError("the locale does not fold the case of É; create the database with C.UTF-8")
    if settings.DB_PGBOUNCER and not has_timeout:
        role = connection.settings_dict["USER"]
        raise CheckError(
            f"no statement timeout is set; use ALTER ROLE {role} SET statement_timeout = '2500ms'"
        )
    for fault in run_checks(tags=[Tags.database], databases=["default"]):
        raise CheckError(fault.msg)
    return f"PostgreSQL {version}"


def check_migrations() -> str:
    views.check_migrations()
    return "all applied"


def check_cache() -> str:
    views.check_cache()
    return "shared" if settings.CACHE_URL else "in this process only"


def check_clock() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        skew = abs((cursor.fetchone()[0] - datetime.now(UTC)).total_seconds())
    if skew > SKEW:
        raise CheckError(f"the clock differs from the database's by {skew:.0f} s")
    return f"within {SKEW} s of the database's"


class Service:
    """A client of a running service, with a temporary user."""

    def __init__(self, url: str) -> None:
        self.url = url
        name = f"doctor-{secrets.token_hex(6)}"
        self.password = secrets.token_urlsafe(24)
        self.user = {"username": name, "email": f"{name}@example.com", "password": self.password}
        self.user_id: int | None = None
        self.bearer = ""
        self.wait_left = MAXIMUM_WAIT

    def call(self, method: str, path: str, body: Any = None, *, expect: int) -> dict[str, Any]:
        """Return the response's body; wait for rate limits and a busy service."""
        while True:
            status, headers, content = self.send(method, path, body)
            wait = int(headers.get("Retry-After") or 0)
            if status not in {429, 503} or status == expect or not 0 < wait <= self.wait_left:
                break
            self.wait_left -= wait
            time.sleep(wait)
        if status != expect:
            raise CheckError(f"{method} {path} returned {status} instead of {expect}")
        return content

    def send(self, method: str, path: str, body: Any) -> tuple[int, Any, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)  # noqa: S310 - the operator's URL
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", "latchkey-doctor")
        if self.bearer:
            request.add_header("Authorization", f"Bearer {self.bearer}")
        try:
            with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310 - as above
                return response.status, response.headers, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, {}

    def check_readiness(self) -> str:
        checks = self.call("GET", f"{API}/health/ready", expect=200)["checks"]
        if degraded := [name for name, check in checks.items() if check["status"] != "ok"]:
            raise CheckError(f"{', '.join(degraded)} is degraded")
        return "database, cache and migrations are ok"

    def register(self) -> str:
        self.user_id = self.call("POST", f"{API}/users", self.user, expect=201)["id"]
        return f"user {self.user_id}"

    def log_in(self) -> str:
        body = {"identity": self.user["email"], "password": self.password}
        self.pair = self.call("POST", f"{API}/auth/login", body, expect=200)
        self.bearer = self.pair["access_token"]
        return f"tokens for {self.pair['expires_in']} and {self.pair['refresh_expires_in']} s"

    def check_address(self) -> str:
        """Check the client's address. Behind a proxy's address all clients share rate limits."""
        page = self.call("GET", f"{API}/auth/sessions", expect=200)
        seen = next(session["ip_address"] for session in page["results"] if session["current"])
        here = urlsplit(self.url).hostname in {"localhost", "127.0.0.1", "::1"}
        if ip_address(seen).is_private and not here:
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
            self.pair = self.call("POST", f"{API}/auth/refresh", body, expect=200)
            tokens.append(self.pair["refresh_token"])
        if len(set(tokens)) < len(tokens):
            raise CheckError("the refresh token was not rotated")
        self.spent = tokens[0]
        self.bearer = self.pair["access_token"]
        self.call("GET", f"{API}/users/me", expect=200)
        return "new tokens, and the last ones work"

    def replay(self) -> str:
        self.call("POST", f"{API}/auth/refresh", {"refresh_token": self.spent}, expect=401)
        return "the used token was rejected"

    def check_ended(self) -> str:
        self.call("GET", f"{API}/users/me", expect=401)
        body = {"refresh_token": self.pair["refresh_token"]}
        self.bearer = ""
        self.call("POST", f"{API}/auth/refresh", body, expect=401)
        return "the session has ended"

    def clean_up(self) -> str:
        if self.user_id is None:
            return "no user to delete"
        self.bearer = ""
        self.log_in()
        self.call("DELETE", f"{API}/users/{self.user_id}", expect=204)
        return f"user {self.user_id} is deleted"
