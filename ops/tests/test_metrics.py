"""The metrics of a service with two processes."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.db.models.functions import Now
from prometheus_client.parser import text_string_to_metric_families

from accounts.models import Event, OutgoingEmail, User
from accounts.passwords import FREE_THREADS
from conftest import API, PASSWORD
from tests.rig.gunicorn import Server, serve, workers
from tests.rig.machine import free_port, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

Samples = dict[tuple[str, ...], float]


class Watched(Server):
    """A service with a metrics port."""

    metrics_port: int

    def read(self) -> Samples:
        """Return the samples by name and label values, in the order of the label names."""
        response, body = Server(self.metrics_port, self.process).request("GET", "/metrics")
        assert response.status == 200
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


@pytest.fixture
def watched(db: None, tmp_path: Path) -> Iterator[Watched]:
    port = free_port()
    variables = {"METRICS_PORT": str(port), "AUTH_RATE_LIMIT": "20/m", "WEB_CONCURRENCY": "2"}
    variables["REFRESH_GRACE_SECONDS"] = "0"
    with serve(tmp_path / "log", **variables) as server:
        server.__class__, server.metrics_port = Watched, port
        yield server


def test_they_count_what_all_processes_did(watched: Watched) -> None:
    user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
    assert watched.post("/users", user)[0] == 201
    login = {"identity": "alice", "password": PASSWORD}
    for _ in range(20):
        assert watched.request("GET", "/health/live")[0].status == 200
    assert watched.post("/auth/login", {**login, "password": "wrong"})[0] == 401
    status, pair = watched.post("/auth/login", login)
    assert status == 200
    spent = {"refresh_token": pair["refresh_token"]}
    assert [watched.post("/auth/refresh", spent)[0] for _ in range(2)] == [200, 401]
    assert watched.post("/auth/login", login)[0] == 200

    assert watched.request("GET", "/api/v1/users/me", Authorization="Bearer lk_x")[0].status == 401

    samples = watched.read()

    requests = "http_request_duration_seconds_count"
    assert samples[requests, "GET", "/health/live", "200"] == 20
    assert samples[requests, "POST", "/api/v1/auth/login", "200"] == 2
    assert samples[requests, "POST", "/api/v1/auth/login", "401"] == 1
    assert samples["latchkey_logins_total", "accepted"] == 2
    assert samples["latchkey_logins_total", "refused"] == 1
    assert samples["latchkey_refreshes_total", "rotated"] == 1
    assert samples["latchkey_refreshes_total", "replayed"] == 1
    assert samples["latchkey_events_total", "replayed"] == 1
    assert samples["latchkey_active_sessions",] == 1
    assert samples["latchkey_active_api_tokens",] == 0
    assert samples["latchkey_api_tokens_presented_total", "refused"] == 1
    assert (
        samples["latchkey_hashing_places_taken",] == samples["latchkey_hashing_turns_taken",] == 0
    )
    assert samples["latchkey_hashing_places",] >= 1
    assert samples["latchkey_database_connections", "active"] >= 1
    assert samples["latchkey_database_connections_limit",] >= 50
    for check in ("database", "cache", "migrations"):
        assert samples["latchkey_check_ok", check] == 1


def test_every_series_of_a_counter_and_the_places_have_a_value_from_the_start(
    watched: Watched,
) -> None:
    """Without a sample before the first event, `increase` misses that event."""
    places = min(settings.HASHING_PLACES, settings.WEB_THREADS - FREE_THREADS)

    def has_all_places() -> bool:
        return watched.read()["latchkey_hashing_places",] == len(workers(watched)) * places

    assert wait_until(has_all_places, seconds=60) < 60
    samples = watched.read()
    for metric, labels in {
        "latchkey_logins_total": ("accepted", "refused", "limited", "busy"),
        "latchkey_codes_total": ("accepted", "refused", "limited"),
        "latchkey_passkeys_total": ("accepted", "refused", "cloned"),
        "latchkey_refreshes_total": ("rotated", "grace", "replayed", "refused"),
        "latchkey_events_total": Event.Kind.values,
        "latchkey_api_tokens_presented_total": ("accepted", "refused", "denied"),
    }.items():
        found = {key[1]: value for key, value in samples.items() if key[0] == metric}
        assert found == dict.fromkeys(labels, 0)


def test_a_limit_that_is_reached_is_counted(watched: Watched) -> None:
    codes = [watched.post("/auth/refresh", {"refresh_token": "x"})[0] for _ in range(60)]

    samples = watched.read()

    assert set(codes) == {401, 429}
    assert samples["latchkey_events_total", "limit_reached"] >= 1
    key = "http_request_duration_seconds_count", "POST", "/api/v1/auth/refresh", "429"
    assert samples[key] == codes.count(429)


def test_the_outbox_is_counted(watched: Watched, make_user: Callable[..., User]) -> None:
    user, emails = make_user(), OutgoingEmail.objects
    rows = [
        emails.enqueue("email_changed", user, address=f"{number}@example.com")
        for number in range(5)
    ]
    # Each attempt moves `due_at`.
    emails.filter(pk=rows[0].pk).update(created_at=Now() - timedelta(minutes=3), attempts=5)
    rows[1].mark_sent()
    rows[2].fail("550 no such user")
    rows[3].defer("451 later")
    emails.filter(pk=rows[3].pk).update(due_at=Now() + timedelta(minutes=3))

    samples = watched.read()

    assert samples["latchkey_mail_due",] == 2
    assert 180 <= samples["latchkey_mail_oldest_seconds",] < 240
    for outcome, count in {"sent": 1, "failed": 1, "deferred": 1, "waiting": 2}.items():
        assert samples["latchkey_mails", "email_changed", outcome] == count
        assert samples["latchkey_mails", "invitation", outcome] == 0


def test_the_counts_of_an_exited_process_remain(watched: Watched) -> None:
    for _ in range(20):
        watched.request("GET", "/health/live")

    for worker in psutil.Process(watched.process.pid).children():
        os.kill(worker.pid, signal.SIGKILL)
    time.sleep(2)

    key = "http_request_duration_seconds_count", "GET", "/health/live", "200"
    assert watched.read()[key] == 20


def test_each_port_serves_its_own_application(watched: Watched) -> None:
    response, body = watched.request("GET", "/metrics")
    assert (response.status, b"latchkey_" in body) == (404, False)

    response, body = Server(watched.metrics_port, watched.process).request("GET", "/health/live")
    assert b"http_request_duration_seconds" in body


def test_unknown_paths_and_methods_create_no_series(watched: Watched) -> None:
    for path in ("/wp-admin.php", f"{API}/nothing/42"):
        watched.request("GET", path)
    watched.request("BREW", f"{API}/users/123456")

    samples = watched.read()

    labels = {label for name, *labels in samples if name.startswith("http_") for label in labels}
    assert {"-", "OTHER"} <= labels
    assert not any(part in label for label in labels for part in ("wp-admin", "nothing", "BREW"))
    assert not any("123456" in label for label in labels)


def test_without_a_database_the_other_metrics_are_reported(tmp_path: Path) -> None:
    port = free_port()
    nowhere = f"postgres://nobody@127.0.0.1:{free_port()}/nothing"
    variables = {"METRICS_PORT": str(port), "DATABASE_URL": nowhere}
    with serve(tmp_path / "log", **variables) as server:
        server.__class__, server.metrics_port = Watched, port
        samples = server.read()

    assert samples["latchkey_check_ok", "database"] == 0
    assert samples["latchkey_check_ok", "cache"] == 1
    assert ("latchkey_active_sessions",) not in samples
    assert ("latchkey_mail_due",) not in samples
