"""The benchmark environment: one PostgreSQL, several services in gunicorn, and clients."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.rig.machine import ROOT, free_port
from tests.rig.postgres import Cluster

CONNECTIONS = 8
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds, the resolution of CPU times
BIN = Path(sys.executable).parent
SETTINGS = """
shared_preload_libraries = 'pg_stat_statements'
shared_buffers = 512MB
max_wal_size = 4GB
"""


class Postgres(Cluster):
    """A cluster that also counts statements, with the memory of a small server."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SETTINGS)
        self.execute("CREATE EXTENSION pg_stat_statements")

    def create(self, database: str) -> str:
        self.execute(
            f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'"
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
        )
        return self.server.url(database)

    def settle(self, database: str) -> None:
        """Vacuum and analyze, which autovacuum would do later."""
        self.execute("VACUUM ANALYZE", dbname=database)
        self.execute("CHECKPOINT")

    def calls(self, database: str) -> int:
        """Return the number of executed statements in this database."""
        [(calls,)] = self.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d"
            " ON d.oid = s.dbid WHERE d.datname = %s",
            [database],
        )
        return int(calls)


@dataclass
class Service:
    """A compared service: its command, its database and its clients' tokens."""

    name: str
    database: str
    environment: dict[str, str]
    command: list[str]
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    clients: list[dict[str, Any]] = field(default_factory=list)

    def manage(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=os.environ | self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def run_script(self, script: str) -> Any:
        """Run a script with this service's models and return its JSON output."""
        result = subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{script}"],
            cwd=ROOT,
            env=os.environ | self.environment | {"LOG_LEVEL": "ERROR"},
            check=True,
            stdout=subprocess.PIPE,
        )
        return json.loads(result.stdout or b"null")

    def start(self) -> float:
        """Start it and return the seconds until it responds."""
        started = time.monotonic()
        self.process = subprocess.Popen(
            [*self.command, "--bind", f"127.0.0.1:{self.port}"],
            cwd=ROOT,
            env=os.environ | self.environment | {"PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        request = b"GET /api/v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        while True:
            with contextlib.suppress(OSError):
                asyncio.run(exchange_once(self.port, request))
                return time.monotonic() - started
            time.sleep(0.01)
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} did not start")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)

    def workers(self) -> list[psutil.Process]:
        assert self.process
        return list(psutil.Process(self.process.pid).children())


async def exchange_once(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return (await read_response(reader))[0]
    finally:
        writer.close()


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            length = int(line[15:])
    return int(head[9:12]), head, await reader.readexactly(length)


@dataclass
class Endpoint:
    """A request that a client repeats; `take` processes its responses."""

    name: str
    request: Callable[[Service, dict[str, Any]], tuple[str, str, Any]]
    status: int = 200
    take: Callable[[dict[str, Any], Any], None] | None = None


def encode(method: str, path: str, body: Any, who: dict[str, Any]) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if path.startswith("/admin") and "cookie" in who:
        lines.append(f"Cookie: {who['cookie']}")
    elif "access" in who:
        lines.append(f"Authorization: Bearer {who['access']}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "\r\n"]).encode() + data


async def client(
    service: Service, endpoint: Endpoint, who: dict[str, Any], until: float, patient: bool
) -> list[tuple[float, float]]:
    """Send requests until `until`, at least one; return the duration and time of each response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    responses: list[tuple[float, float]] = []
    while (began := time.monotonic()) < until or not responses:
        method, path, body = endpoint.request(service, who)
        writer.write(encode(method, path, body, who))
        status, head, content = await read_response(reader)
        if patient and status == 503:  # The next connection may find the other process.
            writer.close()
            await asyncio.sleep(2)
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            continue
        if status != endpoint.status:
            raise SystemExit(
                f"{service.name}: {method} {path} returned {status}: {content[:500]!r}"
            )
        responses.append(((now := time.monotonic()) - began, now))
        if endpoint.take:
            endpoint.take(who, json.loads(content))
        if b"\r\nconnection: close" in head.lower():
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.close()
    return responses


@dataclass
class Round:
    """The measurements of one endpoint of one service."""

    rate: float
    p50: float
    p99: float
    cpu: float
    postgres_cpu: float
    statements: float

    @classmethod
    def of(
        cls,
        responses: Sequence[tuple[float, float]],
        *,
        began: float,
        until: float,
        cpu: float,
        postgres_cpu: float,
        statements: int,
    ) -> "Round":
        """
        Summarize responses, each a duration and a time; times and CPU are in seconds.

        A response after `until` counts in all but the rate: some clients that waited are served
        while others have nothing left to do. On a busy machine all may be late; then the round
        lasts until the last one. CPU times have the resolution of a clock tick.
        """
        punctual = sum(came <= until for _, came in responses)
        end = until if punctual else max(came for _, came in responses)
        count = len(responses)
        times = sorted(took for took, _ in responses)
        return cls(
            rate=(punctual or count) / (end - began),
            p50=1000 * times[count // 2],
            p99=1000 * times[int(count * 0.99)],
            cpu=1000 * max(cpu, CLOCK_TICK) / count,
            postgres_cpu=1000 * max(postgres_cpu, CLOCK_TICK) / count,
            statements=statements / count,
        )


def cpu_of(processes: Sequence[psutil.Process]) -> dict[int, float]:
    """Return the CPU seconds of each process, by pid."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def used_since(before: dict[int, float], processes: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds since `before`, without processes that have exited."""
    return sum(used - before.get(pid, 0.0) for pid, used in cpu_of(processes).items())


def drive(
    postgres: Postgres, service: Service, endpoint: Endpoint, seconds: float, **options: Any
) -> Round:
    """Let all clients send requests for some seconds."""

    async def together(until: float) -> list[list[tuple[float, float]]]:
        return await asyncio.gather(
            *(
                client(service, endpoint, who, until, options.get("patient", False))
                for who in service.clients * options.get("connections_each", 1)
            )
        )

    asyncio.run(exchange_once(service.port, encode("GET", "/api/v1/nothing", None, {})))
    workers = service.workers()
    calls = postgres.calls(service.database)
    before, postgres_before = cpu_of(workers), cpu_of(postgres.processes())
    began = time.monotonic()
    until = began + seconds
    responses = [response for one in asyncio.run(together(until)) for response in one]
    return Round.of(
        responses,
        began=began,
        until=until,
        cpu=used_since(before, workers),
        postgres_cpu=used_since(postgres_before, postgres.processes()),
        statements=postgres.calls(service.database) - calls,
    )


@dataclass
class Comparison:
    """Alternating rounds of two services; a ratio above 1 means that the first is cheaper."""

    name: str
    ours: list[Round]
    theirs: list[Round]

    def median(self, which: str, name: str) -> float:
        return float(statistics.median(getattr(r, name) for r in getattr(self, which)))

    def ratios(self, name: str) -> list[float]:
        pairs = zip(self.ours, self.theirs, strict=True)
        if name == "rate":
            return [one.rate / other.rate for one, other in pairs]
        return [getattr(other, name) / getattr(one, name) for one, other in pairs]


def compare(
    postgres: Postgres,
    sides: tuple[tuple[Service, Endpoint], tuple[Service, Endpoint]],
    *,
    rounds: int,
    seconds: float,
) -> Comparison:
    """Measure both in alternating rounds; discard the first round of each as a warm-up."""
    for service, endpoint in sides:
        drive(postgres, service, endpoint, min(seconds, 1.0))
    found: list[list[Round]] = [[], []]
    for _ in range(rounds):
        for place, (service, endpoint) in enumerate(sides):
            found[place].append(drive(postgres, service, endpoint, seconds))
    return Comparison(sides[0][1].name, *found)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101 - root's server runs as another user
        server = Postgres(Path(directory) / "postgres")
        try:
            yield server
        finally:
            server.stop()
