"""The export of an account by the real service: over a socket, to slow clients, at any size."""

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from accounts.models import Event, User
from conftest import API
from tests.rig.client import Client
from tests.rig.gunicorn import Server, serve, workers
from tests.rig.machine import wait_until

EXPORT = f"{API}/users/me/export"
ORIGIN = "https://app.example.com"
ADD_ARTICLES = """
    INSERT INTO articles_article (owner_id, title, description, amount, created_at, updated_at)
    SELECT %s, 'Lamp ' || n, repeat('x', %s), 1, now(), now() FROM generate_series(1, %s) n
"""
STATES = """
    SELECT state FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND backend_type = 'client backend'
"""
DISCONNECT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND backend_type = 'client backend'
"""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def server(db: None, log: Path) -> Iterator[Server]:
    variables = {"AUTH_RATE_LIMIT": "1000/m", "CORS_ALLOWED_ORIGINS": ORIGIN, "LOG_FORMAT": "json"}
    with serve(log, **variables) as server:
        yield server


@pytest.fixture
def device(server: Server) -> Client:
    return Client(server.port).sign_in()


def add_articles(device: Client, number: int, *, length: int = 2_000) -> None:
    with connection.cursor() as cursor:
        owner = User.objects.get(username=device.username)
        cursor.execute(ADD_ARTICLES, [owner.pk, length, number])


@contextlib.contextmanager
def slow(device: Client, server: Server) -> Iterator[http.client.HTTPResponse]:
    """A response whose client has read its first part and waits."""
    with contextlib.closing(server.connect()) as client:
        client.request("GET", EXPORT, headers={"Authorization": f"Bearer {device.access}"})
        response = client.getresponse()
        assert response.status == 200
        response.read(1000)
        yield response


def test_it_is_streamed_and_logged_like_any_request(
    server: Server, device: Client, log: Path
) -> None:
    add_articles(device, 1_200, length=100)

    response = device.send("GET", EXPORT, Origin=ORIGIN)

    assert len(response.json["articles"]) == 1_200
    headers = response.headers
    assert headers["Transfer-Encoding"] == "chunked"
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Cache-Control"] == "no-store"
    assert not {"Content-Length", "ETag"} & set(headers)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    [line] = [line for line in lines if line.get("route") == "/api/v1/users/me/export"]
    assert (line["status"], line["request_id"]) == (200, headers["X-Request-ID"])
    assert line["user_id"] == User.objects.get().pk


def test_a_head_request_leaves_the_connection_usable(server: Server, device: Client) -> None:
    head = device.send("HEAD", EXPORT)

    assert (head.status, head.body) == (200, b"")
    assert device.get(EXPORT).json["account"]["username"] == device.username
    assert Event.objects.filter(kind="exported").count() == 1


def test_a_document_that_is_cut_off_does_not_look_complete(server: Server, device: Client) -> None:
    add_articles(device, 10_000)

    with slow(device, server) as response:
        with connection.cursor() as cursor:
            cursor.execute(DISCONNECT)
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()

    with pytest.raises(json.JSONDecodeError):
        json.loads(b'{"account' + caught.value.partial)
    assert device.get(f"{API}/users/me").status == 200


def test_slow_clients_take_two_threads_and_no_transaction(server: Server, device: Client) -> None:
    add_articles(device, 10_000)

    with slow(device, server), slow(device, server):
        time.sleep(1)
        with connection.cursor() as cursor:
            cursor.execute(STATES)
            states = {state for (state,) in cursor.fetchall()}
        assert states == {"idle"}
        assert device.get(EXPORT).is_unavailable
        assert device.get(f"{API}/users/me").status == 200

    # The service sees at its next write that a client has left.
    assert wait_until(lambda: device.get(EXPORT).status == 200, seconds=15) < 15


def test_memory_does_not_grow_with_the_document(server: Server, device: Client) -> None:
    device.get(EXPORT)
    [worker] = workers(server)
    before = worker.memory_info().rss
    add_articles(device, 20_000)

    started, size, first, peak = time.monotonic(), 0, 0.0, 0
    with slow(device, server) as response:
        first = time.monotonic() - started
        while part := response.read(2**20):
            size += len(part)
            peak = max(peak, worker.memory_info().rss)

    assert size > 40 * 2**20
    assert peak - before < 10 * 2**20
    assert first < 1
