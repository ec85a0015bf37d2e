"""
A client of Latchkey: keeps the tokens, refreshes them when they are over, waits when told to.

It needs nothing but Python, and may be shared by threads:

    api = Latchkey("https://api.example.com/api/v1")
    api.login("alice", "a sunny day in May")
    lamp = api.request("POST", "/product", {"title": "Lamp", "amount": 3})
"""

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE = 60  # seconds to wait for limits and busy moments, in all, before giving up


class ApiError(Exception):
    """A refusal: `problem` is the service's document, `code` is what to act on."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail", f"status {status}"))
        self.status = status
        self.code = problem.get("code")
        self.problem = problem


class Latchkey:
    def __init__(self, base: str) -> None:
        self.base = base
        self.pair: dict[str, Any] | None = None
        self.lock = threading.Lock()

    def login(self, identity: str, password: str) -> dict[str, Any]:
        answer = self.send("POST", "/auth/login", {"identity": identity, "password": password})
        user: dict[str, Any] = answer.pop("user")
        self.pair = answer
        return user

    def logout(self) -> None:
        try:
            self.request("POST", "/auth/logout")
        finally:
            self.pair = None

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as whoever is signed in, and once more with a fresh token where that one is over."""
        access = self.pair["access_token"] if self.pair else None
        try:
            return self.send(method, path, body, access)
        except ApiError as error:
            if error.status != 401 or not access:
                raise
        return self.send(method, path, body, self.refresh(access))

    def refresh(self, old: str) -> str:
        """Return a token newer than `old`; of all threads that ask at once, one refreshes."""
        with self.lock:
            if self.pair is None:
                raise ApiError(401, {"code": "token_not_valid", "detail": "Signed out."})
            if self.pair["access_token"] == old:
                spent = {"refresh_token": self.pair["refresh_token"]}
                try:
                    self.pair = self.send("POST", "/auth/refresh", spent)
                except ApiError as error:
                    # Over, or ended elsewhere. Anything else may pass: the token is kept.
                    if error.status == 401:
                        self.pair = None
                    raise
            return str(self.pair["access_token"])

    def send(self, method: str, path: str, body: Any = None, access: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        if access:
            headers["Authorization"] = f"Bearer {access}"
        patience = PATIENCE
        while True:
            request = urllib.request.Request(self.base + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                with error:
                    # 429 and 503 did nothing yet, so any method may be sent again, when told.
                    wait = int(error.headers.get("Retry-After") or 0)
                    if error.code not in {429, 503} or not 0 < wait <= patience:
                        raise ApiError(error.code, json.loads(error.read() or b"{}")) from error
            patience -= wait
            time.sleep(wait)
