"""
A Latchkey client in one file. It stores the tokens, refreshes expired ones and waits for limits.

It needs only the standard library and is thread-safe:

    api = Latchkey("https://api.example.com/api/v1", on_wait=print)
    api.login("alice", "a sunny day in May")
    me = api.request("GET", "/users/me")
    for session in api.paginate("/auth/sessions?limit=100"): ...
"""

import base64
import hmac
import json
import math
import mimetypes
import struct
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

MAXIMUM_WAIT = 60  # seconds that one call waits for rate limits and a busy service, in total
TIMEOUT = 30  # seconds without a byte of the response
ROTATION_TIMEOUT = 8  # below the service's grace, in which the next refresh still succeeds
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
REPEATS = 3  # of an idempotent request after a 502 or 504

Json = dict[str, Any]
Pair = dict[str, Any]
Files = Mapping[str, tuple[str, bytes]]
T = TypeVar("T")


class ApiError(Exception):
    """
    An error response. `problem` is the problem document, or empty. Clients act on `code`.

    `retry_after` is the number of seconds after which the service, which did nothing, may be
    asked again.
    """

    def __init__(
        self,
        status: int,
        problem: Json,
        *,
        retry_after: int | None = None,
        is_repeatable: bool = False,
    ) -> None:
        super().__init__(problem.get("detail", f"status {status}"))
        self.status = status
        self.code = problem.get("code")
        self.problem = problem
        self.retry_after = retry_after
        self.is_repeatable = is_repeatable


