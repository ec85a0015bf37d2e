"""
A Latchkey client. It stores the tokens, refreshes expired ones and waits for rate limits.

It needs only the standard library and is thread-safe:

    api = Latchkey("https://api.example.com/api/v1")
    api.login("alice", "a sunny day in May")
    me = api.request("GET", "/users/me")
"""

import base64
import json
import math
import threading
import time
import urllib.error
import urllib.request
from typing import Any

MAXIMUM_WAIT = 60  # seconds to wait for rate limits and a busy service, in total
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
REPEATS = 3  # of an idempotent request after a 502 or 504

Pair = dict[str, Any]


class ApiError(Exception):
    """An error response. `problem` is the problem document, or empty. Clients act on `code`."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail", f"status {status}"))
        self.status = status
        self.code = problem.get("code")
        self.problem = problem


class Latchkey:
    def __init__(self, base: str) -> None:
        self.base = base
        self.pair: Pair | None = None
        self.lock = threading.Lock()

    def login(self, identity: str, password: str) -> dict[str, Any]:
        pair = self.send("POST", "/auth/login", {"identity": identity, "password": password})
        user: dict[str, Any] = pair.pop("user")
        with self.lock:
            self.pair = pair
        return user

    def logout(self) -> None:
        pair = self.pair
        try:
            self.request("POST", "/auth/logout")
        finally:
            with self.lock:
                if session_of(self.pair) == session_of(pair):
                    self.pair = None

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as the signed-in user. If the token has expired, refresh it and repeat."""
        pair = self.pair
        try:
            return self.send(method, path, body, pair["access_token"] if pair else None)
        except ApiError as error:
            if error.status != 401 or pair is None:
                raise
        return self.send(method, path, body, self.refresh(pair)["access_token"])

    def refresh(self, old: Pair) -> Pair:
        """Return a newer pair of the same session. Concurrent threads share one refresh."""
        with self.lock:
            # Another thread may have signed in as another user, who must not send this request.
            if self.pair is None or session_of(self.pair) != session_of(old):
                raise ApiError(401, {"code": "token_not_valid", "detail": "Signed out."})
            if self.pair["access_token"] == old["access_token"]:
                spent = {"refresh_token": self.pair["refresh_token"]}
                try:
                    self.pair = self.send("POST", "/auth/refresh", spent)
                except ApiError as error:
                    # The session has ended. After any other error the token may still be valid.
                    if error.status == 401:
                        self.pair = None
                    raise
            return self.pair

    def send(self, method: str, path: str, body: Any = None, access: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        if access:
            headers["Authorization"] = f"Bearer {access}"
        remaining_wait, repeats = float(MAXIMUM_WAIT), 0
        while True:
            request = urllib.request.Request(self.base + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return parse(response.status, response.read())
            except urllib.error.HTTPError as error:
                with error:
                    problem = problem_in(error.read())
                    wait = seconds_to_wait(method, error, problem, repeats)
                    if wait > remaining_wait:
                        raise ApiError(error.code, problem) from error
            remaining_wait, repeats = remaining_wait - wait, repeats + 1
            time.sleep(wait)


def seconds_to_wait(
    method: str, error: urllib.error.HTTPError, problem: dict[str, Any], repeats: int
) -> float:
    """Return the seconds until a request may be sent again, or infinity if it must not be."""
    is_own = problem.get("code") in {"rate_limited", "service_unavailable"}
    if is_own and error.code in {429, 503}:
        # The service did not process the request, so any method may be repeated.
        wait = error.headers.get("Retry-After", "")
        return int(wait) if wait.isdecimal() else math.inf
    # A proxy does not know whether the request was processed.
    may_repeat = error.code in {502, 504} and method in IDEMPOTENT and repeats < REPEATS
    return 2**repeats / 2 if may_repeat else math.inf


def session_of(pair: Pair | None) -> str | None:
    """Return the identifier of the session that a pair belongs to."""
    if pair is None:
        return None
    payload = pair["access_token"].split(".")[1]
    session: str = json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"]
    return session


def parse(status: int, body: bytes) -> Any:
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        raise ApiError(status, {"detail": "The response is not JSON."}) from error


def problem_in(body: bytes) -> dict[str, Any]:
    """Return the problem document, or {} for a proxy's error page."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}
