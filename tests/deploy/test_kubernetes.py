"""The manifests are consistent with each other and with the service."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.server import PROBE
from tests.deploy.contained import Image, Place, manifests, variables_of_example
from tests.rig.machine import ROOT, free_port
from tests.rig.redis import needs_redis

FILES = manifests()
KUSTOMIZATION = FILES.pop("kustomization.yaml")
POD_TEMPLATES = {
    "deployment.yaml": FILES["deployment.yaml"]["spec"]["template"],
    "mail.yaml": FILES["mail.yaml"]["spec"]["template"],
    "migrate.yaml": FILES["migrate.yaml"]["spec"]["template"],
    "prune.yaml": FILES["prune.yaml"]["spec"]["jobTemplate"]["spec"]["template"],
}
CONFIG = FILES["configmap.yaml"]["data"]
WEB = POD_TEMPLATES["deployment.yaml"]["spec"]
EXAMPLES = {"secret.example.yaml"}


@pytest.fixture
def variables(place: Place) -> dict[str, str]:
    """The variables of a pod: the ConfigMap and the example Secret with valid secrets."""
    place.empty_database("kubernetes")
    example = FILES["secret.example.yaml"]["stringData"]
    good = {name: secrets.token_urlsafe(32) for name in example if name.endswith("SECRET")}
    given = {**CONFIG, **example, **good, "PGSSLMODE": "disable"}
    given["DATABASE_URL"] = given["DATABASE_URL"].replace(":replace-me", "")
    ports = {"PORT": str(free_port()), "METRICS_PORT": str(free_port())}
    return place.localize(given, "latchkey-db-rw", "latchkey-cache") | ports


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_every_probe_is_served_in_a_thread_of_its_own() -> None:
    """The paths of manifests and image are those that ops/server.py recognises."""
    container = WEB["containers"][0]
    paths = [container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")]
    paths += re.findall(r"(/health[a-z/]*)'", (ROOT / "Dockerfile").read_text())

    assert len(paths) == 4
    for path in paths:
        assert PROBE.fullmatch(f"GET {path} HTTP/1.1\r\nHost: 10.1.2.3:3000\r\n\r\n".encode())


def test_every_file_is_listed_but_the_examples() -> None:
    assert set(KUSTOMIZATION["resources"]) == FILES.keys() - EXAMPLES


def test_all_is_in_one_namespace() -> None:
    name = KUSTOMIZATION["namespace"]
    for file, manifest in FILES.items():
        found = manifest["metadata"].get("namespace", manifest["metadata"]["name"])
        assert found == name, file


def test_who_selects_pods_finds_those_of_the_web_and_no_others() -> None:
    selectors = [
        FILES["service.yaml"]["spec"]["selector"],
        FILES["deployment.yaml"]["spec"]["selector"]["matchLabels"],
        FILES["disruption-budget.yaml"]["spec"]["selector"]["matchLabels"],
        *(c["labelSelector"]["matchLabels"] for c in WEB["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        found = [
            f for f, pod in POD_TEMPLATES.items() if matches(selector, pod["metadata"]["labels"])
        ]
        assert found == ["deployment.yaml"]
    policy = FILES["network-policy.yaml"]["spec"]["podSelector"]["matchLabels"]
    assert all(matches(policy, pod["metadata"]["labels"]) for pod in POD_TEMPLATES.values())


def test_names_of_ports_and_of_what_is_scaled_lead_somewhere() -> None:
    [container] = WEB["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    service = FILES["service.yaml"]["spec"]["ports"]
    [rule] = FILES["ingress.yaml"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    target = FILES["autoscaler.yaml"]["spec"]["scaleTargetRef"]
    allowed = {
        port["port"]
        for way in FILES["network-policy.yaml"]["spec"]["ingress"]
        for port in way["ports"]
    }

    assert ports == {"http": 3000, "metrics": int(CONFIG["METRICS_PORT"])}
    assert {port["targetPort"] for port in service} | {"metrics"} == allowed == ports.keys()
    assert backend["name"] == FILES["service.yaml"]["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service}
    assert target["name"] == FILES["deployment.yaml"]["metadata"]["name"]
    assert rule["host"] in CONFIG["ALLOWED_HOSTS"].split(",")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"


def test_variables_are_ones_that_are_read() -> None:
    given = {*CONFIG, *FILES["secret.example.yaml"]["stringData"]}

    assert given - {"PGSSLMODE"} <= variables_of_example()


@pytest.mark.parametrize(
    "pod", [t["spec"] for t in POD_TEMPLATES.values()], ids=list(POD_TEMPLATES)
)
def test_pods_keep_the_restricted_standard(pod: dict[str, Any]) -> None:
    level = FILES["namespace.yaml"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert level == "restricted"
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user[1]),
        "runAsGroup": int(user[2]),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("emptyDir" in volume for volume in pod.get("volumes", []))
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


def test_all_run_one_image() -> None:
    images = {c["image"] for pod in POD_TEMPLATES.values() for c in pod["spec"]["containers"]}

    assert len(images) == 1


def test_the_grace_is_long_enough() -> None:
    drain = WEB["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    slept = int(re.search(r"sleep (\d+)", drain)[1])
    finishing = int(
        re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.M)[1]
    )
    readiness = WEB["containers"][0]["readinessProbe"]

    assert slept + finishing < WEB["terminationGracePeriodSeconds"]
    # The probe detects the drain before it ends.
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < slept


@needs_redis
class TestCommands:
    def test_the_job_the_pod_and_the_cron_job(
        self, image: Image, variables: dict[str, str], tmp_path: Path
    ) -> None:
        [migrate] = POD_TEMPLATES["migrate.yaml"]["spec"]["containers"]
        [prune] = POD_TEMPLATES["prune.yaml"]["spec"]["containers"]
        [web] = WEB["containers"]
        # A pod that starts before the migrations is live but not ready.
        with image.serve(json.loads(image.step("CMD")), variables, tmp_path / "log") as server:
            probes = {n: web[n]["httpGet"]["path"] for n in web if n.endswith("Probe")}
            assert set(probes.values()) == {"/health", "/health/live", "/health/ready"}
            assert server.request("GET", probes["startupProbe"])[0].status == 200
            assert server.request("GET", probes["livenessProbe"])[0].status == 200
            assert server.request("GET", probes["readinessProbe"])[0].status == 503

            image.run(migrate["command"], variables)

            assert server.request("GET", probes["readinessProbe"])[0].status == 200
            drain = web["lifecycle"]["preStop"]["exec"]["command"][-1]
            assert drain.startswith("kill -USR1 1;")
            image.run(["sh", "-c", drain.replace(" 1;", f" {server.process.pid};")[:-2] + "1"], {})
            assert server.request("GET", probes["readinessProbe"])[0].status == 503
            assert server.request("GET", probes["livenessProbe"])[0].status == 200
        assert "0 event(s) deleted" in image.run(prune["command"], variables)


def test_the_example_of_the_guide_names_what_the_secret_names() -> None:
    """The database that docs/operations.md shows, which no schema here knows."""
    text = (ROOT / "docs/operations.md").read_text()
    [cluster] = [
        parsed
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if (parsed := yaml.safe_load(block)).get("kind") == "Cluster"
    ]
    url = FILES["secret.example.yaml"]["stringData"]["DATABASE_URL"]
    made = cluster["spec"]["bootstrap"]["initdb"]

    assert f"@{cluster['metadata']['name']}-rw:5432/{made['database']}" in url
    assert url.startswith(f"postgres://{made['owner']}:")
    assert cluster["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
