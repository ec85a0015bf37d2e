"""A `docker` command for scripts that call Docker Compose, where no engine runs."""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pytest

# It runs in the place of docker: the reply is the command to execute, with its environment.
CLIENT = f"""#!{sys.executable}
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(os.environ["FAKE_DOCKER"])
    client.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    command, environment = json.loads(client.makefile().readline())
os.execvpe(command[0], command, os.environ | environment)
"""
FILE = "docker-compose.prod.yml"
Command = tuple[list[str], Mapping[str, str]]
DONE: Command = ["true"], {}


class Docker:
    """
    A `docker compose` for the production stack.

    `run` gets the arguments after the name of the file, and returns the command to execute in
    their place with additions to its environment. It starts and stops what stands for containers.
    """

    def __init__(self, directory: Path, run: Callable[[list[str]], Command]) -> None:
        self.run = run
        programs = directory / "bin"
        programs.mkdir()
        (programs / "docker").write_text(CLIENT)
        (programs / "docker").chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE_DOCKER": str(directory / "docker.socket"),
        }
        self.calls: list[list[str]] = []
        self.errors: list[Exception] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.environment["FAKE_DOCKER"])
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile() as lines:
                line = lines.readline()
                if not line:
                    return
                connection.sendall(json.dumps(self.reply(json.loads(line))).encode() + b"\n")

    def reply(self, arguments: list[str]) -> Command:
        try:
            compose, option, file, *rest = arguments
            assert (compose, file) == ("compose", FILE)
            assert option in {"-f", "--file"}
            self.calls.append(rest)
            return self.run(rest)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - raised at the end of the block
            self.errors.append(error)
            return ["false"], {}

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(self.environment["FAKE_DOCKER"])
        self.thread.join()
        self.listener.close()
        if self.errors:
            raise self.errors[0]
