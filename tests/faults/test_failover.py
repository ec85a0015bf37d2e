"""The primary of two PostgreSQL servers is killed and the standby promoted, under load."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load
from tests.rig.machine import wait_until
from tests.rig.postgres import Cluster, Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
WRITERS = 6
PROMOTION = 1.2  # seconds until an operator, or its software, promotes the standby


class Pair:
    """A primary and its synchronous standby, by streaming replication."""

    def __init__(self, directory: Path) -> None:
        places = [directory / name / "postgres" for name in ("one", "two")]
        for place in places:
            place.parent.mkdir(mode=0o755)
        self.primary: Cluster = Postgres(places[0])
        self.allow_replication(self.primary)
        self.standby = self.copy(self.primary, places[1])
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.execute("SELECT pg_reload_conf()")
        assert wait_until(self.is_synchronous, seconds=20) < 20
        self.hosts = f"{self.primary.host},{self.standby.host}"

    def allow_replication(self, cluster: Cluster) -> None:
        with (cluster.server.files / "pg_hba.conf").open("a") as file:
            file.write("local replication all scram-sha-256\n")
        cluster.execute("SELECT pg_reload_conf()")

    def copy(self, primary: Cluster, place: Path) -> Cluster:
        """Start a standby with the files of a primary."""
        place.mkdir(mode=0o700)
        os.chown(place, *primary.server.owner)
        source = f"host={primary.host} user=postgres password={primary.server.password}"
        options = ["--write-recovery-conf", "--checkpoint=fast", f"--dbname={source}"]
        primary.server.run("pg_basebackup", f"--pgdata={place}", *options)
        shutil.copy(primary.server.password_file, place.with_name("postgres.password"))
        return Cluster(place)

    def is_synchronous(self) -> bool:
        rows = self.primary.execute("SELECT sync_state FROM pg_stat_replication")
        return rows == [("sync",)]

    def promote(self) -> None:
        self.standby.execute("SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary

    def rebuild(self) -> None:
        """Bring the former primary back as a standby of the new one."""
        place = self.standby.server.files
        shutil.rmtree(place)
        self.standby = self.copy(self.primary, place)

    def stop(self) -> None:
        for cluster in (self.standby, self.primary):
            cluster.stop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    # The server of root runs as another user, who has no access to pytest's directory.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        pair = Pair(Path(directory))
        yield pair
        pair.stop()


class Writer:
    """A client that creates rows and ends sessions, and remembers what was acknowledged."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = Client(port).sign_in()
        self.created: list[int] = []
        self.ended: list[str] = []  # access tokens

    def write(self) -> list[tuple[float, Response]]:
        responses = [self.create(), self.sign_in_and_out()]
        return [(time.monotonic(), response) for response in responses if response]

    def create(self) -> Response:
        response = self.client.post(f"{API}/articles", {"title": "x", "amount": 1})
        if response.status == 201:
            self.created.append(response.json["id"])
        return response

    def sign_in_and_out(self) -> Response:
        device = Client(self.port)
        body = {"identity": self.client.username, "password": PASSWORD}
        response = device.post(f"{API}/auth/login", body)
        if response.status == 200:
            device.take(response)
            response = device.post(f"{API}/auth/logout")
            if response.status == 204:
                self.ended.append(device.access)
        return response


def is_unexpected(response: Response) -> bool:
    return not (response.is_unavailable or response.is_unknown)


def test_a_failover_loses_no_acknowledged_write(
    pair: Pair, redis: Redis, tmp_path: Path, figure: Figure
) -> None:
    variables = NO_LIMITS | {
        "DB_HOST": pair.hosts,
        "DB_PORT": "5432",
        "DB_USER": "latchkey",
        "DB_PASSWORD": Postgres.PASSWORD,
        "DB_NAME": "latchkey",
        "DATABASE_URL": "",
        "CACHE_URL": redis.url,
        "WEB_CONCURRENCY": "2",
    }
    with serve(tmp_path / "log", **variables) as server:
        writers = [Writer(server.port) for _ in range(WRITERS)]
        with Load(*[writer.write for writer in writers], pause=0.01) as load:
            time.sleep(3)
            pair.primary.kill()
            time.sleep(PROMOTION)
            pair.promote()
            promoted = time.monotonic()
            time.sleep(3)
            pair.rebuild()
            rebuilt = time.monotonic()
            time.sleep(2)
        reader = Client(server.port)
        ended = [access for writer in writers for access in writer.ended]
        statuses = [
            reader.request("GET", f"{API}/users/me", Authorization=f"Bearer {access}").status
            for access in ended
        ]
        alive = len(ended) - statuses.count(401)
    there = {
        pk for (pk,) in pair.primary.execute("SELECT id FROM articles_article", dbname="latchkey")
    }
    created = {pk for writer in writers for pk in writer.created}
    responses = sorted((r for results in load.results for r in results), key=lambda r: r[0])
    failed = [response for _, response in responses if not 200 <= response.status < 300]
    first = next(at for at, r in responses if at > promoted and 200 <= r.status < 300) - promoted
    figure(
        "PostgreSQL's primary killed, the standby promoted, the former primary back as a standby: "
        "acknowledged writes lost; ended sessions alive; responses but 2xx, a 503 problem and "
        "a write's 504; first success after the promotion",
        demanded="0; 0; 0; 1 s",
        measured=f"{len(created - there)} of {len(created)}; {alive}; "
        f"{sum(map(is_unexpected, failed))} of {len(responses)} ({len(failed)} 503 or 504); "
        f"{first:.1f} s",
        met=created <= there and not alive and not any(map(is_unexpected, failed)) and first <= 1,
    )
    assert failed
    assert any(at > rebuilt and 200 <= r.status < 300 for at, r in responses)