class Latchkey:
    """
    A client of one user, whose threads share the tokens.

    `on_wait(seconds)` is called when a wait begins, and `on_wait(0)` when it ends. An exception
    that it raises cancels the call.
    """

    def __init__(
        self,
        base: str,
        *,
        on_wait: Callable[[float], object] = lambda seconds: None,
        maximum_wait: float = MAXIMUM_WAIT,
    ) -> None:
        self.base = base
        self.on_wait = on_wait
        self.maximum_wait = maximum_wait
        self.pair: Pair | None = None
        self.lock = threading.Lock()

    def register(self, user: Json) -> Json:
        """Create an account and return its user, who is not signed in."""
        return self.anonymously("/users", user)

    def login(self, identity: str, password: str) -> Json:
        """
        Sign in and return the user.

        A user with a second factor gets an ApiError with the code `mfa_required`; its `problem` has
        the `mfa_token` for `complete_login`.
        """
        body = {"identity": identity, "password": password}
        return self.sign_in(self.anonymously("/auth/login", body))

    def complete_login(self, mfa_token: str, **proof: str) -> Json:
        """Prove a second factor by `code`, of an authenticator app or for recovery."""
        return self.sign_in(self.anonymously("/auth/mfa", {"mfa_token": mfa_token, **proof}))

    def sign_in(self, pair: Pair) -> Json:
        user: Json = pair.pop("user")
        with self.lock:
            self.pair = pair
        return user

    def logout(self) -> None:
        """End this session. The tokens are deleted, whatever the response is."""
        pair = self.pair
        try:
            self.request("POST", "/auth/logout")
        finally:
            self.forget(pair)

    def logout_all(self) -> int:
        """End all sessions of the user and return their number."""
        pair = self.pair
        revoked: int = self.request("POST", "/auth/logout-all")["revoked"]
        self.forget(pair)
        return revoked

    def change_password(self, current_password: str, new_password: str) -> None:
        """Change the password, which ends the user's other sessions."""
        body = {"current_password": current_password, "new_password": new_password}
        self.request("POST", "/auth/password", body)

    def forgot_password(self, identity: str) -> None:
        """Send an e-mail with a link to set a new password, if the identity has an account."""
        self.anonymously("/auth/password/forgot", {"identity": identity})

    def reset_password(self, token: str, new_password: str) -> None:
        """Set a new password with the token of an e-mail or of `password_change_required`."""
        body = {"token": token, "new_password": new_password}
        self.anonymously("/auth/password/reset", body)

    def begin_registration(self, email: str) -> None:
        """Send an e-mail with the `registration_token`, where the service requires one."""
        self.anonymously("/auth/registration", {"email": email})

    def send_verification(self) -> None:
        """Send an e-mail with a link that verifies the user's address."""
        self.request("POST", "/users/me/email/verification")

    def change_email(self, email: str) -> None:
        """Send an e-mail to a new address, which `verify_email` sets; reauthenticate before."""
        self.request("POST", "/users/me/email", {"email": email})

    def verify_email(self, token: str) -> Json:
        """Verify an address with the token of an e-mail and return the user."""
        user: Json = self.request("POST", "/users/me/email/verify", {"token": token})
        return user

    def security(self) -> Json:
        """Return what protects the account: its verified address, factors and tokens."""
        security: Json = self.request("GET", "/users/me/security")
        return security

    def begin_totp(self) -> Json:
        """Return the `secret` and the `uri` of an authenticator app, which `confirm_totp` adds."""
        begun: Json = self.request("POST", "/users/me/totp")
        return begun

    def confirm_totp(self, code: str) -> list[str] | None:
        """Add the authenticator app; return recovery codes if it is the first second factor."""
        confirmed = self.request("POST", "/users/me/totp/confirm", {"code": code})
        codes: list[str] | None = confirmed["recovery_codes"]
        return codes

    def remove_totp(self) -> None:
        """Remove the authenticator app, and with the last factor the recovery codes."""
        self.request("DELETE", "/users/me/totp")

    def replace_recovery_codes(self) -> list[str]:
        """Return new recovery codes; the old ones become invalid."""
        codes: list[str] = self.request("POST", "/users/me/recovery-codes")["recovery_codes"]
        return codes

    def reauthenticate(self, **proof: str) -> None:
        """
        Prove `password` again after a 403 `reauthentication_required`; then repeat that request.

        A user with a second factor also proves `code`.

        The session gets new tokens, as by a refresh.
        """
        data, headers = encode(proof)

        def work(pair: Pair | None) -> None:
            with self.lock:
                fresh = self.send(
                    "POST", "/auth/reauthenticate", data, headers, pair, ROTATION_TIMEOUT
                )
                if session_of(self.pair) == session_of(fresh):
                    self.pair = fresh

        self.authorized(work)

    def sessions(self) -> Iterator[Json]:
        """Iterate over the user's active sessions."""
        return self.paginate("/auth/sessions")

    def end_session(self, session: str) -> None:
        self.request("DELETE", f"/auth/sessions/{session}")

    def events(self) -> Iterator[Json]:
        """Iterate over the events of the account, newest first."""
        return self.paginate("/auth/events")

    def paginate(self, path: str) -> Iterator[Json]:
        """Iterate over the rows of all pages of a list."""
        following: str | None = path
        while following:
            page = self.request("GET", following)
            yield from page["results"]
            # The query alone, so that no response can direct the token to another host.
            query = (page["next"] or "").partition("?")[2]
            following = f"{path.partition('?')[0]}?{query}" if query else None

    def request(
        self, method: str, path: str, body: Json | None = None, *, files: Files | None = None
    ) -> Any:
        """
        Send a request as the signed-in user. If the token has expired, refresh it and repeat.

        The body is JSON; with `files` (`{"photo": ("lamp.png", content)}`) it is multipart.
        """
        data, headers = encode(body, files)
        return self.authorized(lambda pair: self.send(method, path, data, headers, pair))

    def authorized(self, work: Callable[[Pair | None], T]) -> T:
        pair = self.pair

        def attempt() -> T:
            nonlocal pair
            try:
                return work(pair)
            except ApiError as error:
                if error.status != 401 or pair is None:
                    raise
            pair = self.refresh(pair)
            return work(pair)

        return self.patiently(attempt)

    def refresh(self, old: Pair) -> Pair:
        """Return a newer pair of the same session. Concurrent threads share one refresh."""
        with self.lock:
            # Another thread may have signed in as another user, who must not send this request.
            if self.pair is None or session_of(self.pair) != session_of(old):
                raise ApiError(401, {"code": "token_not_valid", "detail": "Signed out."})
            if self.pair["access_token"] == old["access_token"]:
                spent = encode({"refresh_token": self.pair["refresh_token"]})
                try:
                    self.pair = self.send("POST", "/auth/refresh", *spent, timeout=ROTATION_TIMEOUT)
                except ApiError as error:
                    # The session has ended. After any other error the token may still be valid.
                    if error.status == 401:
                        self.pair = None
                    raise
            return self.pair

    def forget(self, pair: Pair | None) -> None:
        """Delete the pair, unless another user has signed in meanwhile."""
        with self.lock:
            if session_of(self.pair) == session_of(pair):
                self.pair = None

    def anonymously(self, path: str, body: Json) -> Json:
        return self.patiently(lambda: self.send("POST", path, *encode(body)))

    def patiently(self, work: Callable[[], T]) -> T:
        """Repeat the work while the service asks to wait, or where a proxy lost a request."""
        remaining, repeats = self.maximum_wait, 0
        while True:
            try:
                return work()
            except ApiError as error:
                may_repeat = error.is_repeatable and repeats < REPEATS
                backoff = 2**repeats / 2 if may_repeat else math.inf
                seconds = backoff if error.retry_after is None else error.retry_after
                if seconds > remaining:
                    raise
            remaining, repeats = remaining - seconds, repeats + 1
            self.on_wait(seconds)
            time.sleep(seconds)
            self.on_wait(0)

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        headers: dict[str, str],
        pair: Pair | None = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        if pair:
            headers = headers | {"Authorization": f"Bearer {pair['access_token']}"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return parse(response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise error_of(method, error, problem_in(error.read())) from error


def totp(secret: str, step: int = 0) -> str:
    """
    Return the present code of an authenticator app's secret (RFC 6238), for a program.

    `step` selects a later code or an earlier one. A code works once.
    """
    counter = struct.pack(">Q", int(time.time()) // 30 + step)
    digest = hmac.digest(base64.b32decode(secret), counter, "sha1")
    [number] = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"


def error_of(method: str, response: urllib.error.HTTPError, problem: Json) -> ApiError:
    """Return the error of a response, which states whether the request may be sent again."""
    is_own = problem.get("code") in {"rate_limited", "service_unavailable"}
    seconds = response.headers.get("Retry-After", "")
    # The service did not process the request, so any method may be repeated.
    is_undone = is_own and response.code in {429, 503} and seconds.isdecimal()
    # A proxy does not know whether the request was processed.
    return ApiError(
        response.code,
        problem,
        retry_after=int(seconds[:9]) if is_undone else None,
        is_repeatable=response.code in {502, 504} and method in IDEMPOTENT,
    )


def encode(body: Json | None, files: Files | None = None) -> tuple[bytes | None, dict[str, str]]:
    """Return the bytes of a body and its headers."""
    if files is None:
        data = None if body is None else json.dumps(body).encode()
        return data, {} if data is None else {"Content-Type": "application/json"}
    boundary = uuid.uuid4().hex
    parts = [part(name, str(value).encode()) for name, value in (body or {}).items()]
    parts += [part(name, content, filename) for name, (filename, content) in files.items()]
    lines = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), one) for one in parts)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return b"%s--%s--\r\n" % (lines, boundary.encode()), headers


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    """Return a part of a multipart body (RFC 7578), with names escaped as browsers do."""
    header = f'Content-Disposition: form-data; name="{escape(name)}"'
    if filename is not None:
        kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        header += f'; filename="{escape(filename)}"\r\nContent-Type: {kind}'
    return f"{header}\r\n\r\n".encode() + content


def escape(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


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


def problem_in(body: bytes) -> Json:
    """Return the problem document, or {} for a proxy's error page."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}
