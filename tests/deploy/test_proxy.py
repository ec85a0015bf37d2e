"""The shipped nginx.conf in nginx: forwarded requests and its own responses."""

import contextlib
import http.client
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from accounts.models import User
from api.errors import CODES, DETAILS, TITLES
from conftest import API, PASSWORD
from tests.rig.browser import chromium, needs_chromium
from tests.rig.client import TRUSTING, Client
from tests.rig.gunicorn import serve
from tests.rig.machine import free_port
from tests.rig.nginx import needs_proxy, proxy

pytestmark = needs_proxy

ORIGINS = "https://app.example.com, https://www.example.com:8443"
HOST = b"Host: localhost\r\n"
FORGED = {"Origin": "https://localhost"}


class Echo(http.server.BaseHTTPRequestHandler):
    """Respond with the headers of the request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Client]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with proxy(tmp_path, server.server_port) as port:
            yield Client(port, tls=True)
        server.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A proxy without a service behind it."""
    with proxy(tmp_path_factory.mktemp("proxy"), free_port(), origins=ORIGINS) as port:
        yield port


def send(port: int, data: bytes) -> tuple[http.client.HTTPResponse, Any]:
    """Send these bytes and return the response with its JSON."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=15) as plain,
        TRUSTING.wrap_socket(plain) as connection,
    ):
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response, json.loads(response.read())


def assert_is_a_problem(response: http.client.HTTPResponse, body: Any, status: int) -> None:
    assert response.status == body["status"] == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert body.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["title"] == (TITLES.get(status) or http.HTTPStatus(status).phrase)
    assert body["code"] in DETAILS
    assert body["code"] != "service_unavailable"
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert "Retry-After" not in response.headers


LONG = b"x" * 9000
REJECTED = {
    "no request line": (b"nonsense\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "a length that is none": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400),
    "the service's own page": (b"GET /nginx-problem HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a method": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "too long a body": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n", 413),
    "too long an address": (b"GET /" + LONG + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "too long a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + LONG + b"\r\n\r\n", 431),
    "an encoding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "no service": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 502),
    "a version": (b"GET / HTTP/3.1\r\n" + HOST + b"\r\n", 505),
}


@pytest.mark.parametrize(("request_bytes", "status"), REJECTED.values(), ids=REJECTED)
def test_what_nginx_rejects_is_a_problem_document(
    alone: int, request_bytes: bytes, status: int
) -> None:
    response, body = send(alone, request_bytes)

    assert_is_a_problem(response, body, status)
    assert body["code"] == CODES.get(status, "server_error" if status >= 500 else "parse_error")


def test_plain_http_is_a_problem_document(alone: int) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", alone)) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert_is_a_problem(response, json.loads(response.read()), 400)


@pytest.mark.parametrize("status", [413, 502])
@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("https://app.example.com", True),
        ("https://www.example.com:8443", True),
        ("https://www.example.com", False),
        ("https://app.example.com, https://www.example.com:8443", False),
        ("https://app.example.com.evil.example", False),
        ("https://evil.example", False),
        ("pp.example.com", False),
        (".*", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_listed_origins_may_read_it(
    alone: int, status: int, origin: str, *, is_allowed: bool
) -> None:
    length = b"Content-Length: 3000000\r\n" if status == 413 else b""
    head = b"POST / HTTP/1.1\r\n" + HOST + length
    response, _ = send(alone, head + f"Origin: {origin}\r\n\r\n".encode())

    assert response.status == status
    assert response.headers["Vary"] == "origin"
    allowed = response.headers["Access-Control-Allow-Origin"]
    assert allowed == (origin if is_allowed else None)
    exposed = response.headers["Access-Control-Expose-Headers"]
    assert (exposed is not None) == is_allowed


@pytest.mark.parametrize(
    ("path", "origin", "is_allowed"),
    [
        (f"{API}/auth/refresh", "https://app.example.com", True),
        (f"{API}/auth/refresh", "https://evil.example", False),
        (f"{API}/auth/refresh", None, False),
        (f"{API}/users/me", "https://app.example.com", False),
        (f"{API}/authx", "https://app.example.com", False),
        (f"/x{API}/auth/refresh", "https://app.example.com", False),
    ],
)
@pytest.mark.parametrize(
    ("refresh_cookie", "is_enabled"),
    [("true", True), ("ON", True), ("false", False), ("", False), (None, False)],
)
def test_credentials_are_allowed_where_the_service_allows_them(
    tmp_path: Path,
    refresh_cookie: str | None,
    path: str,
    origin: str | None,
    *,
    is_enabled: bool,
    is_allowed: bool,
) -> None:
    headers = {"Origin": origin} if origin else {}
    with proxy(tmp_path, free_port(), origins=ORIGINS, refresh_cookie=refresh_cookie) as port:
        response = Client(port, tls=True).request("POST", path, **headers)

    assert response.status == 502
    allowed = response.headers["Access-Control-Allow-Credentials"]
    assert allowed == ("true" if is_enabled and is_allowed else None)


@pytest.mark.parametrize("origins", ["", None])
def test_without_a_list_no_origin_may_read_it(tmp_path: Path, origins: str | None) -> None:
    with proxy(tmp_path, free_port(), origins=origins) as port:
        response = Client(port, tls=True).request("GET", "/", Origin="https://app.example.com")

    assert response.status == 502
    assert "Access-Control-Allow-Origin" not in response.headers


def test_the_service_receives_the_host_the_port_the_scheme_and_the_address(echo: Client) -> None:
    forwarded = echo.request(
        "GET", "/", **{"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    ).json

    assert forwarded["Host"] == f"127.0.0.1:{echo.connection.port}"
    assert (forwarded["X-Forwarded-For"], forwarded["X-Forwarded-Proto"]) == ("127.0.0.1", "https")


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128])
def test_a_valid_request_id_is_passed_on(echo: Client, given: str) -> None:
    assert echo.request("GET", "/", **{"X-Request-ID": given}).json["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 129, 'a"b', "a,b"])
def test_any_other_is_replaced_for_both(echo: Client, alone: int, given: str) -> None:
    here = Client(alone, tls=True).request("GET", "/", **{"X-Request-ID": given})

    for found in (
        echo.request("GET", "/", **{"X-Request-ID": given}).json["X-Request-ID"],
        here.json["request_id"],
    ):
        assert re.fullmatch("[0-9a-f]{32}", found)


def test_a_service_that_does_not_respond_is_a_504_without_retry_after(tmp_path: Path) -> None:
    shorter = {"proxy_read_timeout 30s;": "proxy_read_timeout 1s;"}
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        proxy(tmp_path, silent.getsockname()[1], changes=shorter) as port,
    ):
        response, body = send(port, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")

    assert_is_a_problem(response, body, 504)


def test_tls_has_forward_secrecy(alone: int) -> None:
    def connect(ciphers: str) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        with (
            socket.create_connection(("127.0.0.1", alone), timeout=15) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return str(connection.cipher()[0])

    assert connect("DEFAULT").startswith("ECDHE-RSA-")
    for weak in ("AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA"):
        with pytest.raises(ssl.SSLError):
            connect(f"{weak}:@SECLEVEL=0")


@pytest.mark.django_db(transaction=True)
class TestService:
    @pytest.fixture
    def port(self, tmp_path: Path) -> Iterator[int]:
        """The service in production, behind a proxy at a port that is not 443."""
        variables = {
            "DEBUG": "false",
            "EMAIL_URL": "none",
            "ALLOWED_HOSTS": "localhost",
            "TRUSTED_PROXY_COUNT": "1",
            "BCRYPT_ROUNDS": "12",
            "CORS_ALLOWED_ORIGINS": ORIGINS,
            "REFRESH_COOKIE": "true",
        }
        with (
            serve(tmp_path / "log", **variables) as server,
            proxy(tmp_path, server.port, origins=ORIGINS, refresh_cookie="true") as port,
        ):
            yield port

    @pytest.fixture
    def client(self, port: int) -> Client:
        client = Client(port, tls=True)
        client.connection.host = "localhost"
        user = {"username": "boss", "email": "boss@example.com", "password": PASSWORD}
        assert client.post(f"{API}/users", user).status == 201
        User.objects.filter(username="boss").update(is_staff=True, is_superuser=True)
        return client

    def test_links_lead_back_to_the_public_host_and_port(self, client: Client, port: int) -> None:
        client.sign_in("boss")
        for _ in range(2):
            assert client.post(f"{API}/articles", {"title": "Lamp", "amount": 1}).status == 201

        page = client.get(f"{API}/articles?limit=1").json

        assert page["next"].startswith(f"https://localhost:{port}{API}/articles?")
        assert client.get(page["next"].partition(str(port))[2]).status == 200

    def test_the_console_signs_in_and_redirects_at_the_public_host_and_port(
        self, client: Client, port: int
    ) -> None:
        origin = f"https://localhost:{port}"
        form = client.request("GET", "/admin/login/")
        cookie = form.headers["Set-Cookie"].partition(";")[0]
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', form.body)[1].decode()
        fields = {"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": token}
        headers = {"Origin": origin, "Referer": f"{origin}/admin/login/", "Cookie": cookie}
        headers["Content-Type"] = "application/x-www-form-urlencoded"

        signed_in = client.send("POST", "/admin/login/?next=/admin/", urlencode(fields), **headers)
        forged = {**headers, "Origin": "https://localhost", "Referer": "https://localhost/"}
        other_port = client.send("POST", "/admin/login/", urlencode(fields), **forged)

        assert signed_in.status == 302, signed_in.body
        assert signed_in.headers["Location"] in {"/admin/", f"{origin}/admin/"}
        assert other_port.status == 403
        cookies = "; ".join(c.partition(";")[0] for c in signed_in.headers.get_all("Set-Cookie"))
        # Staff add a second factor before anything else.
        first = client.request("GET", "/admin/", Cookie=cookies)
        assert first.headers["Location"] in {"/admin/factors/", f"{origin}/admin/factors/"}
        assert client.request("GET", "/admin/factors/", Cookie=cookies).status == 200

    def test_a_session_by_cookie_has_the_public_origin(self, client: Client, port: int) -> None:
        login = {"identity": "boss", "password": PASSWORD, "cookie": True}
        pair = client.post(f"{API}/auth/login", login)
        cookie = pair.headers["Set-Cookie"]
        sent = {"Cookie": cookie.partition(";")[0], "Origin": f"https://localhost:{port}"}

        other_port = client.request("POST", f"{API}/auth/refresh", {}, **sent | FORGED)
        refreshed = client.request("POST", f"{API}/auth/refresh", {}, **sent)
        client.access = refreshed.json["access_token"]
        signed_out = client.post(f"{API}/auth/logout")

        assert cookie.startswith("__Host-refresh=eyJ")
        assert set(cookie.split("; ")[2:]) == {
            *("HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Strict", "Secure")
        }
        assert (other_port.status, other_port.json["code"]) == (403, "origin_not_allowed")
        assert (refreshed.status, signed_out.status) == (200, 204)
        assert refreshed.headers["Set-Cookie"].startswith("__Host-refresh=eyJ")
        assert "Max-Age=0; Path=/; SameSite=Strict; Secure" in signed_out.headers["Set-Cookie"]

    @needs_chromium
    def test_a_browser_keeps_the_cookie(self, client: Client, port: int) -> None:
        post = """([path, body]) => fetch("/api/v1" + path, {
            method: "POST", body: JSON.stringify(body),
            headers: {"Content-Type": "application/json"},
        }).then(async (response) => [response.status, await response.json()])"""
        with chromium() as browser:
            page = browser.new_page(ignore_https_errors=True)
            page.goto(f"https://localhost:{port}/")
            login = {"identity": "boss", "password": PASSWORD, "cookie": True}

            statuses = [
                page.evaluate(post, [path, body])
                for path, body in (
                    ("/auth/login", login),
                    ("/auth/refresh", {}),
                    ("/auth/refresh", {}),
                )
            ]

            assert [status for status, _ in statuses] == [200, 200, 200]
            assert not any("refresh_token" in body for _, body in statuses)
            [cookie] = page.context.cookies()
            assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == (
                *("__Host-refresh", True, True),
            )

    def test_too_long_a_body_is_the_same_413_from_both(self, client: Client) -> None:
        origin = {"Origin": "https://app.example.com", "X-Request-ID": "abc"}
        service, nginx = [
            client.send("POST", f"{API}/articles", b"x" * size, **origin)
            for size in (1_500_000, 3_000_000)
        ]

        assert service.status == nginx.status == 413
        assert service.json == nginx.json
        kept = {
            name.lower(): value
            for name, value in service.headers.items()
            if name not in {"Connection", "Date"}
        }
        assert kept == {name.lower(): nginx.headers[name] for name in kept}

    @pytest.mark.parametrize("megabytes", [2, 8, 64])
    def test_a_413_response_arrives_for_any_body(self, client: Client, megabytes: int) -> None:
        """A connection closed with unread bytes is reset, and the client gets no response."""
        body = b"x" * 1_048_576
        whole = client.send("POST", f"{API}/auth/login", body * megabytes)
        chunked = client.send("POST", f"{API}/auth/login", iter([body] * megabytes))

        assert [whole.status, chunked.status] == [413, 413]
        assert whole.json["code"] == chunked.json["code"] == "payload_too_large"
