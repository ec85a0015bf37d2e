"""The clients of docs/clients in Python and Node, and a proxy with scripted responses."""

import base64
import http.server
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.test import RequestFactory

from tests.rig.machine import ROOT

CLIENTS = ROOT / "docs/clients"

specification = importlib.util.spec_from_file_location("latchkey", CLIENTS / "latchkey.py")
latchkey = importlib.util.module_from_spec(specification)
specification.loader.exec_module(latchkey)

PROBLEM = "application/problem+json"
PAGE = "<html><h1>Bad Gateway</h1></html>"


@dataclass
class Response:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0


@dataclass
class Request:
    method: str
    path: str
    content: bytes
    content_type: str
    token: str | None

    @property
    def body(self) -> Any:
        return json.loads(self.content or b"null")

    @property
    def form(self) -> tuple[Any, Any]:
        """Return the fields and the files of a multipart body, as Django reads them."""
        request = RequestFactory().generic("POST", "/", self.content, self.content_type)
        return request.POST.dict(), request.FILES


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
        content_type = self.headers.get("Content-Type", "")
        self.server.requests.append(Request(self.command, self.path, body, content_type, token))
        response = self.server.responses.pop(0)
        time.sleep(response.delay)
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

# Runs a client whose store returns these pairs in order, and then the last one.
Run = Callable[..., Any]

NODE = """
import { createInterface } from "node:readline";
import { Latchkey } from "./latchkey.mjs";
const AsyncFunction = (async () => {}).constructor;
for await (const line of createInterface({ input: process.stdin })) {
  const [base, stored, code] = JSON.parse(line);
  let pairs = stored;
  const store = {
    get: async () => (pairs.length > 1 ? pairs.shift() : pairs[0]),
    set: async (pair) => { pairs = [pair]; },
    clear: async () => { pairs = [null]; },
  };
  const waits = [];
  const api = new Latchkey(base, { store, onWait: (seconds) => waits.push(seconds) });
  let outcome;
  try {
    outcome = { result: await new AsyncFunction("api", code)(api) };
  } catch (error) {
    const { status, code = null, retryAfter } = error;
    outcome = { name: error.constructor.name, status, code, retry_after: retryAfter };
  }
  console.log(JSON.stringify({ ...outcome, waits, stored: pairs.at(-1) }));
}
"""


def call_python(base: str, stored: Any, method: str, args: tuple[Any, ...]) -> Any:
    pairs, waits = list(stored), []

    class Client(latchkey.Latchkey):  # type: ignore[name-defined]  # loaded by path
        @property
        def pair(self) -> Any:
            return pairs.pop(0) if len(pairs) > 1 else pairs[0]

        @pair.setter
        def pair(self, value: Any) -> None:
            pairs[:] = [value]

    api = Client(base, on_wait=waits.append)
    pairs[:] = stored
    try:
        result = getattr(api, method)(*args)
        outcome = {"result": list(result) if isinstance(result, Iterator) else result}
    except latchkey.ApiError as error:
        outcome = {"name": "ApiError", "status": error.status, "code": error.code}
        outcome |= {} if error.retry_after is None else {"retry_after": error.retry_after}
    return {**outcome, "waits": waits, "stored": pairs[-1]}


def call_node(node: Run, base: str, stored: Any, method: str, args: tuple[Any, ...]) -> Any:
    words = method.split("_")
    name = words[0] + "".join(word.title() for word in words[1:])
    call = f"const result = await api.{name}(...{json.dumps(args)});"
    collect = "const rows = []; for await (const row of result) rows.push(row); return rows;"
    code = f"{call} if (!result?.next) return result ?? null; {collect}"
    return node(base, stored, code)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
