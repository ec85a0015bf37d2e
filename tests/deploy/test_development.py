"""The commands of docker-compose.yml, run on the host."""

import json
import os
import re
import secrets
import subprocess
from pathlib import Path

from tests.deploy.contained import (
    Image,
    Place,
    compose,
    lines,
    needs_containment,
)
from tests.rig.machine import ROOT, free_port
from tests.rig.postgres import Postgres
from tests.rig.redis import needs_redis

pytestmark = needs_containment
SECRETS = ("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET")


@needs_redis
class TestDevelopment:
    def test_secrets_are_written_once(self, image: Image) -> None:
        service = compose("docker-compose.yml")["services"]["configuration"]
        path = image.directory / ".env"
        try:
            image.run(service["command"], service["environment"], writable=True)
            first = path.read_text()
            image.run(service["command"], service["environment"], writable=True)
            assert path.read_text() == first
            assert re.search(r"^SECRET=.{43}$", first, re.MULTILINE)
        finally:
            path.unlink()

    def test_a_bad_env_file_stops_the_service_with_that_name(self, image: Image) -> None:
        """Compose prints the name of the service that failed, and its log has the faults."""
        services = compose("docker-compose.yml")["services"]
        service, path = services["configuration"], image.directory / ".env"
        path.write_text((ROOT / ".env.example").read_text())
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "writable": True}
        try:
            with image.start(service["command"], service["environment"], **pipe) as process:
                output, _ = process.communicate(timeout=60)
        finally:
            path.unlink()

        assert process.returncode == 1
        assert "The configuration has 3 faults" in output
        assert "SECRET is made of words that an attacker tries first" in output
        waits = services["migrate"]["depends_on"]["configuration"]
        assert waits == {"condition": "service_completed_successfully"}

    def test_a_copied_example_with_three_secrets_serves(
        self, image: Image, place: Place, tmp_path: Path
    ) -> None:
        secret = {name: secrets.token_urlsafe(32) for name in SECRETS}
        example = lines((ROOT / ".env.example").read_text()) | secret
        self.serve(image, place, tmp_path, example)

    def test_without_an_env_file_it_serves(
        self, image: Image, place: Place, tmp_path: Path
    ) -> None:
        self.serve(image, place, tmp_path, {})

    def serve(self, image: Image, place: Place, directory: Path, dotenv: dict[str, str]) -> None:
        """Start the services in order, as `docker compose up` does with this .env."""
        services = compose("docker-compose.yml", **dotenv)["services"]
        path = image.directory / ".env"
        if dotenv:
            path.write_text("".join(f"{name}={value}\n" for name, value in dotenv.items()))
        given = services["migrate"]["environment"]
        created = services["database"]["environment"]
        assert given == services["web"]["environment"]
        for variable in ("USER", "PASSWORD"):
            assert given[f"DB_{variable}"] == created[f"POSTGRES_{variable}"]
        assert given["DB_NAME"] == created["POSTGRES_DB"]
        place.empty_database("development")
        given |= {"DB_USER": "latchkey", "DB_PASSWORD": Postgres.PASSWORD}
        variables = place.localize(given, "database", "cache")
        try:
            image.run(services["configuration"]["command"], variables, writable=True)
            path.chmod(0o644)  # In a container it is the user's own.
            image.run(services["migrate"]["command"], variables)
            variables["PORT"] = str(free_port())
            with image.serve(services["web"]["command"], variables, directory / "log") as server:
                response, body = server.request("GET", "/health/ready")
                assert (response.status, b"degraded" in body) == (200, False)
        finally:
            path.unlink()

    def test_ports_and_pgadmin_follow_the_env_file(self) -> None:
        dotenv = {"PORT": "4000", "DB_PORT": "6000", "PGADMIN_PORT": "7000"}
        dotenv |= {"PGADMIN_DEFAULT_EMAIL": "me@example.com", "PGADMIN_DEFAULT_PASSWORD": "mine"}
        services = compose("docker-compose.yml", **dotenv)["services"]

        assert services["web"]["ports"] == ["127.0.0.1:4000:4000"]
        assert services["web"]["environment"]["PORT"] == "4000"
        assert services["database"]["ports"] == ["127.0.0.1:6000:5432"]
        assert services["pgadmin"]["ports"] == ["127.0.0.1:7000:80"]
        for name in ("PGADMIN_DEFAULT_EMAIL", "PGADMIN_DEFAULT_PASSWORD"):
            assert services["pgadmin"]["environment"][name] == dotenv[name]

    def test_commands_run_as_the_owner_of_the_checkout(self, tmp_path: Path) -> None:
        services = compose("docker-compose.yml")["services"]
        if os.geteuid() == 0:
            os.chown(tmp_path, 1234, 4321)
        owner = tmp_path.stat()
        for service in services.values():
            if "build" in service:
                assert service["user"] == "root"
                command = [*service["entrypoint"], "sh", "-c", "echo $(id -u) $(id -g) $0", "a b"]
                done = subprocess.run(
                    command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
                )
                assert done.stdout == f"{owner.st_uid} {owner.st_gid} a b\n"

    def test_pgadmin_knows_the_database(self) -> None:
        parsed = compose("docker-compose.yml")
        [server] = json.loads(parsed["configs"]["pgadmin_servers"]["content"])["Servers"].values()
        given = parsed["services"]["database"]["environment"]

        assert server["Name"] == "latchkey"
        assert server["Host"] in parsed["services"]
        assert server["Username"] == given["POSTGRES_USER"]
        assert server["MaintenanceDB"] == given["POSTGRES_DB"]
