"""Traces and errors as received by a collector and a Sentry on loopback."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from conftest import API, PASSWORD
from tests.rig.gunicorn import database_url, serve
from tests.rig.machine import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]


class Receiver(ThreadingHTTPServer):
    """Accept every POST."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Post)
        self.received: list[tuple[str, bytes]] = []
        self.host = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Post(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
        receiver.shutdown()


def test_a_trace_shows_the_request_and_its_queries(
    receiver: Receiver, db: None, tmp_path: Path
) -> None:
    user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
    endpoint = f"http://{receiver.host}"
    with serve(tmp_path / "log", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as server:
        assert server.post("/users", user, **{"X-Request-ID": "trace-me"})[0] == 201

    spans = [
        span
        for path, body in receiver.received
        if path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    [request] = [span for span in spans if span.name == f"POST {API[1:]}/users"]
    attributes = {item.key: item.value.string_value for item in request.attributes}
    assert attributes["request.id"] == "trace-me"
    queries = [span for span in spans if span.parent_span_id == request.span_id]
    assert {span.name for span in queries} >= {"SELECT", "INSERT"}
    assert not any(PASSWORD.encode() in body for _, body in receiver.received)


def test_an_error_is_sent_without_its_data(receiver: Receiver, db: None, tmp_path: Path) -> None:
    dsn = f"http://key@{receiver.host}/1"
    login = {"identity": "alice", "password": PASSWORD}
    # A database without tables causes an unexpected error while a password is in memory.
    variables = {"SENTRY_DSN": dsn, "DATABASE_URL": database_url("postgres")}
    with serve(tmp_path / "log", **variables) as server:
        bearer = "Bearer not.a.token"
        assert server.post("/auth/login", login, Authorization=bearer)[0] == 500

    [event] = [
        json.loads(line)
        for _, body in receiver.received
        for line in body.splitlines()
        if b'"exception"' in line
    ]
    assert event["exception"]["values"][-1]["type"] == "ProgrammingError"
    assert event["release"].startswith("latchkey@")
    text = json.dumps(event)
    assert PASSWORD not in text
    assert bearer not in text
    assert "alice" not in text


def test_nothing_is_imported_without_a_variable() -> None:
    script = (
        "import config.wsgi, sys;"
        "sys.exit(any(n.split('.')[0] in {'opentelemetry', 'sentry_sdk'} for n in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
