"""Every command of the Dockerfile and of both Compose files, run on the host."""

import contextlib
import json
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.database import embedded
from tests.deploy.contained import Image, Place, compose, variables_of_example
from tests.rig.machine import ROOT, free_port
from tests.rig.postgres import Postgres
from tests.rig.redis import needs_redis

PRODUCTION = {"ALLOWED_HOSTS": "localhost,127.0.0.1"}
# Variables that only Compose or libpq reads.
COMPOSE_ONLY = {"UID", "GID", "PGADMIN_PORT", "HTTPS_PORT", "VERSION", "REVISION", "WEB_CPUS"}
COMPOSE_ONLY |= {"PGSSLMODE"}


class Cluster:
    """A PostgreSQL that is created as in the entry point of its image."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
        programs = {"PATH": f"{embedded.programs()}:{os.environ['PATH']}"}
        self.environment = os.environ | programs | {"PGPORT": str(free_port())}
        self.environment["PGDATA"] = str(self.data)

    def initialize(self, user: str, arguments: str) -> str:
        return self.run("initdb", "--no-sync", "--username", user, *arguments.split())

    def run(self, *command: str) -> str:
        """Return the output of a command, which must succeed."""
        result = subprocess.run(
            [*self.user, *command],
            env=self.environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def exit_code(self, *command: str) -> int:
        return subprocess.run([*self.user, *command], env=self.environment, check=False).returncode

    @contextlib.contextmanager
    def serve(self, *, addresses: str) -> Iterator[None]:
        options = f"-c listen_addresses={addresses} -k {self.directory}"
        command = ["pg_ctl", "--wait", f"--log={self.directory}/log", f"--options={options}"]
        subprocess.run([*self.user, *command, "start"], env=self.environment, check=True)
        try:
            yield
        finally:
            self.run("pg_ctl", "--wait", "--mode=fast", "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Cluster(Path(directory))


@pytest.fixture
def secret_files(image: Image) -> dict[str, str]:
    """Provide the secrets as Compose does: as files whose paths are in variables."""
    directory = image.directory.parent / f"{image.directory.name}-secrets"
    directory.mkdir(exist_ok=True)
    names = compose("docker-compose.prod.yml", **PRODUCTION)["secrets"]
    for name in names:
        secret = {"db_password": Postgres.PASSWORD, "email_url": "none"}.get(
            name, secrets.token_urlsafe(48)
        )
        (directory / name).write_text(f"{secret}\n")
    return {f"/run/secrets/{name}": str(directory / name) for name in names}


def environment(service: dict[str, Any], files: dict[str, str]) -> dict[str, str]:
    return {name: files.get(value, value) for name, value in service["environment"].items()}


class TestImage:
    def test_it_holds_the_service_and_nothing_else(self, image: Image) -> None:
        files = {str(path.relative_to(image.directory)) for path in image.directory.rglob("*")}

        assert {"manage.py", "gunicorn.conf.py", "staticfiles/console/console.css"} <= files
        outside = {name for name in files if re.search(r"(^|/)(\.env|\.git|tests/|conftest)", name)}
        assert not outside
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


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.prod.yml"])
class TestVariables:
    def test_each_is_known(self, name: str) -> None:
        names = set(re.findall(r"\$\{(\w+)", (ROOT / name).read_text()))

        assert names - COMPOSE_ONLY <= variables_of_example()

    def test_each_is_resolved(self, name: str) -> None:
        assert "${" not in json.dumps(compose(name, **PRODUCTION))

    def test_what_services_are_given_is_known(self, name: str) -> None:
        for service in compose(name, **PRODUCTION)["services"].values():
            if "latchkey" in str(service.get("image", "latchkey")):
                names = {n.removesuffix("_FILE") for n in service.get("environment", {})}
                assert names - COMPOSE_ONLY <= variables_of_example()

    def test_what_depends_on_a_service_waits_for_it(self, name: str) -> None:
        services = compose(name, **PRODUCTION)["services"]
        for service in services.values():
            for other, how in service.get("depends_on", {}).items():
                one_shot = services[other].get("restart") == "no"
                awaited = "completed_successfully" if one_shot else "healthy"
                assert how["condition"] == f"service_{awaited}"
                # The image of the service itself has a health check.
                assert one_shot or other == "web" or "healthcheck" in services[other]


def test_production_does_not_start_without_knowing_its_hosts() -> None:
    with pytest.raises(KeyError, match="ALLOWED_HOSTS"):
        compose("docker-compose.prod.yml")


def test_the_proxy_is_given_the_origins_that_the_service_allows() -> None:
    origins = "https://app.example.com,https://www.example.com"
    variables = PRODUCTION | {"CORS_ALLOWED_ORIGINS": origins}
    services = compose("docker-compose.prod.yml", **variables)["services"]
    given, written_to = services["proxy"]["environment"], "/run"
    [template] = [v.split(":")[:2] for v in services["proxy"]["volumes"] if "origins" in v]

    assert given["CORS_ALLOWED_ORIGINS"] == services["web"]["environment"]["CORS_ALLOWED_ORIGINS"]
    assert given["CORS_ALLOWED_ORIGINS"] == origins
    assert given["NGINX_ENVSUBST_OUTPUT_DIR"] == written_to
    assert written_to in services["proxy"]["tmpfs"]
    assert (ROOT / template[0]).exists()
    assert template[1] == "/etc/nginx/templates/allowed_origins.conf.template"
    assert f"include {written_to}/allowed_origins.conf" in (ROOT / "deploy/nginx.conf").read_text()


def test_production_is_closed_bounded_and_comes_back() -> None:
    services = compose("docker-compose.prod.yml", **PRODUCTION)["services"]

    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    for name in ("migrate", "web", "prune", "mail"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert "volumes" not in services[name]
    for name in ("web", "prune", "mail", "proxy", "database", "cache"):
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["deploy"]["resources"]["limits"]["memory"]


@needs_redis
class TestDevelopment:
    def test_secrets_are_written_once(self, image: Image) -> None:
        command = compose("docker-compose.yml")["services"]["secrets"]["command"]
        path = image.directory / ".env"
        try:
            image.run(command, {}, writable=True)
            first = path.read_text()
            image.run(command, {}, writable=True)
            assert path.read_text() == first
            assert re.search(r"^SECRET=.{43}$", first, re.MULTILINE)
        finally:
            path.unlink()

    def test_it_migrates_and_serves(self, image: Image, place: Place, tmp_path: Path) -> None:
        services = compose("docker-compose.yml")["services"]
        place.empty_database("development")
        path = image.directory / ".env"
        image.run(services["secrets"]["command"], {}, writable=True)
        path.chmod(0o644)  # In a container it is the user's own.
        try:
            variables = place.localize(services["migrate"]["environment"], "database", "cache")
            image.run(services["migrate"]["command"], variables)
            variables = place.localize(services["web"]["environment"], "database", "cache")
            variables["PORT"] = str(free_port())
            with image.serve(services["web"]["command"], variables, tmp_path / "log") as server:
                response, body = server.request("GET", "/health/ready")
                assert (response.status, b"degraded" in body) == (200, False)
                assert image.is_healthy(variables)
            assert not image.is_healthy(variables)
        finally:
            path.unlink()

    def test_pgadmin_knows_the_database(self) -> None:
        parsed = compose("docker-compose.yml")
        [server] = json.loads(parsed["configs"]["pgadmin_servers"]["content"])["Servers"].values()
        given = parsed["services"]["database"]["environment"]

        assert server["Host"] in parsed["services"]
        assert server["Username"] == given["POSTGRES_USER"]
        assert server["MaintenanceDB"] == given["POSTGRES_DB"]


def test_the_manual_makes_secrets_that_only_their_owner_can_read(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    script = manual[manual.index("umask 077") : manual.index("sudo chown -R 10001:10001 secrets")]

    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True)

    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()}
    assert files == dict.fromkeys(
        compose("docker-compose.prod.yml", **PRODUCTION)["secrets"], 0o600
    )
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


@needs_redis
class TestProduction:
    def test_it_migrates_serves_and_prunes_on_a_root_that_is_read_only(
        self, image: Image, place: Place, secret_files: dict[str, str], tmp_path: Path
    ) -> None:
        services = compose("docker-compose.prod.yml", **PRODUCTION)["services"]
        place.empty_database("production")
        variables = {
            name: place.localize(environment(services[name], secret_files), "database", "cache")
            for name in ("migrate", "web", "prune")
        }

        image.run(services["migrate"]["command"], variables["migrate"])
        web = {**variables["web"], "PORT": str(free_port()), "METRICS_PORT": str(free_port())}
        command = json.loads(image.step("CMD"))
        with image.serve(command, web, tmp_path / "log") as server:
            forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
            response, body = server.request("GET", "/health/ready", **forwarded)
            assert (response.status, b"degraded" in body) == (200, False)
            assert image.is_healthy(web)
            page, _ = server.request("GET", "/admin/login/", **forwarded)
            assert page.status == 200
            assert server.request("GET", "/static/console/console.css")[0].status == 200
            server.port = int(web["METRICS_PORT"])
            assert b"latchkey_check_ok" in server.request("GET", "/metrics")[1]

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

    def test_a_shell_into_the_database(self, image: Image, place: Place) -> None:
        """What `manage.py dbshell` starts is psql, which the image has from Debian."""
        variables = {
            "DEBUG": "true",
            "DATABASE_URL": place.postgres.url,
            **{n: secrets.token_urlsafe(32) for n in ("SECRET", "ACCESS_TOKEN_SECRET")},
            "REFRESH_TOKEN_SECRET": secrets.token_urlsafe(32),
            "PATH": f"{image.environment['PATH']}:{embedded.programs()}",
        }
        command = ["python", "manage.py", "dbshell", "--", "-c", "SELECT 6 * 7 AS response"]

        assert "postgresql-client" in (ROOT / "Dockerfile").read_text()
        assert "42" in image.run(command, variables)


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.prod.yml"])
class TestDatabase:
    def test_initdb_accepts_the_arguments(self, name: str, cluster: Cluster) -> None:
        given = compose(name, **PRODUCTION)["services"]["database"]["environment"]

        output = cluster.initialize(given["POSTGRES_USER"], given["POSTGRES_INITDB_ARGS"])

        assert "locale provider:   builtin" in output
        assert "default collation: C.UTF-8" in output

    def test_the_health_check_passes_only_once_tcp_is_served(
        self, name: str, cluster: Cluster
    ) -> None:
        """On an empty volume the image starts a server on its socket alone, then restarts it."""
        database = compose(name, **PRODUCTION)["services"]["database"]
        given, [kind, *check] = database["environment"], database["healthcheck"]["test"]
        cluster.initialize(given["POSTGRES_USER"], given["POSTGRES_INITDB_ARGS"])

        assert kind == "CMD"
        with cluster.serve(addresses=""):
            assert cluster.exit_code(check[0], "--host", str(cluster.directory)) == 0
            assert cluster.exit_code(*check) == 2  # no response
        with cluster.serve(addresses="127.0.0.1"):
            assert cluster.exit_code(*check) == 0


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.prod.yml"])
def test_only_what_serves_http_has_the_health_check_of_the_image(name: str) -> None:
    services = compose(name, **PRODUCTION)["services"]
    of_the_image = {n for n, s in services.items() if "build" in s}
    checked = {n for n in of_the_image if not services[n].get("healthcheck", {}).get("disable")}

    assert of_the_image > {"web"}
    assert checked == {"web"}
