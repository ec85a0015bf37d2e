"""
What a container engine would do, done on the host, as far as Linux lets us.

The image is a directory with what the Dockerfile copies; its commands run on a root that is
read-only, with just the environment that they would have. Names of other services are replaced by
where these stand here.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.gunicorn import Server
from tests.rig.machine import ROOT, free_port, wait_for
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis

FILES = ["docker-compose.yml", "docker-compose.prod.yml"]
PRODUCTION = {"ALLOWED_HOSTS": "api.example.com"}
APP = ("migrate", "web-a", "web-b", "prune", "mail")  # the services of production with our image
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# A mount namespace with a read-only root, except for a replacement of /tmp (which may contain the
# checkout), and only the capability to enter the database's directory. The user is unchanged,
# because other users may not have access to Python.
CONTAIN = """
mount --make-rprivate / && mount --bind / / && mount -o remount,bind,ro / \
    && mount -t tmpfs tmpfs "$TMPDIR" && cd "$0" \
    && exec setpriv --bounding-set=-all,+dac_override --no-new-privs "$@"
"""


def can_contain() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def context(directory: Path) -> Iterator[Path]:
    """Yield the files of the build context: the last pattern that matches a path decides."""
    text = (ROOT / ".dockerignore").read_text()
    patterns = [line for line in text.splitlines() if line and not line.startswith("#")]
    rules = [(pattern[:1] != "!", expression(pattern.removeprefix("!"))) for pattern in patterns]
    last = max(number for number, (excludes, _) in enumerate(rules) if not excludes)
    for parent, directories, names in os.walk(directory):
        place = Path(parent).relative_to(ROOT)
        # No later pattern can include the files of these directories.
        directories[:] = [
            name for name in directories if not is_excluded(place / name, rules[last + 1 :])
        ]
        yield from (ROOT / place / name for name in names if not is_excluded(place / name, rules))


def expression(pattern: str) -> re.Pattern[str]:
    """Translate a pattern, which matches a path and everything below it."""
    translated = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{translated}(?:/.*)?")


def is_excluded(path: Path, rules: list[tuple[bool, re.Pattern[str]]]) -> bool:
    matching = [excludes for excludes, rule in rules if rule.fullmatch(str(path))]
    return bool(matching) and matching[-1]


class Image:
    """The files, the environment and the commands of the Dockerfile's last stage."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
        self.steps = [line.partition(" ")[::2] for line in text.splitlines() if line[:1].isupper()]
        last = max(n for n, (step, _) in enumerate(self.steps) if step == "FROM")
        self.steps = self.steps[last:]
        (directory / "tmp").mkdir()
        self.environment = {
            "TMPDIR": str(directory / "tmp"),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            **dict(pair.split("=", 1) for pair in shlex.split(self.step("ENV"))),
        }
        for arguments in (shlex.split(a) for step, a in self.steps if step == "COPY"):
            for source in arguments[:-1]:
                self.copy(ROOT / source, directory / arguments[-1])
        [build] = [a for step, a in self.steps if step == "RUN" and "compileall" in a]
        subprocess.run(["sh", "-c", build], cwd=directory, env=self.environment, check=True)
        directory.chmod(0o755)

    def step(self, name: str) -> str:
        return next(arguments for step, arguments in self.steps if step == name)

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file or a directory, without the files that .dockerignore excludes."""
        files = [source] if source.is_file() else context(source)
        for file in files:
            copy = target / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)

    def start(
        self,
        command: list[str],
        environment: Mapping[str, str],
        *,
        writable: bool = False,
        **io: Any,
    ) -> "subprocess.Popen[str]":
        contained = ["unshare", "--mount", "sh", "-c", CONTAIN, str(self.directory)]
        return subprocess.Popen(
            ([] if writable else contained) + command,
            cwd=self.directory,
            env={**self.environment, **environment},
            text=True,
            **io,
        )

    def run(self, command: list[str], environment: Mapping[str, str], **options: Any) -> str:
        """Return the output of a command, which must succeed."""
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with self.start(command, environment, **options, **pipe) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    def is_healthy(self, test: list[str], environment: Mapping[str, str]) -> bool:
        """Run the health check of a service of a Compose file."""
        kind, *command = test
        assert kind == "CMD"
        with self.start(command, environment, stderr=subprocess.DEVNULL) as process:
            return process.wait(timeout=20) == 0

    @contextlib.contextmanager
    def serve(
        self, command: list[str], environment: Mapping[str, str], log: Path, **options: Any
    ) -> Iterator[Server]:
        """Run a server as a container and stop it with SIGTERM."""
        environment = {"PORT": str(free_port()), **environment}
        with log.open("w") as out:
            process = self.start(command, environment, stdout=out, stderr=out, **options)
        try:
            wait_for(int(environment["PORT"]), log)
            time.sleep(0.5)  # The master listens before a worker can response.
            yield Server(int(environment["PORT"]), process)
        finally:
            process.terminate()
            assert process.wait(timeout=40) == 0, log.read_text()


class Place:
    """The addresses of a container's neighbours on this machine."""

    def __init__(self, postgres: Postgres, redis: Redis) -> None:
        self.postgres = postgres
        self.redis = redis
        self.name = "latchkey"

    def empty_database(self, name: str) -> None:
        self.postgres.execute(f"DROP DATABASE IF EXISTS {name}")
        self.postgres.execute(
            f"CREATE DATABASE {name} OWNER latchkey TEMPLATE template0 ENCODING 'UTF8'"
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
        )
        self.name = name

    def localize(self, environment: Mapping[str, str], *hosts: str) -> dict[str, str]:
        """Replace the names of the database and the cache, which must be present."""
        database, cache = hosts
        text = json.dumps({name: str(value) for name, value in environment.items()})
        assert database in text
        assert f"redis://{cache}:6379/0" in text
        text = text.replace(f"redis://{cache}:6379/0", self.redis.url)
        text = re.sub(
            rf"postgres://[^@]+@{database}:5432/latchkey", self.postgres.url_of(self.name), text
        )
        found: dict[str, str] = json.loads(text)
        if found.get("DB_HOST") == database:
            found |= {"DB_HOST": str(self.postgres.host), "DB_NAME": self.name}
        return found


def compose(name: str, **variables: str) -> dict[str, Any]:
    """Read a Compose file with the variables of a shell, or of .env, resolved."""

    def resolve(match: re.Match[str]) -> str:
        variable, default = match.groups()
        return variables.get(variable) or default or ""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: walk(value) for name, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return VARIABLE.sub(resolve, node).replace("$$", "$") if isinstance(node, str) else node

    resolved: dict[str, Any] = walk(yaml.safe_load((ROOT / name).read_text()))
    return resolved


def environment(service: dict[str, Any], production: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container; `production` stands for production.env."""
    names, found = service.get("env_file", []), dict[str, str]()
    for name in names:
        found |= production if name == "production.env" else lines((ROOT / name).read_text())
    return found | {name: str(value) for name, value in service.get("environment", {}).items()}


def lines(text: str) -> dict[str, str]:
    """Return the variables of a file with lines NAME=value."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


def manifests() -> dict[str, dict[str, Any]]:
    """Read the manifests for Kubernetes, by the names of their files."""
    directory = ROOT / "deploy/kubernetes"
    return {
        path.name: yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.yaml"))
    }


def variables_of_example() -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


needs_containment = pytest.mark.skipif(
    not can_contain(), reason="unshare is not permitted, so the root would not be read-only"
)
