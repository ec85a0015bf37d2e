"""The service in gunicorn, over a socket, with the test database."""

import contextlib
import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from django.conf import settings

from conftest import API, PASSWORD
from ops.server import peek
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT

MEBIBYTE = 1024 * 1024
PROBES = ["/health", "/health/live", "/health/ready", f"{API}/health/live"]
LAST_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start gunicorn with DEBUG and stop it with SIGTERM."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(log, AUTH_RATE_LIMIT="1000/m", LOG_FORMAT="json") as server:
        yield server
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert lines
    assert all({"time", "level", "message", "request_id"} <= set(line) for line in lines)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert not [line for line in lines if "method=HEAD" in line["message"]]  # a warning of gunicorn


def assert_is_problem(body: bytes, code: str) -> None:
    assert json.loads(body)["code"] == code


@pytest.mark.django_db(transaction=True)
def test_the_life_of_a_session(server: Server) -> None:
    json_type = {"Content-Type": "application/json"}
    user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
    response, _ = server.request("POST", f"{API}/users", json.dumps(user), **json_type)
    assert response.status == 201
    assert response.headers["Content-Length"]

    login = json.dumps({"identity": "alice", "password": PASSWORD})
    response, body = server.request("POST", f"{API}/auth/login/", login, **json_type)
    bearer = {"Authorization": f"bearer {json.loads(body)['access_token']}"}
    assert response.status == 200

    assert server.request("GET", f"{API}/users/me", **bearer)[0].status == 200
    assert server.request("POST", f"{API}/auth/logout", **bearer)[0].status == 204
    assert server.request("GET", f"{API}/users/me", **bearer)[0].status == 401


class TestBodies:
    @pytest.mark.django_db(transaction=True)
    def test_a_chunked_body_is_read_like_any_other(self, server: Server) -> None:
        parts = iter([b'{"identity": "nobody", ', b'"password": "x"}'])

        response, body = server.request(
            "POST", f"{API}/auth/login", parts, **{"Content-Type": "application/json"}
        )

        assert response.status == 401
        assert_is_problem(body, "invalid_credentials")

    @pytest.mark.parametrize("path", [f"{API}/auth/login", f"{API}/users/me", "/nothing"])
    def test_a_body_that_is_too_long_gets_a_complete_response(
        self, server: Server, path: str
    ) -> None:
        for body in (b"x" * (MEBIBYTE + 1), b"x" * 8 * MEBIBYTE, iter([b"x" * MEBIBYTE] * 3)):
            response, content = server.request("POST", path, body, Connection="close")

            assert response.status == 413
            assert_is_problem(content, "payload_too_large")

    def test_an_error_response_before_the_body_is_read_arrives(self, server: Server) -> None:
        body = b"x" * (MEBIBYTE - 1)

        response, content = server.request("POST", f"{API}/articles", body, Connection="close")

        assert response.status == 401
        assert_is_problem(content, "not_authenticated")

    def test_one_connection_serves_many(self, server: Server) -> None:
        with contextlib.closing(server.connect()) as client:
            for method, path, status in (
                ("POST", f"{API}/articles", 401),
                ("HEAD", "/health", 200),
                ("OPTIONS", f"{API}/auth/login", 200),
                ("GET", "/health", 200),
            ):
                client.request(method, path, b"{}" if method == "POST" else None)
                response = client.getresponse()
                response.read()
                assert response.status == status


class TestConnections:
    @pytest.fixture
    def one_thread(self, django_db_setup: None, tmp_path: Path) -> Iterator[Server]:
        with serve(tmp_path / "log", WEB_THREADS="1") as server:
            yield server

    @pytest.mark.parametrize("silence", [0, 0.001, 0.002, 0.2])  # seconds
    def test_a_stopping_worker_serves_an_idle_connection(
        self, one_thread: Server, silence: float
    ) -> None:
        with socket.create_connection(("127.0.0.1", one_thread.port), timeout=15) as client:
            time.sleep(silence)
            one_thread.process.terminate()
            time.sleep(0.3)
            client.sendall(LAST_REQUEST)
            content = client.recv(65536)

        assert content.startswith(b"HTTP/1.1 200")

    def test_trailing_data_does_not_truncate_the_response(self, one_thread: Server) -> None:
        for _ in range(5):
            content = one_thread.send_raw(LAST_REQUEST + b"x" * 10_000)
            assert content.startswith(b"HTTP/1.1 200")
            assert json.loads(content.split(b"\r\n\r\n")[1])["status"] == "ok"


