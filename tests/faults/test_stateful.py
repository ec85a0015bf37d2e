"""
Random operations by several threads, checked against a ledger of what the service acknowledged.

The ledger records facts, each with the time of its acknowledgement. A request that starts after
that time must see the fact; a request that overlaps it may see either state. Strict rotation
(`REFRESH_GRACE_SECONDS=0`), so that any token presented twice is a replay.
"""

import contextlib
import http.cookiejar
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import at_once
from tests.rig.machine import ROOT
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

# ruff: noqa: S311, S608 - random choices are no secret, and every number in SQL is an integer
pytestmark = [needs_redis, pytest.mark.slow]

THREADS = 8
ACCOUNTS = 6
SESSION_LIMIT = 8
NEVER = float("inf")
# Sessions without exactly one event that says how they ended, active sessions of users who may
# have none, and users with more active sessions than the limit.
BROKEN_ROWS = """
    SELECT 'ended without one event', s.id::text FROM accounts_session s
     WHERE s.ended_at IS NOT NULL AND 1 <> (
           SELECT count(*) FROM accounts_event e WHERE e.session_id = s.id
              AND e.kind IN ('session_ended', 'signed_out', 'replayed'))
    UNION ALL
    SELECT 'active of an inactive user', s.id::text FROM accounts_session s
      JOIN accounts_user u ON u.id = s.user_id
     WHERE s.ended_at IS NULL AND NOT u.is_active
    UNION ALL
    SELECT 'above the session limit', user_id::text FROM accounts_session
     WHERE ended_at IS NULL GROUP BY user_id HAVING count(*) > %d
"""


@dataclass(eq=False)
class Device:
    """One session of the API, or of the console; from `ended_at` on it must be rejected."""

    client: "Client | Console"
    ended_at: float = NEVER
    spent: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, at: float) -> None:
        self.ended_at = min(self.ended_at, at)


@dataclass(eq=False)
class Account:
    """A user: the current password, every former one, and the sessions that were started."""

    number: int
    username: str
    password: str = PASSWORD
    former: dict[str, float] = field(default_factory=dict)  # password → when it stopped working
    devices: list[Device] = field(default_factory=list)
    deleted_at: float = NEVER
    inactive_since: float = NEVER
    history: "deque[str]" = field(default_factory=lambda: deque(maxlen=30))
    # Held by operations with several state changes; all others may overlap.
    changing: threading.RLock = field(default_factory=threading.RLock)


