"""Alerts and dashboard: their syntax, their firing, and the existence of their metrics."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import PASSWORD
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT, free_port

DIRECTORY = ROOT / "deploy/observability"
RULES = yaml.safe_load((DIRECTORY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DIRECTORY / "grafana.json").read_text())
PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="prometheus is not installed"
)


def promtool(*arguments: str) -> None:
    result = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    promtool("check", "config", "deploy/observability/prometheus.yml")
    promtool("test", "rules", "deploy/observability/alerts.test.yml")


@needs_promtool
def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(PANELS)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    promtool("check", "rules", str(path))


def test_every_alert_is_tested_and_has_its_section_in_the_guide() -> None:
    tests = yaml.safe_load((DIRECTORY / "alerts.test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in RULES}
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)

    assert names == set(headings)
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    for test in tests[:2]:  # a good day and a bad night
        assert {case["alertname"] for case in test["alert_rule_test"]} == names


@pytest.mark.django_db(transaction=True)
def test_the_metrics_that_they_query_exist(tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path / "log", METRICS_PORT=str(port), AUTH_RATE_LIMIT="3/m") as server:
        user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        login = {"identity": "alice", "password": PASSWORD}
        assert server.post("/users", user)[0] == 201
        pair = server.post("/auth/login", login)[1]
        for _ in range(2):
            server.post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
        text = Server(port, server.process).request("GET", "/metrics")[1].decode()

    there = set(re.findall(r"^(\w+)", text, re.MULTILINE))
    asked = {
        name
        for expr in [*PANELS, *(rule["expr"] for rule in RULES)]
        for name in re.findall(r"\b(?:http|latchkey)_\w+", expr)
    }
    assert asked
    assert asked <= there


def test_the_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
