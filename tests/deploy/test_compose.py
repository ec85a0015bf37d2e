"""The Compose files: consistent with each other, the documents, nginx and the service."""

import json
import re

import pytest

from tests.deploy.contained import (
    APP,
    FILES,
    PRODUCTION,
    compose,
    environment,
    lines,
    variables_of_example,
)
from tests.rig.machine import ROOT

# Variables of the shell that only Compose reads.
COMPOSE_ONLY = {"HTTPS_PORT", "VERSION", "REVISION"}
PGADMIN = {"PGADMIN_DEFAULT_EMAIL", "PGADMIN_DEFAULT_PASSWORD", "PGADMIN_PORT"}
# The variables of the service that docker-compose.prod.yml sets itself.
FIXED = {"SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET", "DB_PASSWORD", "EMAIL_URL"}
FIXED |= {"PORT", "METRICS_PORT", "TRUSTED_PROXY_COUNT"}
WEB = ("web-a", "web-b")


@pytest.mark.parametrize("name", FILES)
class TestVariables:
    def test_each_is_known(self, name: str) -> None:
        names = set(re.findall(r"\$\{(\w+)", (ROOT / name).read_text()))

        assert names - COMPOSE_ONLY <= variables_of_example()

    def test_each_is_resolved(self, name: str) -> None:
        assert "${" not in json.dumps(compose(name))

    def test_what_services_are_given_is_known(self, name: str) -> None:
        for service in compose(name)["services"].values():
            if "build" in service:
                names = {n.removesuffix("_FILE") for n in environment(service, {})}
                assert names <= variables_of_example()

    def test_what_depends_on_a_service_waits_for_it(self, name: str) -> None:
        services = compose(name)["services"]
        for service in services.values():
            for other, how in service.get("depends_on", {}).items():
                one_shot = services[other].get("restart") == "no"
                awaited = "completed_successfully" if one_shot else "healthy"
                assert how["condition"] == f"service_{awaited}"
                assert one_shot or "healthcheck" in services[other]


def documented_variables() -> set[str]:
    """Return the variables of README's table, and those of libpq that it names."""
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("| variable | default |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_every_documented_variable_reaches_production() -> None:
    documented = documented_variables()
    given = {name: f"value of {name}" for name in documented | {"PGSSLMODE", "PGSSLROOTCERT"}}
    services = compose("docker-compose.prod.yml")["services"]

    assert documented == variables_of_example() - PGADMIN
    for name in APP:
        reached = environment(services[name], given)
        assert {n for n, value in given.items() if reached.get(n) != value} - FIXED == set()


def test_the_environment_file_of_development_does_not_reach_production() -> None:
    """Compose reads a .env in the checkout too, whose DB_HOST is localhost."""
    example = lines((ROOT / ".env.example").read_text())

    services = compose("docker-compose.prod.yml", **example)["services"]

    assert services == compose("docker-compose.prod.yml")["services"]
    assert environment(services["web-a"], PRODUCTION)["DB_HOST"] == "database"


@pytest.mark.parametrize(
    ("variable", "default", "value", "name"),
    [
        (
            *("CORS_ALLOWED_ORIGINS", ""),
            *("https://app.example.com,https://www.example.com", "allowed_origins.conf"),
        ),
        ("REFRESH_COOKIE", "false", "true", "refresh_cookie.conf"),
    ],
)
def test_the_proxy_is_given_what_the_service_allows(
    variable: str, default: str, value: str, name: str
) -> None:
    services = compose("docker-compose.prod.yml")["services"]
    given, written_to = environment(services["proxy"], {variable: value}), "/run"
    [template] = [v.split(":")[:2] for v in services["proxy"]["volumes"] if name in v]

    # An undefined variable would not be replaced in the template.
    assert environment(services["proxy"], {})[variable] == default
    assert given[variable] == value
    assert given["NGINX_ENVSUBST_OUTPUT_DIR"] == written_to
    assert written_to in services["proxy"]["tmpfs"]
    assert f"${{{variable}}}" in (ROOT / template[0]).read_text()
    assert template[1] == f"/etc/nginx/templates/{name}.template"
    assert f"include {written_to}/{name}*;" in (ROOT / "deploy/nginx.conf").read_text()


def test_production_is_closed_bounded_and_comes_back() -> None:
    parsed = compose("docker-compose.prod.yml")
    services = parsed["services"]

    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert parsed["networks"]["inside"]["internal"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] == (name != "database")
    for name in APP:
        assert "cap_add" not in services[name]
        [volume] = services[name]["volumes"]
        source, target, mode = volume.split(":")
        assert (ROOT / source / "README.md").read_text().count(target) >= 2
        assert mode == "ro"
    for name in services.keys() - {"migrate"}:
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["deploy"]["resources"]["limits"]["memory"]


def test_a_machine_with_one_core_can_start_production() -> None:
    """Docker rejects a limit above the number of cores."""
    for service in compose("docker-compose.prod.yml")["services"].values():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        assert float(limits.get("cpus", 0)) <= 1


def test_clients_keep_their_ipv6_address() -> None:
    """Without IPv6 in its network, Docker relays them from the address of its gateway."""
    parsed = compose("docker-compose.prod.yml")
    nginx = (ROOT / "deploy/nginx.conf").read_text()

    assert parsed["services"]["proxy"]["networks"] == ["front"]
    assert parsed["networks"]["front"]["enable_ipv6"]
    assert "listen [::]:443 ssl;" in nginx
    # The instances listen on IPv4 only.
    assert re.search(r"resolver .* ipv6=off;", nginx)


def test_the_proxy_finds_both_instances_by_the_name_that_it_resolves() -> None:
    parsed = compose("docker-compose.prod.yml")
    [name] = re.findall(r"set \$service (\w+):3000;", (ROOT / "deploy/nginx.conf").read_text())

    for service in WEB:
        assert parsed["services"][service]["networks"]["front"] == {"aliases": [name]}
        assert parsed["services"][service]["environment"]["PORT"] == "3000"
    # A proxy that depends on an instance would be restarted with it.
    assert "depends_on" not in parsed["services"]["proxy"]


def test_only_what_serves_http_has_its_health_check() -> None:
    services = compose("docker-compose.prod.yml")["services"]

    assert {n for n in APP if "healthcheck" in services[n]} == set(WEB)
    assert "HEALTHCHECK" not in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_worker_sends_the_emails(name: str) -> None:
    service = compose(name)["services"]["mail"]

    assert service["command"] == ["python", "manage.py", "mailworker"]
    assert service["restart"] == "unless-stopped"
    assert "ports" not in service


def test_development_catches_every_email() -> None:
    services = compose("docker-compose.yml")["services"]

    assert environment(services["mail"], {})["EMAIL_URL"] == "smtp://mailpit:1025"
    assert services["mailpit"]["ports"] == ["127.0.0.1:8025:8025"]
