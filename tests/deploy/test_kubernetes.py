"""The manifests are consistent with each other and with the service."""

import json
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.server import PROBE
from tests.deploy.contained import (
    Image,
    Place,
    lines,
    manifests,
    needs_containment,
    variables_of_example,
)
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
DIRECTORY = ROOT / "deploy/kubernetes"
CONFIG = lines((DIRECTORY / "config.env").read_text())
SECRET = lines((DIRECTORY / "production.example.env").read_text())
WEB = POD_TEMPLATES["deployment.yaml"]["spec"]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")


@pytest.fixture
def variables(place: Place) -> dict[str, str]:
    """The variables of a pod: the ConfigMap and the example Secret with valid secrets."""
    place.empty_database("kubernetes")
    good = {name: secrets.token_urlsafe(32) for name in SECRET if name.endswith("SECRET")}
    given = {**CONFIG, **SECRET, **good, "PGSSLMODE": "disable"}
    given["DATABASE_URL"] = given["DATABASE_URL"].replace(":replace-me", "")
    ports = {"PORT": str(free_port()), "METRICS_PORT": str(free_port())}
    return place.localize(given, "latchkey-db-rw", "latchkey-cache") | ports


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_every_probe_is_served_in_a_thread_of_its_own() -> None:
    """The paths of manifests and image are those that ops/server.py recognises."""
    container = WEB["containers"][0]
    paths = [container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")]
    paths += re.findall(r"GET (/health[a-z/]*) ", (ROOT / "docker-compose.prod.yml").read_text())

    assert len(paths) == 4
    for path in paths:
        assert PROBE.fullmatch(f"GET {path} HTTP/1.1\r\nHost: 10.1.2.3:3000\r\n\r\n".encode())


def test_every_file_is_listed() -> None:
    assert set(KUSTOMIZATION["resources"]) == FILES.keys()


def build(directory: Path, **production: str) -> list[dict[str, Any]]:
    """Return the manifests that `kubectl apply -k` sends, with these lines of production.env."""
    copy = directory / "kubernetes"
    shutil.copytree(DIRECTORY, copy, dirs_exist_ok=True)
    text = "".join(f"{name}={value}\n" for name, value in (SECRET | production).items())
    (copy / "production.env").write_text(text)
    command = ["kubectl", "kustomize", str(copy)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(built: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {m["metadata"]["name"]: m for m in built if m["kind"] == kind}


def containers(built: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pods = [*of_kind(built, "Deployment").values(), *of_kind(built, "Job").values()]
    specs = [pod["spec"] for pod in pods]
    specs += [cron["spec"]["jobTemplate"]["spec"] for cron in of_kind(built, "CronJob").values()]
    return [one for spec in specs for one in spec["template"]["spec"]["containers"]]


@needs_kubectl
class TestBuild:
    def test_a_changed_secret_replaces_the_pods(self, tmp_path: Path) -> None:
        before, after = build(tmp_path), build(tmp_path, SECRET="another")

        for built in (before, after):
            [config], [secret] = of_kind(built, "ConfigMap"), of_kind(built, "Secret")
            for container in containers(built):
                used = [next(iter(source.values()))["name"] for source in container["envFrom"]]
                assert used == [config, secret]
        assert len(containers(before)) == len(POD_TEMPLATES)
        assert of_kind(before, "ConfigMap").keys() == of_kind(after, "ConfigMap").keys()
        assert not of_kind(before, "Secret").keys() & of_kind(after, "Secret").keys()

    def test_the_image_is_named_once(self, tmp_path: Path) -> None:
        [image] = KUSTOMIZATION["images"]

        images = {container["image"] for container in containers(build(tmp_path))}

        assert images == {f"{image['newName']}:{image['newTag']}"}

    def test_all_that_a_migration_needs_is_applied_before_the_pods(self, tmp_path: Path) -> None:
        manual = (ROOT / "docs/operations.md").read_text()
        [selector, again] = re.findall(r"--selector '(.*)'", manual)
        later = re.fullmatch(r"app.kubernetes.io/component notin \((.*)\)", selector)[1].split(", ")
        first = [manifest for manifest in build(tmp_path) if component(manifest) not in later]

        assert selector == again
        assert {"Namespace", "ConfigMap", "Secret", "Job"} <= {m["kind"] for m in first}
        assert not {"Deployment", "CronJob"} & {m["kind"] for m in first}


def component(manifest: dict[str, Any]) -> str:
    labels = manifest["metadata"].get("labels", {})
    return str(labels.get("app.kubernetes.io/component", ""))


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
    assert {*CONFIG, *SECRET} - {"PGSSLMODE"} <= variables_of_example()


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


@needs_containment
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
    url = SECRET["DATABASE_URL"]
    made = cluster["spec"]["bootstrap"]["initdb"]

    assert f"@{cluster['metadata']['name']}-rw:5432/{made['database']}" in url
    assert url.startswith(f"postgres://{made['owner']}:")
    assert cluster["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
