"""A client on one kept-alive connection, which survives what breaks it."""

import http.client
import json
import ssl
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from conftest import API, PASSWORD
from tests.rig.gunicorn import LIFTED

TRUSTING = ssl._create_unverified_context()  # noqa: S323 - of a certificate that is our own
LIFTED |= {"AUTH_READ_LIMIT": "1000000/m", "SESSION_LIMIT": "0", "REFRESH_GRACE_SECONDS": "0"}


@dataclass
class Answer:
    """What came back; the status is 0 where nothing did."""

    status: int
    seconds: float
    headers: Any = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_unavailable(self) -> bool:
        """Tell whether this is the 503 that the contract describes."""
        return (
            self.status == 503
            and self.headers["Content-Type"] == "application/problem+json"
            and int(self.headers["Retry-After"]) >= 1
            and self.json["code"] == "service_unavailable"
        )


class Client:
    """One client on one kept-alive connection, opened again where it was closed."""

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

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a body as JSON."""
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        return self.send(method, path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self.access:
            headers.setdefault("Authorization", f"Bearer {self.access}")
        started = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return Answer(0, time.monotonic() - started)
        return Answer(response.status, time.monotonic() - started, response.headers, content)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)

    def sign_in(self, username: str = "") -> "Client":
        """Log in as this user, or as a new one."""
        if not username:
            username = f"user-{uuid.uuid4().hex[:12]}"
            user = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
            assert self.post(f"{API}/users", user).status == 201
        self.take(self.post(f"{API}/auth/login", {"identity": username, "password": PASSWORD}))
        self.username = username
        return self

    def refresh(self) -> Answer:
        answer = self.ask(
            "POST", f"{API}/auth/refresh", {"refresh_token": self.refresh_token}, Authorization=""
        )
        if answer.status == 200:
            self.take(answer)
        return answer

    def take(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        self.access, self.refresh_token = answer.json["access_token"], answer.json["refresh_token"]
