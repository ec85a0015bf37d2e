"""The shipped nginx.conf in nginx: bounds, log, IPv6, HTTP/2, replaced instances."""

import contextlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.client import TRUSTING, Client
from tests.rig.machine import free_port, wait_until
from tests.rig.names import Names
from tests.rig.nginx import needs_proxy, proxy

pytestmark = needs_proxy

LIMIT = 100
HEAD = (
    b"POST /api/v1/auth/login?secret=query HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 60000\r\n\r\n"
)


class Instance(http.server.BaseHTTPRequestHandler):
    """Respond with the client's address and enough text to compress."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"address": self.headers["X-Forwarded-For"], "text": "x" * 2000}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/css")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def instance(address: str, port: int) -> Iterator[int]:
    with http.server.ThreadingHTTPServer((address, port), Instance) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with instance("127.0.0.1", 0) as upstream, proxy(tmp_path, upstream) as port:
        yield port


def connect(port: int, host: str = "127.0.0.1", source: str = "127.0.0.1") -> ssl.SSLSocket:
    plain = socket.create_connection((host, port), timeout=15, source_address=(source, 0))
    return TRUSTING.wrap_socket(plain)


def status_of(connection: ssl.SSLSocket, seconds: float) -> int:
    """Return the status of a response, or 0 if none arrives."""
    connection.settimeout(seconds)
    try:
        return int(connection.recv(4096).split()[1])
    except TimeoutError:
        return 0


def test_slow_bodies_of_one_network_take_no_place_of_another(port: int) -> None:
    """Without a bound, slow bodies of one client had nginx killed for memory."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(port)) for _ in range(LIMIT + 10)]
        for connection in slow:
            connection.sendall(HEAD + b"x" * 1000)
        rejected = sum(status_of(connection, 0.02) == 429 for connection in slow)
        response = Client(port, tls=True).get("/")
        other = Client(port, tls=True, address="127.0.0.9").get("/")

    assert rejected == 10
    assert (response.status, other.status) == (429, 200)
    assert response.json["code"] == "rate_limited"
    assert response.json["title"] == "Too Many Requests"
    assert response.headers["Retry-After"] == "1"
    assert wait_until(lambda: Client(port, tls=True).get("/").status == 200, seconds=5) < 5


def test_a_silent_body_is_cut_off(tmp_path: Path) -> None:
    shorter = {"client_body_timeout 10s;": "client_body_timeout 1s;"}
    with (
        proxy(tmp_path, free_port(), changes=shorter) as port,
        connect(port) as connection,
    ):
        connection.sendall(HEAD)
        started = time.monotonic()
        while connection.recv(4096):
            pass
    assert time.monotonic() - started < 10


def test_nginx_logs_what_it_responds_itself_without_secrets(port: int, tmp_path: Path) -> None:
    client = Client(port, tls=True)
    client.access = "a-secret-token"
    assert client.get("/fine?secret=query").status == 200
    with connect(port) as connection:
        connection.sendall(HEAD.replace(b"60000", b"3000000"))
        assert status_of(connection, 5) == 413
    log = tmp_path / "access.log"
    assert wait_until(lambda: log.read_text() != "", seconds=5) < 5

    [line] = log.read_text().splitlines()
    found = json.loads(line)
    assert found["status"] == 413
    assert (found["method"], found["address"], found["logger"]) == ("POST", "127.0.0.1", "nginx")
    assert len(found["request_id"]) == 32
    assert "secret" not in line


def test_an_instance_that_does_not_respond_is_logged(tmp_path: Path) -> None:
    with proxy(tmp_path, free_port()) as port:
        assert Client(port, tls=True).get("/").status == 502
    found = json.loads((tmp_path / "access.log").read_text())

    assert (found["status"], found["instance_status"]) == (502, "502")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_clients_with_ipv6_keep_their_address(port: int) -> None:
    with connect(port, "::1", "::1") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = b"".join(iter(lambda: connection.recv(4096), b""))

    assert b'"address": "::1"' in response


def test_an_instance_at_another_address_is_found_without_a_reload(tmp_path: Path) -> None:
    service = free_port()
    with Names() as names:
        shipped = {
            "set $service instances;": f"set $service web:{service};",
            "resolver 127.0.0.11": f"resolver 127.0.0.1:{names.port}",
        }
        with proxy(tmp_path, free_port(), changes=shipped) as port:
            assert Client(port, tls=True).get("/").status == 502
            for address in ("127.0.0.2", "127.0.0.3"):
                names.addresses = [address]
                with instance(address, service):
                    found = wait_until(
                        lambda: Client(port, tls=True).get("/").status == 200, seconds=5
                    )
                assert found < 5


def test_http_2_is_offered(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=15) as plain,
        context.wrap_socket(plain) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_http_2_is_served(port: int) -> None:
    url = f"https://127.0.0.1:{port}/"
    command = ["curl", "--silent", "--insecure", "--http2", "--write-out", "%{http_version}", url]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    assert output.endswith("}2")


def test_only_static_files_are_compressed(port: int) -> None:
    """The size of a compressed response tells about a secret beside what a client sent."""
    encodings = [
        Client(port, tls=True).request("GET", path, **{"Accept-Encoding": "gzip"}).headers
        for path in ("/static/console.css", "/api/v1/users/me")
    ]

    assert [headers["Content-Encoding"] for headers in encodings] == ["gzip", None]
