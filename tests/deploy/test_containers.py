"""The commands of the Dockerfile and of docker-compose.prod.yml, run on the host."""

import json
import re
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.contained import (
    PRODUCTION,
    Image,
    Place,
    compose,
    environment,
    needs_containment,
    variables_of_example,
)
from tests.rig.machine import ROOT, free_port
from tests.rig.postgres import Postgres
from tests.rig.redis import needs_redis

pytestmark = needs_containment


@pytest.fixture
def secret_files(image: Image) -> dict[str, str]:
    """Provide the secrets as Compose does: as files whose paths are in variables."""
    directory = image.directory.parent / f"{image.directory.name}-secrets"
    directory.mkdir(exist_ok=True)
    names = compose("docker-compose.prod.yml")["secrets"]
    for name in names:
        secret = {"db_password": Postgres.PASSWORD, "email_url": "none"}.get(
            name, secrets.token_urlsafe(48)
        )
        (directory / name).write_text(f"{secret}\n")
    return {f"/run/secrets/{name}": str(directory / name) for name in names}


def with_files(service: dict[str, Any], files: dict[str, str]) -> dict[str, str]:
    """Return the environment of a service, with the paths of the secrets on this machine."""
    return {name: files.get(v, v) for name, v in environment(service, PRODUCTION).items()}


def documented_doctor() -> str:
    """Return the command that the manual runs in a container at the end of an installation."""
    manual = (ROOT / "docs/operations.md").read_text()
    [command] = re.findall(r"exec web-a (python manage.py doctor --url .*)", manual)
    return str(command)


class TestImage:
    def test_it_holds_the_service_and_nothing_else(self, image: Image) -> None:
        files = {str(path.relative_to(image.directory)) for path in image.directory.rglob("*")}

        assert {"manage.py", "gunicorn.conf.py", "console/static/console/console.css"} <= files
        outside = re.compile(r"(^|/)(\.env|\.git|tests/|conftest|examples/|docs/)")
        assert not [name for name in files if outside.search(name)]
        # The image contains compiled bytecode, because its file system is read-only.
        assert any("config/__pycache__/settings.cpython" in name for name in files)

    def test_it_names_the_source_of_its_build(self, image: Image) -> None:
        text = (ROOT / "Dockerfile").read_text()

        assert "ARG VERSION" in text
        assert "LATCHKEY_VERSION=$VERSION LATCHKEY_REVISION=$REVISION" in text
        assert {"LATCHKEY_VERSION", "LATCHKEY_REVISION"} <= variables_of_example()

    def test_it_does_not_start_with_the_secrets_of_the_example(
        self, image: Image, place: Place
    ) -> None:
        example = dict(
            line.split("=", 1)
            for line in (ROOT / ".env.example").read_text().splitlines()
            if re.match(r"[A-Z_]+=.", line)
        )
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with image.start(["gunicorn"], example, **pipe) as process:
            output, _ = process.communicate(timeout=30)

        assert process.returncode == 1
        assert "SECRET is made of words that an attacker tries first" in output


@needs_redis
class TestProduction:
    def test_it_migrates_serves_and_prunes_on_a_root_that_is_read_only(
        self, image: Image, place: Place, secret_files: dict[str, str], tmp_path: Path
    ) -> None:
        services = compose("docker-compose.prod.yml")["services"]
        place.empty_database("production")
        variables = {
            name: place.localize(with_files(services[name], secret_files), "database", "cache")
            for name in ("migrate", "web-a", "prune")
        }

        image.run(services["migrate"]["command"], variables["migrate"])
        ports = {"PORT": str(free_port()), "METRICS_PORT": str(free_port())}
        web = {**variables["web-a"], **ports}
        check = services["web-a"]["healthcheck"]["test"]
        command = json.loads(image.step("CMD"))
        with image.serve(command, web, tmp_path / "log") as server:
            forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
            forwarded |= {"Host": PRODUCTION["ALLOWED_HOSTS"]}
            response, body = server.request("GET", "/health/ready", **forwarded)
            assert (response.status, b"degraded" in body) == (200, False)
            assert image.is_healthy(check, web)
            page, _ = server.request("GET", "/admin/login/", **forwarded)
            assert page.status == 200
            style, _ = server.request("GET", "/static/console/console.css", **forwarded)
            assert style.status == 200
            doctor = documented_doctor().replace(":3000", f":{server.port}")
            assert "All checks passed" in image.run(doctor.split(), web)
            server.port = int(web["METRICS_PORT"])
            assert b"latchkey_check_ok" in server.request("GET", "/metrics")[1]
        assert not image.is_healthy(check, web)

        log = tmp_path / "prune"
        with log.open("w") as out:
            prune = image.start(services["prune"]["command"], variables["prune"], stdout=out)
        for _ in range(200):
            if "event(s) deleted" in log.read_text():
                break
            time.sleep(0.1)
        subprocess.run(["pkill", "-P", str(prune.pid)], check=False)
        prune.kill()
        prune.wait()
        assert "0 session(s) deleted" in log.read_text()
