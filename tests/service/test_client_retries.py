"""The clients of docs/clients: responses of proxies, and concurrent sign-ins of other users."""

import base64
import http.server
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.service.test_clients import CLIENTS, latchkey

PROBLEM = "application/problem+json"
PAGE = "<html><h1>Bad Gateway</h1></html>"


@dataclass
class Response:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    body: Any
    token: str | None


class Script(http.server.ThreadingHTTPServer):
    """A proxy that returns these responses in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.responses: list[Response] = []
        self.requests: list[Request] = []
        self.base = f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> list[tuple[str, str, str | None]]:
        return [(request.method, request.path, request.token) for request in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(self.command, self.path, json.loads(body or b"null"), token)
        self.server.requests.append(request)
        response = self.server.responses.pop(0)
        text = response.body
        if not isinstance(text, str):
            text = "" if text is None else json.dumps(text)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815 - http.server looks for these

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    with Script() as script:
        threading.Thread(target=script.serve_forever, args=(0.01,), daemon=True).start()
        yield script
        script.shutdown()


def own(status: int, code: str, **headers: str) -> Response:
    """Return a problem document of the service."""
    body = {"type": "about:blank", "status": status, "code": code, "detail": "why"}
    return Response(status, body, {"Content-Type": PROBLEM, **headers})


def pair(session: str, number: int) -> dict[str, str]:
    payload = json.dumps({"sid": session, "jti": number, "text": "ÿ?~"}, ensure_ascii=False)
    encoded = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
    return {"access_token": f"e30.{encoded}.s{number}", "refresh_token": f"{session}-{number}"}


ALICE, LATER, BOB = pair("alice", 1), pair("alice", 2), pair("bob", 1)
EXPIRED = own(401, "token_not_valid")
OK = Response(200, {"ok": True})

# Calls a method of a client whose store returns these pairs in order, and then the last one.
Run = Callable[..., Any]

NODE = """
import { createInterface } from "node:readline";
import { Latchkey } from "./latchkey.mjs";
for await (const line of createInterface({ input: process.stdin })) {
  const [base, stored, method, args] = JSON.parse(line);
  let pairs = stored;
  const store = {
    get: async () => (pairs.length > 1 ? pairs.shift() : pairs[0]),
    set: async (pair) => { pairs = [pair]; },
  };
  let outcome;
  try {
    outcome = { result: await new Latchkey(base, { store })[method](...args) };
  } catch (error) {
    outcome = { name: error.constructor.name, status: error.status, code: error.code ?? null };
  }
  console.log(JSON.stringify({ ...outcome, stored: pairs.at(-1) }));
}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("node")
    shutil.copy(CLIENTS / "latchkey.js", directory / "latchkey.mjs")
    (directory / "run.mjs").write_text(NODE)
    with subprocess.Popen(
        ["node", "run.mjs"],
        cwd=directory,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:

        def run(*call: Any) -> Any:
            process.stdin.write(f"{json.dumps(call)}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def python(base: str, stored: list[Any], method: str, args: tuple[Any, ...]) -> Any:
    pairs = list(stored)

    class Client(latchkey.Latchkey):  # type: ignore[name-defined]  # loaded by path
        @property
        def pair(self) -> Any:
            return pairs.pop(0) if len(pairs) > 1 else pairs[0]

        @pair.setter
        def pair(self, value: Any) -> None:
            pairs[:] = [value]

    api = Client.__new__(Client)
    api.base, api.lock = base, threading.Lock()
    try:
        outcome = {"result": getattr(api, method)(*args)}
    except latchkey.ApiError as error:
        outcome = {"name": "ApiError", "status": error.status, "code": error.code}
    return {**outcome, "stored": pairs[-1]}


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture(params=["python", pytest.param("node", marks=needs_node)])
def run(request: pytest.FixtureRequest, script: Script) -> Run:
    client = python if request.param == "python" else request.getfixturevalue("node")

    def call(method: str, *args: Any, stored: tuple[Any, ...] = (ALICE,)) -> Any:
        return client(script.base, stored, method, args)

    return call


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "service_unavailable")])
def test_the_services_own_429_and_503_are_waited_out_for_any_method(
    run: Run, script: Script, method: str, status: int, code: str
) -> None:
    script.responses = [own(status, code, **{"Retry-After": "1"}), OK]
    started = time.monotonic()

    assert run("request", method, "/x", {"n": 1})["result"] == {"ok": True}

    assert time.monotonic() - started >= 1
    assert [request.body for request in script.requests] == [{"n": 1}] * 2


