"""The database, the Redis and the table of figures of all fault tests."""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig.gunicorn import NO_LIMITS, Server, serve
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis

rows: list[tuple[str, str, str, str]] = []
Figure = Callable[..., None]


@pytest.fixture
def figure() -> Iterator[Figure]:
    """Record a figure in the table; the test fails at its end if one is not met."""
    unmet: list[str] = []

    def enter(what: str, *, demanded: str, measured: str, met: bool) -> None:
        rows.append((what, demanded, measured, "yes" if met else "**no**"))
        if not met:
            unmet.append(f"{what}: {measured}, and {demanded} is demanded")

    yield enter
    assert not unmet, unmet


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    # The server of root runs as another user, who has no access to pytest's directory.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        server = Postgres(Path(directory) / "postgres")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def servers(
    postgres: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Two servers of two processes each, without limits."""
    logs = tmp_path_factory.mktemp("concurrency")
    shared = NO_LIMITS | {
        "DATABASE_URL": postgres.url,
        "CACHE_URL": redis.url,
        "WEB_CONCURRENCY": "2",
    }
    with serve(logs / "one", **shared) as one, serve(logs / "two", **shared) as two:
        yield [one, two]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write the figures between the marks in this file")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not rows:
        return
    lines = ["| what | demanded | measured | met |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    table = "\n".join(lines)
    terminalreporter.write_line(f"\n{table}\n")
    if path := config.getoption("table"):
        marked = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)
        text, marks = marked.subn(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", path.read_text())
        assert marks == 1
        path.write_text(text)