class TestProbes:
    @pytest.fixture
    def busy(self, django_db_setup: None, tmp_path: Path) -> Iterator[Server]:
        """Take the only thread by requests that do not end."""
        with serve(tmp_path / "log", WEB_THREADS="1") as server, contextlib.ExitStack() as stack:
            for start in (b"GET /health/live HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n"):
                client = socket.create_connection(("127.0.0.1", server.port))
                stack.enter_context(client).sendall(start)
            time.sleep(0.2)
            yield server

    @pytest.mark.parametrize("path", PROBES)
    def test_a_probe_does_not_wait_for_a_thread(self, busy: Server, path: str) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", busy.port), timeout=3) as client:
            time.sleep(0.2)  # The connection is accepted before the request arrives.
            client.sendall(head.encode())
            content = client.recv(65536)

        assert content.startswith(b"HTTP/1.1 200")

    def test_a_probe_with_a_body_blocks_no_other(self, busy: Server) -> None:
        head = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
        with contextlib.ExitStack() as stack:
            for field in (b"Content-Length: 9", b"transfer-encoding: chunked"):
                slow = socket.create_connection(("127.0.0.1", busy.port))
                stack.enter_context(slow).sendall(head + field + b"\r\n\r\n")
            time.sleep(0.2)

            with socket.create_connection(("127.0.0.1", busy.port), timeout=3) as client:
                client.sendall(head + b"Connection: close\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200")

    def test_a_reset_connection_is_no_request(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
        ):
            connection, _ = listener.accept()
            assert peek(connection) is None
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

            assert peek(connection) == b""
            connection.close()


class TestRequests:
    def test_two_authorization_headers(self, server: Server) -> None:
        lines = ["GET /api/v1/users/me HTTP/1.1", "Host: localhost", "Connection: close"]
        for second in ("Bearer x", "Basic x"):
            headers = [*lines, "Authorization: Bearer x", f"Authorization: {second}", "", ""]

            content = server.send_raw("\r\n".join(headers).encode())

            assert content.startswith(b"HTTP/1.1 401")
            assert_is_problem(content.partition(b"\r\n\r\n")[2], "token_not_valid")

    def test_head_has_no_body(self, server: Server) -> None:
        for path in ("/health", "/api/v1/schema", "/nothing"):
            content = server.send_raw(
                f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )

            headers, _, body = content.partition(b"\r\n\r\n")
            assert b"Content-Length: " in headers
            assert body == b""

    def test_proxy_headers_are_ignored_without_a_trusted_proxy(self, server: Server) -> None:
        response, _ = server.request(
            "GET", "/health", **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}
        )

        assert "Strict-Transport-Security" not in response.headers

    @pytest.mark.parametrize(
        "path", ["/%00", "/api/v1/articles/%ff", "/api/v1/articles?search=%ff", "/a%0d%0ab"]
    )
    def test_odd_paths(self, server: Server, path: str) -> None:
        response, _ = server.request("GET", path)

        assert response.status in {400, 404}
        assert response.headers["Content-Type"] == "application/problem+json"


def test_no_file_is_left_outside_the_project(server: Server) -> None:
    assert not (Path.home() / ".gunicorn").exists()
    assert settings.BASE_DIR == ROOT


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.django_db(transaction=True)
def test_the_curl_lines_of_the_readme_work_as_printed(server: Server) -> None:
    section = (ROOT / "README.md").read_text().partition("## Call the API")[2].partition("\n## ")[0]
    script = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).replace(
        "localhost:3000", f"127.0.0.1:{server.port}"
    )

    output = subprocess.run(
        ["/bin/sh", "-ec", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    responses = []
    while output.strip():
        content, end = json.JSONDecoder().raw_decode(output := output.strip())
        responses.append(content)
        output = output[end:]
    user, me, sessions, *example, pair, replayed, ended = responses
    assert user == me
    assert [session["device"] for session in sessions["results"]] == ["curl"]
    # A row, and a list of it, unless the example has been removed.
    assert [page["results"] for page in example[1:]] == [[row] for row in example[:1]]
    assert pair["token_type"] == "Bearer"
    assert replayed["code"] == ended["code"] == "token_not_valid"
