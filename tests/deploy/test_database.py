"""The database of both Compose files, created as by the entry point of its image."""

import pytest

from tests.deploy.cluster import Cluster, superuser
from tests.deploy.contained import FILES, compose, environment
from tests.rig.machine import ROOT


@pytest.mark.parametrize("name", FILES)
class TestDatabase:
    def test_initdb_accepts_the_arguments(self, name: str, cluster: Cluster) -> None:
        service = compose(name)["services"]["database"]

        output = cluster.initialize(
            superuser(service), service["environment"]["POSTGRES_INITDB_ARGS"]
        )

        assert "locale provider:   builtin" in output
        assert "default collation: C.UTF-8" in output

    def test_the_health_check_passes_only_once_tcp_is_served(
        self, name: str, cluster: Cluster
    ) -> None:
        """On an empty volume the image starts a server on its socket alone, then restarts it."""
        database = compose(name)["services"]["database"]
        [kind, *check] = database["healthcheck"]["test"]
        cluster.initialize(superuser(database), database["environment"]["POSTGRES_INITDB_ARGS"])

        assert kind == "CMD"
        with cluster.serve(addresses=""):
            assert cluster.exit_code(check[0], "--host", str(cluster.directory)) == 0
            assert cluster.exit_code(*check) == 2  # no response
        with cluster.serve(addresses="127.0.0.1"):
            assert cluster.exit_code(*check) == 0


def test_the_role_of_the_service_owns_its_database_and_is_no_superuser(cluster: Cluster) -> None:
    service = compose("docker-compose.prod.yml")["services"]["database"]
    [script] = [v.split(":") for v in service["volumes"] if "initdb" in v]
    cluster.initialize(superuser(service), service["environment"]["POSTGRES_INITDB_ARGS"])
    cluster.environment |= {"POSTGRES_PASSWORD": "p'ass", "PGHOST": str(cluster.directory)}
    psql = ["psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-At", "--username", "postgres"]

    with cluster.serve(addresses=""):
        cluster.run(*psql, "--dbname", "postgres", "--file", str(ROOT / script[0]))
        role = (
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin"
            " FROM pg_roles WHERE rolname = 'latchkey'"
        )
        can = cluster.run(*psql, "-c", role)
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'latchkey'"
        owned = cluster.run(*psql, "-c", owner)
        unset = "SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword IS NULL"
        without_password = cluster.run(*psql, "-c", unset)

    assert script[1].startswith("/docker-entrypoint-initdb.d/")
    assert can == "f|f|f|f|f|t\n"
    assert owned == "latchkey\n"
    assert without_password == "postgres\n"
    variables = environment(compose("docker-compose.prod.yml")["services"]["web-a"], {})
    assert (variables["DB_USER"], variables["DB_NAME"]) == ("latchkey", "latchkey")
