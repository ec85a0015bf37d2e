"""deploy/release replaces the instances one by one, behind the shipped proxy and under load."""

import contextlib
import itertools
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client
from tests.rig.docker import DONE, Command, Docker
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.load import Load
from tests.rig.machine import ROOT, free_port, wait_until
from tests.rig.names import Names
from tests.rig.nginx import certify, needs_proxy, proxy
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

ADDRESSES = {"web-a": "127.0.0.2", "web-b": "127.0.0.3"}
SERVICES = yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text())["services"]
pytestmark = [needs_proxy, needs_redis]


class Stack:
    """The instances of the production stack as processes, with one port at different addresses."""

    def __init__(self, directory: Path, names: Names, **variables: str) -> None:
        self.directory, self.names, self.variables = directory, names, variables
        self.port = free_port()
        self.running: dict[str, contextlib.ExitStack] = {}
        self.logs = itertools.count()
        self.version = "1"
        self.proxy_pid = 0

    def run(self, arguments: list[str]) -> Command:
        """Do what a call of Compose does with the containers."""
        verb, service = arguments[0], arguments[-1]
        if verb == "up" and service in ADDRESSES:
            assert {"--no-deps", "--force-recreate", "--wait"} <= set(arguments)
            self.replace(service)
        elif verb == "run":
            return [sys.executable, "manage.py", "migrate", "--verbosity=0"], self.variables
        elif verb == "exec":
            assert arguments[1:-1] == ["-T", "proxy", "sh", "-c"]
            return ["sh", "-c", self.in_proxy(arguments[-1])], {}
        return DONE

    def in_proxy(self, script: str) -> str:
        """Return a script of the proxy's container for the proxy of this test."""
        for there, here in {
            "/etc/latchkey/": f"{self.directory}/",
            "/etc/nginx/tls/": f"{self.directory}/",
            "/run/nginx.pid": f"{self.directory}/nginx.pid",
            "-HUP 1": f"-HUP {self.proxy_pid}",
        }.items():
            assert there in script
            script = script.replace(there, here)
        return script

    def replace(self, service: str) -> None:
        """Stop an instance, start the new one and wait until it is healthy."""
        self.stop(service)
        stack, address = contextlib.ExitStack(), ADDRESSES[service]
        self.running[service] = stack
        # Docker has the name before the process listens, and until the container has exited.
        self.names.addresses.append(address)
        stack.callback(self.names.addresses.remove, address)
        log = self.directory / f"log-{next(self.logs)}"
        given = {"HOST": address, "PORT": str(self.port), "LATCHKEY_VERSION": self.version}
        stack.enter_context(serve(log, **self.variables, **given))
        assert wait_until(lambda: self.is_healthy(service), seconds=30) < 30, log.read_text()

    def is_healthy(self, service: str) -> bool:
        """Run the health check of the Compose file at the address of the instance."""
        kind, *check = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        check = [part.replace("$$", "$").replace("127.0.0.1", ADDRESSES[service]) for part in check]
        environment = os.environ | {"PORT": str(self.port)}
        pipe = subprocess.DEVNULL
        return subprocess.run(check, env=environment, check=False, stderr=pipe).returncode == 0

    def stop(self, service: str) -> None:
        self.running.pop(service, contextlib.ExitStack()).close()


@pytest.fixture
def stack(postgres: Postgres, redis: Redis, tmp_path: Path) -> Iterator[Stack]:
    variables = NO_LIMITS | {
        "DATABASE_URL": postgres.url,
        "CACHE_URL": redis.url,
        "TRUSTED_PROXY_COUNT": "1",
        "DJANGO_SETTINGS_MODULE": "tests.rig.settings",
    }
    with Names() as names:
        stack = Stack(tmp_path, names, **variables)
        yield stack
        for service in list(stack.running):
            stack.stop(service)


