"""Look at everything that a deployment needs, and live the life of one session against it."""

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

from health.views import check_cache, check_migrations

SKEW = 5  # seconds
PATIENCE = 90  # seconds to wait for a limit, in all


class TroubleError(Exception):
    """What was looked at is not as it should be."""


class Command(BaseCommand):
    help = (
        "Check configuration, database, cache, migrations and clock. With --url, also perform the "
        "whole life of a session against a running service: register, log in, refresh, replay, see "
        "the session end, and remove the user again. Exits with 1 when anything is wrong."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", help="of a running service, such as http://localhost:3000")

    def handle(self, *args: Any, url: str | None, **options: Any) -> None:
        self.troubles = 0
        self.look("configuration", look_at_configuration)
        if not self.troubles:
            for name, look in (
                ("database", look_at_database),
                ("migrations", look_at_migrations),
                ("cache", look_at_cache),
                ("clock", look_at_clock),
            ):
                self.look(name, look)
        if url:
            self.live(Service(url.rstrip("/")))
        if self.troubles:
            raise CommandError(f"{self.troubles} thing(s) are wrong.")
        self.stdout.write("All is well.")

    def look(self, name: str, look: Callable[[], str]) -> bool:
        """Say what a look saw; whatever it raises is what is wrong."""
        try:
            seen = look()
        except Exception as error:  # noqa: BLE001 - a doctor reports what ails, whatever it is.
            self.troubles += 1
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.stdout.write(self.style.ERROR(f"  failed  {name}: {reason}"))
            return False
        self.stdout.write(f"  ok      {name}: {seen}")
        return True

    def live(self, service: "Service") -> None:
        steps = (
            ("readiness", service.is_ready),
            ("register", service.register),
            ("log in", service.log_in),
            ("client address", service.address),
            ("refresh", service.refresh),
            ("replay", service.replay),
            ("end", service.has_ended),
        )
        try:
            # Each step needs the one before it.
            all(self.look(name, step) for name, step in steps)
        finally:
            self.look("clean up", service.clean_up)


def look_at_configuration() -> str:
    faults = [m for m in run_checks() if m.is_serious() and not m.is_silenced()]
    if faults:
        raise TroubleError(" ".join(fault.msg for fault in faults))
    return "no fault" + (", DEBUG is on" if settings.DEBUG else "")


def look_at_database() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), lower('É') = 'é',"
            " current_setting('statement_timeout') <> '0'"
        )
        version, folds, has_timeout = cursor.fetchone()
    if not folds:
        raise TroubleError("its locale does not fold the case of É; create it with C.UTF-8")
    if settings.DB_PGBOUNCER and not has_timeout:
        role = connection.settings_dict["USER"]
        raise TroubleError(
            f"PgBouncer sets no timeouts; ALTER ROLE {role} SET statement_timeout = '2500ms' does"
        )
    for fault in run_checks(tags=[Tags.database], databases=["default"]):
        raise TroubleError(fault.msg)
    return f"PostgreSQL {version}"


def look_at_migrations() -> str:
    check_migrations()
    return "all applied"


def look_at_cache() -> str:
    check_cache()
    return "shared" if settings.CACHE_URL else "in this process only"


def look_at_clock() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        skew = abs((cursor.fetchone()[0] - datetime.now(UTC)).total_seconds())
    if skew > SKEW:
        raise TroubleError(f"it is {skew:.0f} s off the database's")
    return f"within {SKEW} s of the database's"


class Service:
    """A running service and the one user that the doctor makes there."""

    def __init__(self, url: str) -> None:
        self.url = url
        name = f"doctor-{secrets.token_hex(6)}"
        self.password = secrets.token_urlsafe(24)
        self.user = {"username": name, "email": f"{name}@example.com", "password": self.password}
        self.user_id: int | None = None
        self.bearer = ""
        self.patience = PATIENCE

    def call(self, method: str, path: str, body: Any = None, *, expect: int) -> dict[str, Any]:
        """Return the answer's body; wait out a limit or a busy moment, within patience."""
        while True:
            status, headers, answer = self.send(method, path, body)
            wait = int(headers.get("Retry-After") or 0)
            if status not in {429, 503} or status == expect or not 0 < wait <= self.patience:
                break
            self.patience -= wait
            time.sleep(wait)
        if status != expect:
            raise TroubleError(f"{method} {path} answered {status}, not {expect}")
        return answer

    def send(self, method: str, path: str, body: Any) -> tuple[int, Any, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)  # noqa: S310
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", "latchkey-doctor")
        if self.bearer:
            request.add_header("Authorization", f"Bearer {self.bearer}")
        try:
            with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310
                return response.status, response.headers, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, {}

    def is_ready(self) -> str:
        checks = self.call("GET", "/api/v1/health/ready", expect=200)["checks"]
        if degraded := [name for name, check in checks.items() if check["status"] != "ok"]:
            raise TroubleError(f"{', '.join(degraded)} is degraded")
        return "database, cache and migrations are ok"

    def register(self) -> str:
        self.user_id = self.call("POST", "/api/v1/users", self.user, expect=201)["id"]
        return f"user {self.user_id}"

    def log_in(self) -> str:
        body = {"identity": self.user["email"], "password": self.password}
        self.pair = self.call("POST", "/api/v1/auth/login", body, expect=200)
        self.bearer = self.pair["access_token"]
        return f"a pair for {self.pair['expires_in']} and {self.pair['refresh_expires_in']} s"

    def address(self) -> str:
        """Say whom the service takes us for; a proxy's address would count everyone as one."""
        page = self.call("GET", "/api/v1/auth/sessions", expect=200)
        seen = next(session["ip_address"] for session in page["results"] if session["current"])
        here = urlsplit(self.url).hostname in {"localhost", "127.0.0.1", "::1"}
        if ip_address(seen).is_private and not here:
            raise TroubleError(
                f"it takes us for {seen}; if that is a proxy's address, set TRUSTED_PROXY_COUNT "
                f"to the number of proxies (here it is {settings.TRUSTED_PROXY_COUNT})"
            )
        return f"{seen}; if that is a proxy's, set TRUSTED_PROXY_COUNT to the number of proxies"

    def refresh(self) -> str:
        # Twice, so that the first token is beyond the grace that a service may have.
        tokens = [self.pair["refresh_token"]]
        for _ in range(2):
            body = {"refresh_token": tokens[-1]}
            self.pair = self.call("POST", "/api/v1/auth/refresh", body, expect=200)
            tokens.append(self.pair["refresh_token"])
        if len(set(tokens)) < len(tokens):
            raise TroubleError("the refresh token was not rotated")
        self.spent = tokens[0]
        self.bearer = self.pair["access_token"]
        self.call("GET", "/api/v1/users/me", expect=200)
        return "new pairs, and the last works"

    def replay(self) -> str:
        self.call("POST", "/api/v1/auth/refresh", {"refresh_token": self.spent}, expect=401)
        return "the spent token was refused"

    def has_ended(self) -> str:
        self.call("GET", "/api/v1/users/me", expect=401)
        body = {"refresh_token": self.pair["refresh_token"]}
        self.bearer = ""
        self.call("POST", "/api/v1/auth/refresh", body, expect=401)
        return "the whole session has ended with it"

    def clean_up(self) -> str:
        if self.user_id is None:
            return "there is no user to remove"
        self.bearer = ""
        self.log_in()
        self.call("DELETE", f"/api/v1/users/{self.user_id}", expect=204)
        return f"user {self.user_id} is removed"
