"""Clients that send slowly, nothing or too much, or forge their address."""

import contextlib
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import TRUSTING, Client, seen
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load, p99
from tests.rig.nginx import needs_proxy, proxy
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, needs_proxy]
PROXIED = {"TRUSTED_PROXY_COUNT": "1", "WEB_CONCURRENCY": "2"}
HEAD = f"POST {API}/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW_HEADERS = HEAD.encode()
SLOW_BODY = f"{HEAD}Content-Length: 100000\r\n\r\n".encode()


@pytest.mark.slow
def test_other_clients_are_served(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | PROXIED | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    with serve(tmp_path / "log", **variables) as server, proxy(tmp_path, server.port) as port:
        clients = [Client(port, tls=True).sign_in() for _ in range(4)]
        calls = [lambda c=c: c.get(f"{API}/users/me") for c in clients[:2]]
        calls += [lambda c=c: c.post(f"{API}/auth/login", login(c)) for c in clients[2:]]
        for what, attack in (
            ("400 clients trickling headers", trickle(port, SLOW_HEADERS, 400)),
            ("400 clients trickling bodies", trickle(port, SLOW_BODY, 400)),
            ("3,000 idle connections", idle(port, 3000)),
            ("Bodies of 8 MiB, with a length and chunked, and headers of 1 MiB", shout(port)),
        ):
            with attack as report, Load(*calls, pause=0.02) as load:
                time.sleep(8)
            figure(
                f"{what}: p99 of the others; their failures",
                demanded="500 ms; 0",
                measured=f"{p99([a.seconds for a in load.results]):.0f} ms; "
                f"{sum(a.status != 200 for a in load.results)} of {len(load.results)} "
                f"({seen(load.results)}){report()}",
                met=p99([a.seconds for a in load.results]) <= 500
                and {a.status for a in load.results} == {200},
            )


def login(client: Client) -> dict[str, str]:
    return {"identity": client.username, "password": PASSWORD}


@pytest.fixture(autouse=True)
def many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 40_000), most))


@contextlib.contextmanager
def trickle(port: int, beginning: bytes, count: int) -> Iterator[object]:
    """Open connections of another network whose requests grow by one byte a second."""
    stopped = threading.Event()
    connections: list[ssl.SSLSocket] = []
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0))
        connections.append(TRUSTING.wrap_socket(plain))
        connections[-1].sendall(beginning)

    def drip() -> None:
        while not stopped.wait(1):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    yield lambda: ""
    stopped.set()
    thread.join()
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def idle(port: int, count: int) -> Iterator[object]:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    yield lambda: ""
    for connection in connections:
        connection.close()


@contextlib.contextmanager
def shout(port: int) -> Iterator[object]:
    """Send oversized bodies and headers repeatedly; report the statuses."""
    body = b"x" * 8 * 1024 * 1024
    client = Client(port, tls=True)

    def send() -> list[int]:
        client.access = ""
        chunked = client.send("POST", f"{API}/auth/login", iter([body]))
        whole = client.send("POST", f"{API}/auth/login", body)
        headers = client.request("GET", f"{API}/articles", **{"X-Long": "x" * 1024 * 1024})
        return [whole.status, chunked.status, headers.status]

    with Load(send, pause=0.1) as load:
        yield (lambda: f"; statuses {sorted({s for result in load.results for s in result})}")


def test_only_the_proxy_sets_the_client_address(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url} | PROXIED
    with serve(tmp_path / "log", **variables) as server, proxy(tmp_path, server.port) as port:
        device = Client(port, tls=True, address="127.0.0.7").sign_in()
        (session,) = device.get(f"{API}/auth/sessions").json["results"]
        liar = Client(port, tls=True, address="127.0.0.8")
        wrong = {"identity": "nobody", "password": "wrong"}
        attempts = [
            liar.request("POST", f"{API}/auth/login", wrong, **{"X-Forwarded-For": f"10.0.0.{n}"})
            for n in range(8)
        ]
        too_long = device.send("POST", f"{API}/articles", b"x" * (1024 * 1024 + 1))
        far_too_long = device.send("POST", f"{API}/articles", b"x" * 3 * 1024 * 1024)
    passed = [response.status for response in attempts].count(401)
    figure(
        "The client's address through the proxy; logins that get through with forged addresses",
        demanded="127.0.0.7; 5",
        measured=f"{session['ip_address']}; {passed}",
        met=session["ip_address"] == "127.0.0.7" and passed <= 5,
    )
    for response in (too_long, far_too_long):
        assert (response.status, response.json["code"]) == (413, "payload_too_large")
    with proxy(tmp_path, server.port) as port:
        stopped = Client(port, tls=True).get("/health")
    assert (stopped.status, stopped.json["code"]) == (502, "server_error")
    assert "Retry-After" not in stopped.headers
