"""The commands of docs/operations.md for the production stack, run on the host."""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.cluster import Cluster, superuser
from tests.deploy.contained import PRODUCTION, compose, lines
from tests.rig.docker import DONE, Command, Docker
from tests.rig.machine import ROOT

MANUAL = (ROOT / "docs/operations.md").read_text()
SUDO = '#!/bin/sh\nexec "$@"\n'


def blocks(heading: str) -> list[str]:
    """Return the blocks of shell commands in a section."""
    section = re.split(rf"^## {heading}$", MANUAL, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def execute(script: str, directory: Path, environment: dict[str, str]) -> None:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=directory, env=environment, check=False)
    assert done.returncode == 0


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_it_makes_secrets_and_settings_that_only_their_owner_can_read(tmp_path: Path) -> None:
    installation = blocks("Deploy with Docker Compose")[0]
    script = installation.partition("export VERSION")[0]
    before, chown, after = script.partition("sudo chown -R 10001:10001 secrets\n")

    execute(before + after, tmp_path, dict(os.environ))

    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()}
    assert files == dict.fromkeys(compose("docker-compose.prod.yml")["secrets"], 0o600)
    for name, mode in {"secrets": 0o700, "production.env": 0o600, "tls/key.pem": 0o600}.items():
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    assert lines((tmp_path / "production.env").read_text()) == PRODUCTION
    assert chown
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


def test_a_secret_is_accepted_before_it_signs_and_until_tokens_have_expired(
    tmp_path: Path,
) -> None:
    [script] = [block for block in blocks("Change a secret") if "FALLBACKS" in block]
    secret = tmp_path / "secrets/access_token_secret"
    secret.parent.mkdir()
    secret.write_text("old-secret\n")
    (tmp_path / "production.env").write_text("ALLOWED_HOSTS=api.example.com\n")
    write_program(tmp_path / "bin/sudo", SUDO)
    state = "cat secrets/access_token_secret production.env >> releases; echo - >> releases"
    write_program(tmp_path / "deploy/release", f"#!/bin/sh\n{state}\n")

    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    execute(script, tmp_path, environment)

    hosts, name = "ALLOWED_HOSTS=api.example.com", "ACCESS_TOKEN_SECRET_FALLBACKS"
    new = secret.read_text().strip()
    assert re.fullmatch(r"[\w-]{64}", new)
    assert (tmp_path / "releases").read_text().split("-\n") == [
        f"old-secret\n{hosts}\n{name}={new}\n",
        f"{new}\n{hosts}\n{name}=old-secret\n",
        f"{new}\n{hosts}\n",
        "",
    ]


def test_the_example_of_the_guide_to_scaling_is_computed_from_the_defaults() -> None:
    text = " ".join((ROOT / "docs/scaling.md").read_text().split())
    defaults = lines((ROOT / ".env.example").read_text())
    minutes, days = int(defaults["ACCESS_TOKEN_MINUTES"]), int(defaults["REFRESH_TOKEN_DAYS"])
    peak = 3 * 1_000_000 / 86_400

    refreshes = f"1,000,000 × 30 ÷ {minutes} ÷ 86,400 × 3 = {peak * 30 / minutes:.0f} refreshes"
    assert refreshes in text
    assert f"1,000,000 ÷ {days} ÷ 86,400 × 3 = {peak / days:.0f} logins per second" in text


class Restored:
    """The stack of a backup: its database is a cluster on this machine."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        service = compose("docker-compose.prod.yml")["services"]["database"]
        cluster.initialize(superuser(service), service["environment"]["POSTGRES_INITDB_ARGS"])
        cluster.environment |= {"POSTGRES_PASSWORD": "secret", "PGHOST": str(cluster.directory)}
        names = ("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET")
        self.service = {name: secrets.token_urlsafe(32) for name in names} | {
            "DEBUG": "true",
            "DATABASE_URL": f"postgres://latchkey:secret@/latchkey?host={cluster.directory}"
            f"&port={cluster.environment['PGPORT']}",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }

    def run(self, arguments: list[str]) -> Command:
        """Do what a call of Compose does with the containers."""
        if arguments[:3] == ["exec", "-T", "database"]:
            return [*self.cluster.user, *arguments[3:]], self.cluster.environment
        if arguments[:3] == ["exec", "-T", "web-a"]:
            return [sys.executable, str(ROOT / "manage.py"), *arguments[5:]], self.service
        assert arguments[0] in {"stop", "up"}
        return DONE

    def manage(self, *arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(command, cwd=ROOT, env=os.environ | self.service, check=True)

    def psql(self, statement: str, user: str = "postgres", database: str = "latchkey") -> str:
        options = ["-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-At", "--username", user]
        return self.cluster.run("psql", *options, "--dbname", database, "-c", statement)

    def rows(self) -> dict[str, str]:
        """Return a digest and the number of rows of each table."""
        tables = self.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split()
        digest = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)), count(*) FROM {} AS t"
        return {table: self.psql(digest.format(table)) for table in tables}


@pytest.mark.parametrize("extension_of", ["latchkey", "postgres"])
def test_a_restore_gives_every_row_back(
    extension_of: str, cluster: Cluster, tmp_path: Path
) -> None:
    """A database of a managed service has the extension from its superuser."""
    dump, empty, restore = blocks("Back up and restore")
    stack = Restored(cluster)
    write_program(tmp_path / "deploy/release", "#!/bin/sh\n")
    with cluster.serve(addresses=""), Docker(tmp_path, stack.run) as docker:
        script = str(ROOT / "deploy/database.sql")
        cluster.run("psql", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "--file", script)
        stack.manage("migrate", "--verbosity=0")
        stack.manage("seeddemo", "--users", "5", "--sessions", "30", "--events", "50")
        before = stack.rows()

        execute(dump, tmp_path, docker.environment)
        execute(empty, tmp_path, docker.environment)
        assert stack.rows() == {}
        stack.psql("CREATE EXTENSION pg_trgm", user=extension_of)
        execute(restore, tmp_path, docker.environment)

        assert stack.rows() == before
        assert before["accounts_event"].split("|")[1] == "50\n"
