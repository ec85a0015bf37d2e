"""The database of development: who starts it, who stops it, and how it folds case."""

import atexit
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from config import embedded_postgres

JOIN = """
from pathlib import Path
from config import embedded_postgres
embedded_postgres.DATA = Path({data!r})
print(embedded_postgres.start(), flush=True)
input()
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / ".data" / "postgres"
    monkeypatch.setattr(embedded_postgres, "DATA", path)
    return path


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Take what would run at this process's exit."""
    taken: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: taken.append(call))
    return taken


@pytest.fixture
def companion(data: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOIN.format(data=str(data))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    with process:
        yield process
        process.kill()


def server(data: Path) -> psutil.Process:
    return psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))


def leave(leaving: list[Any]) -> None:
    [(function, *arguments)] = [call for call in leaving if call[0] is embedded_postgres.leave]
    function(*arguments)


def test_it_stops_with_the_last_who_uses_it(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    assert companion.stdout.readline().strip()
    socket_directory = embedded_postgres.start.__wrapped__()
    process = server(data)
    companion.communicate("\n")
    assert process.is_running()

    with psycopg.connect(host=socket_directory, user="postgres", dbname="latchkey") as database:
        assert database.execute("SELECT lower('ÀÉ') = 'àé', upper('ß')").fetchone() == (True, "ß")
        assert database.info.server_version >= 180000

    leave(leaving)
    assert not process.is_running()


def test_whoever_leaves_before_stops_nothing(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    embedded_postgres.start.__wrapped__()
    process = server(data)

    leave(leaving)

    assert process.is_running()
    companion.communicate("\n")
    process.wait(timeout=20)


def test_a_killed_server_is_started_again_by_the_next(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    killed = server(data)
    killed.kill()
    while killed.is_running() and killed.status() != psutil.STATUS_ZOMBIE:  # pragma: no cover
        time.sleep(0.01)

    embedded_postgres.start.__wrapped__()

    assert server(data).is_running()
    companion.kill()
    companion.wait()
    leave(leaving)


def test_a_crash_leaves_nothing_to_repair(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    companion.kill()
    companion.wait()
    embedded_postgres.start.__wrapped__()
    process = server(data)

    leave(leaving)

    assert not process.is_running()


@pytest.mark.parametrize("note", ["1", "999999999"])
def test_a_server_that_was_killed_is_started_again(
    data: Path, leaving: list[Any], note: str
) -> None:
    """The number in its note may be no process's, or another's."""
    data.mkdir(parents=True)
    (data / "postmaster.pid").write_text(f"{note}\n")

    embedded_postgres.forget_dead_server()

    assert not (data / "postmaster.pid").exists()


def test_a_forked_child_leaves_its_parents_server_alone() -> None:
    embedded_postgres.leave(None, None, owner=-1)


def test_dbshell_finds_it(db: None, capfd: pytest.CaptureFixture[str]) -> None:
    connection.close()

    call_command("dbshell", "--", "-Atc", "SELECT current_database()")

    assert capfd.readouterr().out.strip() == connection.settings_dict["NAME"]