class Console:
    """A browser that is signed in to the console: it keeps cookies and sends the CSRF token."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/admin/"
        self.cookies = http.cookiejar.CookieJar()
        cookies = urllib.request.HTTPCookieProcessor(self.cookies)
        self.opener = urllib.request.build_opener(cookies)
        self.lock = threading.Lock()

    def sign_in(self, username: str, password: str) -> bool:
        self.open("login/")
        status, _ = self.open("login/", username=username, password=password, next="/admin/")
        return status == 200 and self.is_signed_in()

    def is_signed_in(self) -> bool:
        return 'id="user-tools"' in self.open("")[1]

    def open(self, path: str, **fields: str) -> tuple[int, str]:
        """Get a page, or post a form where fields are given; redirects are followed."""
        with self.lock:
            body = None
            if fields:
                token = next(c.value for c in self.cookies if c.name == "csrftoken")
                fields["csrfmiddlewaretoken"] = str(token)
                body = urllib.parse.urlencode(fields).encode()
            try:
                with self.opener.open(self.url + path, body, timeout=40) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

    def form(self, path: str) -> dict[str, str]:
        """Return the fields of a form as a browser would send them unchanged."""
        fields: dict[str, str] = {}
        for tag in re.findall(r"<input [^>]+>", self.open(path)[1]):
            attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
            name = attributes.get("name", "_")
            if name.startswith("_") or attributes.get("type") == "submit":
                continue
            if attributes.get("type") != "checkbox" or " checked" in tag:
                fields[name] = attributes.get("value", "on")
        return fields


class Ledger:
    """The accounts, what was acknowledged about them, and the violations that were seen."""

    def __init__(self, ports: list[int], postgres: Postgres, environment: dict[str, str]) -> None:
        self.ports, self.postgres, self.environment = ports, postgres, environment
        self.violations: list[str] = []
        self.operations = 0
        self.accounts = [self.register() for _ in range(ACCOUNTS)]
        boss = self.register()
        self.sql(f"UPDATE accounts_user SET is_superuser = true WHERE id = {boss.number}")
        self.console = Console(ports[0])
        assert self.console.sign_in(boss.username, boss.password)

    def sql(self, statement: str) -> list[Any]:
        return self.postgres.execute(statement, dbname="latchkey")

    def client(self) -> Client:
        return Client(random.choice(self.ports))

    def register(self) -> Account:
        """Register a user, who may enter the console too."""
        username = f"user-{uuid.uuid4().hex[:12]}"
        body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
        response = self.client().post(f"{API}/users", body)
        assert response.status == 201, response
        number = response.json["id"]
        self.sql(f"UPDATE accounts_user SET is_staff = true WHERE id = {int(number)}")
        return Account(number, username)

    def note(self, account: Account, text: str) -> None:
        account.history.append(f"{time.monotonic():.3f} {text}")

    def check(self, account: Account, what: str, response: Response, *allowed: int) -> None:
        """Note a response; a status that is neither allowed nor the contract's 503 is wrong."""
        self.note(account, f"{what} {response.status}")
        if response.status not in allowed and not response.is_unavailable:
            self.violation(account, f"{what}: unexpected {response.status}")

    def violation(self, account: Account, text: str) -> None:
        self.violations.append(f"{text} ({account.username}): {'; '.join(account.history)}")

    @contextlib.contextmanager
    def device(self, account: Account) -> Iterator[Device | None]:
        """Lock and yield one of the latest API sessions, or yield None."""
        devices = [d for d in account.devices if isinstance(d.client, Client)][-10:]
        device = random.choice(devices) if devices else None
        with device.lock if device else contextlib.nullcontext():
            if device:
                device.client.connection.close()  # The server may have closed an idle one.
            yield device

    # What users do

    def login(self, account: Account) -> None:
        password, inactive_since = account.password, account.inactive_since
        started, client = time.monotonic(), self.client()
        body = {"identity": account.username, "password": password}
        response = client.post(f"{API}/auth/login", body)
        self.check(account, "login", response, 200, 401, 403)
        if response.status == 200:
            client.take(response)
            self.started(account, client, password, started, inactive_since)

    def console_login(self, account: Account) -> None:
        password, inactive_since = account.password, account.inactive_since
        started, console = time.monotonic(), Console(random.choice(self.ports))
        if console.sign_in(account.username, password):
            self.note(account, "console login")
            self.started(account, console, password, started, inactive_since)

    def started(
        self, account: Account, client: Any, password: str, started: float, inactive: float
    ) -> None:
        """Record an acknowledged session; report it if the account could not start one."""
        device = Device(client)
        account.devices.append(device)
        if started > account.former.get(password, NEVER):
            self.violation(account, "a former password signed in")
        if started > account.deleted_at:
            self.violation(account, "a deleted account signed in")
        if started > inactive == account.inactive_since:
            self.violation(account, "an inactive account signed in")
        if password in account.former:  # The password change was later and ended it.
            device.end(time.monotonic())

    def login_with_former_password(self, account: Account) -> None:
        if former := list(account.former):
            body = {"identity": account.username, "password": random.choice(former)}
            response = self.client().post(f"{API}/auth/login", body)
            self.check(account, "login with a former password", response, 401)

    def use(self, account: Account) -> None:
        with self.device(account) as device:
            if device:
                started = time.monotonic()
                response = device.client.get(f"{API}/users/me")
                self.check(account, "use", response, 200, 401)
                if response.status == 200 and started > device.ended_at:
                    self.violation(account, "an ended session authenticated")

    def use_console(self, account: Account) -> None:
        consoles = [d for d in account.devices if isinstance(d.client, Console)][-5:]
        for device in consoles:
            started = time.monotonic()
            if device.client.is_signed_in() and started > device.ended_at:
                self.violation(account, "an ended console session was accepted")

    def refresh(self, account: Account) -> None:
        with self.device(account) as device:
            if device:
                started, token = time.monotonic(), device.client.refresh_token
                response = device.client.refresh()
                self.check(account, "refresh", response, 200, 401)
                if response.status == 200:
                    device.spent.append(token)
                    if started > device.ended_at:
                        self.violation(account, "an ended session refreshed")

    def refresh_twice(self, account: Account) -> None:
        """Send one token twice at once: at most one succeeds, and the other ends the session."""
        with self.device(account) as device:
            if device:
                body = {"refresh_token": device.client.refresh_token}
                clients = [self.client(), self.client()]
                both = at_once(*[partial(c.post, f"{API}/auth/refresh", body) for c in clients])
                for response in both:
                    self.check(account, "doubled refresh", response, 200, 401)
                    if response.status == 200:
                        device.client.take(response)
                statuses = {response.status for response in both}
                if statuses == {200}:
                    self.violation(account, "one refresh token gave two pairs")
                if 401 in statuses <= {200, 401}:
                    device.end(time.monotonic())

    def replay(self, account: Account) -> None:
        with self.device(account) as device:
            if device and device.spent:
                body = {"refresh_token": random.choice(device.spent)}
                response = self.client().post(f"{API}/auth/refresh", body)
                self.check(account, "replay", response, 401)
                if response.status == 401:
                    device.end(time.monotonic())

    def logout(self, account: Account) -> None:
        with self.device(account) as device:
            if device:
                response = device.client.post(f"{API}/auth/logout")
                self.check(account, "logout", response, 204, 401)
                if response.status == 204:
                    device.end(time.monotonic())

    def logout_all(self, account: Account) -> None:
        began = list(account.devices)
        with self.device(account) as device:
            if device:
                response = device.client.post(f"{API}/auth/logout-all")
                self.check(account, "logout-all", response, 200, 401)
                if response.status == 200:
                    self.end(began)

    def end(self, devices: list[Device], keep: Device | None = None) -> None:
        now = time.monotonic()
        for device in devices:
            if device is not keep:
                device.end(now)

    def change_password(self, account: Account) -> None:
        """With a bearer token that session stays; by identity every session ends."""
        old, new = account.password, f"a new word {uuid.uuid4().hex}"
        body = {"current_password": old, "new_password": new}
        with account.changing, self.device(account) as device:
            if device is None or random.random() < 0.5:
                device, body["identity"] = None, account.username
            client = device.client if device else self.client()
            response = client.post(f"{API}/auth/password", body)
            self.check(account, "password", response, 204, 400, 401)
            if response.status == 204:
                account.former[old], account.password = time.monotonic(), new
                self.end(list(account.devices), keep=device)

    def delete(self, account: Account) -> None:
        """Delete the account and replace it with a new one."""
        with self.device(account) as device:
            if device and random.random() < 0.2:
                path = f"{API}/users/{account.number}"
                response = device.client.request("DELETE", path)
                self.check(account, "delete", response, 204, 401)
                if response.status == 204:
                    account.deleted_at = time.monotonic()
                    self.end(list(account.devices))
                    self.accounts[self.accounts.index(account)] = self.register()

    # What staff do

    def staff(self, account: Account, action: str) -> bool:
        status, page = self.console.open(f"accounts/user/{account.number}/{action}/", confirm="1")
        self.note(account, f"staff {action} {status}")
        if status >= 500:
            self.violation(account, f"staff {action}: {status}")
        return status == 200 and 'class="success"' in page

    def staff_ends_all(self, account: Account) -> None:
        began = list(account.devices)
        if self.staff(account, "end-sessions"):
            self.end(began)

    def staff_deactivates_and_activates(self, account: Account) -> None:
        with account.changing:
            if self.staff(account, "set/deactivate"):
                account.inactive_since = time.monotonic()
                self.end(list(account.devices))
                self.use(account)
                self.login(account)
                account.inactive_since = NEVER
                self.staff(account, "set/activate")

    def staff_saves_a_stale_form(self, account: Account) -> None:
        """Save a form that was opened before the user changed the password or was deleted."""
        path = f"accounts/user/{account.number}/change/"
        with account.changing:
            fields = self.console.form(path)
            random.choice([self.change_password, self.delete])(account)
            status, _ = self.console.open(path, **fields) if fields else (404, "")
            self.note(account, f"staff saves a stale form {status}")
            if status >= 500:
                self.violation(account, f"stale form: {status}")

    def command_ends_all(self, account: Account) -> None:
        if random.random() < 0.2:  # The command takes a second to start.
            began = list(account.devices)
            command = [sys.executable, "manage.py", "endsessions", account.username]
            done = subprocess.run(command, cwd=ROOT, env=self.environment, check=False)
            if done.returncode == 0:
                self.end(began)

    def run(self, stop_at: float) -> None:
        often = [self.login, self.use, self.refresh, self.console_login, self.use_console]
        seldom = [
            *[self.refresh_twice, self.replay, self.logout, self.logout_all, self.delete],
            *[self.change_password, self.login_with_former_password, self.staff_ends_all],
            *[self.staff_deactivates_and_activates, self.staff_saves_a_stale_form],
            self.command_ends_all,
        ]
        while time.monotonic() < stop_at:
            operation = random.choice(often * 4 + seldom)
            operation(random.choice(self.accounts))
            self.operations += 1

    def check_the_end(self) -> None:
        """Check all accounts and rows after the last operation."""
        for account in self.accounts:
            for device in [d for d in account.devices if isinstance(d.client, Client)]:
                device.client.connection.close()
                response = device.client.get(f"{API}/users/me")
                if response.status == 200 and device.ended_at < NEVER:
                    self.violation(account, "an ended session is alive")
            body = {"identity": account.username, "password": account.password}
            response = self.client().post(f"{API}/auth/login", body)
            if response.status != 200:
                self.violation(account, f"the current password gives {response.status}")
        self.violations += map(str, self.sql(BROKEN_ROWS % SESSION_LIMIT))


def test_random_operations_break_no_session_invariant(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    seconds = float(os.environ.get("STATEFUL_SECONDS", "120"))
    seed = int(os.environ.get("STATEFUL_SEED", "0")) or time.time_ns()
    random.seed(seed)
    shared = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    shared |= {"REFRESH_GRACE_SECONDS": "0", "SESSION_LIMIT": str(SESSION_LIMIT)}
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings", **shared}
    with serve(tmp_path / "one", **shared) as one, serve(tmp_path / "two", **shared) as two:
        ledger = Ledger([one.port, two.port], postgres, environment)
        stop_at = time.monotonic() + seconds
        with ThreadPoolExecutor(THREADS) as pool:
            for running in [pool.submit(ledger.run, stop_at) for _ in range(THREADS)]:
                running.result()
        ledger.check_the_end()
    for violation in ledger.violations[:10]:
        print(violation)  # noqa: T201 - pytest shows it where the test fails
    figure(
        f"{THREADS} threads of random operations for {seconds:.0f} s, the console among them "
        f"(seed {seed}): violations of the session invariants",
        demanded="0",
        measured=f"{len(ledger.violations)} of {ledger.operations:,} operations",
        met=not ledger.violations,
    )