NOT_REPEATED = {
    "a proxy's 503": Response(503, PAGE, {"Retry-After": "1", "Content-Type": "text/html"}),
    "a proxy's 503 in JSON": Response(503, {"message": "no"}, {"Retry-After": "1"}),
    "a proxy's 429": Response(429, PAGE, {"Retry-After": "1"}),
    "a 503 without Retry-After": own(503, "service_unavailable"),
    "a date": own(503, "service_unavailable", **{"Retry-After": "Wed, 25 Nov 2026 10:00:00 GMT"}),
    "too long a wait": own(429, "rate_limited", **{"Retry-After": "61"}),
    "another error with Retry-After": own(500, "server_error", **{"Retry-After": "1"}),
    "a code at another status": own(502, "service_unavailable", **{"Retry-After": "1"}),
    "a 502": Response(502, PAGE),
    "a 504": Response(504, PAGE, {"Retry-After": "1"}),
    "a 502 of the shipped nginx": own(502, "server_error"),
}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("response", NOT_REPEATED.values(), ids=NOT_REPEATED)
def test_what_may_have_been_processed_is_sent_once(
    run: Run, script: Script, response: Response, method: str
) -> None:
    script.responses = [response]

    outcome = run("request", method, "/x", {})

    assert (outcome["name"], outcome["status"]) == ("ApiError", response.status)
    assert len(script.requests) == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("status", [502, 504])
def test_an_idempotent_request_that_a_proxy_lost_is_repeated(
    run: Run, script: Script, method: str, status: int
) -> None:
    script.responses = [Response(status, PAGE), OK]

    assert run("request", method, "/x")["result"] == {"ok": True}


def test_it_is_repeated_three_times_at_most(run: Run, script: Script) -> None:
    script.responses = [Response(502, PAGE)] * 4

    assert run("request", "GET", "/x")["status"] == 502
    assert len(script.requests) == 4


@pytest.mark.parametrize("status", [200, 400, 404, 413, 500, 502])
@pytest.mark.parametrize("body", [PAGE, '{"half": ', "[1]", '"text"', "7", "null", ""])
def test_a_body_of_another_type_is_an_api_error_with_its_status(
    run: Run, script: Script, status: int, body: str
) -> None:
    script.responses = [Response(status, body)]

    outcome = run("request", "POST", "/x", {})

    if status == 200 and body not in {PAGE, '{"half": '}:
        assert outcome["result"] == json.loads(body or "null")
    else:
        assert (outcome["name"], outcome["status"]) == ("ApiError", status)
        assert outcome["code"] is None


def test_an_expired_token_is_refreshed_and_the_request_sent_again(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, Response(200, LATER), OK]

    outcome = run("request", "POST", "/x", {"n": 1})

    assert outcome == {"result": {"ok": True}, "stored": LATER}
    assert script.sent == [
        ("POST", "/x", ALICE["access_token"]),
        ("POST", "/auth/refresh", None),
        ("POST", "/x", LATER["access_token"]),
    ]
    assert script.requests[1].body == {"refresh_token": ALICE["refresh_token"]}


def test_a_pair_that_another_tab_refreshed_is_used(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, OK]

    outcome = run("request", "POST", "/x", {}, stored=(ALICE, LATER))

    assert outcome == {"result": {"ok": True}, "stored": LATER}
    assert [token for _, _, token in script.sent] == [ALICE["access_token"], LATER["access_token"]]


@pytest.mark.parametrize("now", [BOB, None])
def test_a_request_is_not_repeated_as_another_user(run: Run, script: Script, now: Any) -> None:
    """Bob signs in, in another tab, during a request of Alice."""
    script.responses = [EXPIRED]

    outcome = run("request", "POST", "/x", {}, stored=(ALICE, now))

    assert (outcome["name"], outcome["status"]) == ("ApiError", 401)
    assert outcome["stored"] == now
    assert script.sent == [("POST", "/x", ALICE["access_token"])]


@needs_node
@pytest.mark.parametrize("refreshed", [Response(200, LATER), EXPIRED])
def test_a_refresh_does_not_replace_the_pair_of_another_user(
    node: Run, script: Script, refreshed: Response
) -> None:
    """Bob signs in, in another tab, while Alice's token is refreshed; threads share a lock."""
    script.responses = [EXPIRED, refreshed, OK]

    outcome = node(script.base, [ALICE, ALICE, BOB], "request", ["POST", "/x", {}])

    assert outcome["stored"] == BOB


def test_a_sign_out_does_not_sign_out_another_user(run: Run, script: Script) -> None:
    script.responses = [Response(204)]

    # The client reads the pair twice before the request and once after it.
    assert run("logout", stored=(ALICE, ALICE, BOB))["stored"] == BOB


def test_a_sign_out_deletes_the_pair_after_any_response(run: Run, script: Script) -> None:
    script.responses = [Response(500, PAGE)]

    assert run("logout", stored=(ALICE,))["stored"] is None


def test_an_ended_session_is_deleted(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, EXPIRED]

    outcome = run("request", "GET", "/x")

    assert (outcome["status"], outcome["code"], outcome["stored"]) == (401, "token_not_valid", None)