@pytest.fixture
def port(stack: Stack, tmp_path: Path) -> Iterator[int]:
    """The port of the proxy, which finds the instances by their name."""
    shipped = {
        "set $service instances;": f"set $service web:{stack.port};",
        "resolver 127.0.0.11": f"resolver 127.0.0.1:{stack.names.port}",
    }
    with proxy(tmp_path, free_port(), changes=shipped) as port:
        stack.proxy_pid = int((tmp_path / "nginx.pid").read_text())
        yield port


def release(docker: Docker) -> None:
    command = [str(ROOT / "deploy/release")]
    done = subprocess.run(command, env=docker.environment, check=False)
    assert done.returncode == 0


def use(client: Client) -> list[tuple[str, int]]:
    return [
        ("me", client.get(f"{API}/users/me").status),
        ("list", client.get(f"{API}/articles").status),
        ("create", client.post(f"{API}/articles", {"title": "x", "amount": 1}).status),
        ("refresh", client.refresh().status),
    ]


@pytest.mark.parametrize("requests", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_an_upgrade_and_a_rollback_lose_nothing(
    requests: int, stack: Stack, port: int, tmp_path: Path, figure: Figure
) -> None:
    with Docker(tmp_path, stack.run) as docker:
        release(docker)
        clients = [Client(port, tls=True).sign_in() for _ in range(4)]
        releases = 0
        with Load(*[lambda c=c: use(c) for c in clients]) as load:
            for version in itertools.cycle(["2", "1"]):
                stack.version = version
                release(docker)
                releases += 1
                if releases >= 2 and 4 * len(load.results) >= requests:
                    break
    versions = {Client(port, tls=True).get("/health").json["version"] for _ in range(20)}

    results = [result for results in load.results for result in results]
    lost = [result for result in results if result[1] not in {200, 201}]
    assert versions == {"1"}
    assert len(results) >= requests
    figure(
        f"{releases} upgrades and rollbacks by deploy/release: requests lost",
        demanded=f"0 of {requests:,}",
        measured=f"{len(lost)} of {len(results):,} {lost or ''}".rstrip(),
        met=not lost,
    )


def test_a_release_that_does_not_become_healthy_leaves_the_other_instance(
    stack: Stack, port: int, tmp_path: Path
) -> None:
    def fail_for_web_a(arguments: list[str]) -> Command:
        if broken and arguments[-1] == "web-a":
            stack.stop("web-a")
            return ["false"], {}
        return stack.run(arguments)

    broken: list[str] = []
    with Docker(tmp_path, fail_for_web_a) as docker:
        release(docker)
        broken.append("the new image")
        command = [str(ROOT / "deploy/release")]
        done = subprocess.run(command, env=docker.environment, check=False)
    statuses = {Client(port, tls=True).get("/health/ready").status for _ in range(20)}

    assert done.returncode == 1
    assert docker.calls[-1][-1] == "web-a"
    assert statuses == {200}


def test_a_release_loads_a_changed_configuration_and_certificate_of_the_proxy(
    stack: Stack, port: int, tmp_path: Path
) -> None:
    def offered() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    def limit() -> int:
        return Client(port, tls=True).send("POST", "/", b"x" * 1000).status

    with Docker(tmp_path, stack.run) as docker:
        release(docker)
        before = offered(), limit()
        time.sleep(1)
        certify(tmp_path)
        conf = tmp_path / "nginx.conf"
        conf.write_text(conf.read_text().replace("max_body_size 2m", "max_body_size 10"))
        release(docker)
        assert wait_until(lambda: offered() != before[0], seconds=5) < 5

    assert before[1] != 413
    assert limit() == 413


def test_the_script_names_services_of_the_file() -> None:
    text = (ROOT / "deploy/release").read_text()
    named = {
        word
        for line in re.findall(r"^\t?(?:compose|for service in) (.*)", text, re.MULTILINE)
        for word in re.findall(r"(?<![\w-])[a-z][a-z-]*(?![\w-])", line)
    }

    assert SERVICES.keys() <= named
