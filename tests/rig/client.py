"""An HTTP client of the service, for several devices and addresses."""

import http.client
import json
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from conftest import API, PASSWORD
from tests.rig.machine import wait_until

TRUSTING = ssl._create_unverified_context()  # noqa: S323 - a self-signed certificate


@dataclass
class Response:
    """A response; the status is 0 if the connection failed."""

    status: int
    seconds: float
    headers: Any = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_unavailable(self) -> bool:
        """Return whether this is the 503 of the contract."""
        return (
            self.status == 503
            and self.headers["Content-Type"] == "application/problem+json"
            and int(self.headers["Retry-After"]) >= 1
            and self.json["code"] == "service_unavailable"
        )

    @property
    def is_unknown(self) -> bool:
        """Return whether this is the 504 of a write that may have been committed."""
        return (
            self.status == 504
            and self.headers["Content-Type"] == "application/problem+json"
            and "Retry-After" not in self.headers
        )


def seen(responses: Iterable[Response]) -> str:
    """Return the number of responses of each status, such as `200: 12, 503: 1`."""
    counts = Counter(response.status for response in responses)
    return ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))


def is_accepted(request: Callable[[], Response], *, seconds: float = 20) -> bool:
    """
    Return whether a token is accepted (200) or rejected (401).

    A 503 says neither, so the request is repeated. Any other response fails the test.
    """
    responses: list[Response] = []

    def is_decided() -> bool:
        responses.append(request())
        return not responses[-1].is_unavailable

    wait_until(is_decided, seconds=seconds)
    assert responses[-1].status in {200, 401}, f"{seen(responses)}; {responses[-1]}"
    return responses[-1].status == 200


class Client:
    """A client with one persistent connection, which is reopened after a close."""

    def __init__(self, port: int, *, tls: bool = False, address: str = "127.0.0.1") -> None:
        options: Any = {"timeout": 40, "source_address": (address, 0)}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, **options)
        if tls:
            options["context"] = TRUSTING
            self.connection = http.client.HTTPSConnection("127.0.0.1", port, **options)
        self.access = ""
        self.refresh_token = ""

    def __del__(self) -> None:
        self.connection.close()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """Send a request with a JSON body."""
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        return self.send(method, path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        if self.access:
            headers.setdefault("Authorization", f"Bearer {self.access}")
        started = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return Response(0, time.monotonic() - started)
        return Response(response.status, time.monotonic() - started, response.headers, content)

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def post(self, path: str, body: Any = None) -> Response:
        return self.request("POST", path, body)

    def sign_in(self, username: str = "") -> "Client":
        """Log in as this user, or register and log in as a new one."""
        if not username:
            username = f"user-{uuid.uuid4().hex[:12]}"
            user = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
            assert self.post(f"{API}/users", user).status == 201
        self.take(self.post(f"{API}/auth/login", {"identity": username, "password": PASSWORD}))
        self.username = username
        return self

    def is_signed_in(self) -> bool:
        """Return whether the access token or the refresh token is accepted."""
        # The service may have closed the idle connection.
        self.connection.close()
        return is_accepted(lambda: self.get(f"{API}/users/me")) or is_accepted(self.refresh)

    def refresh(self) -> Response:
        response = self.request(
            "POST", f"{API}/auth/refresh", {"refresh_token": self.refresh_token}, Authorization=""
        )
        if response.status == 200:
            self.take(response)
        return response

    def take(self, response: Response) -> None:
        assert response.status == 200, response
        self.access, self.refresh_token = (
            response.json["access_token"],
            response.json["refresh_token"],
        )
