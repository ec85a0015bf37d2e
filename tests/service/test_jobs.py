"""The worked example of docs/jobs.md."""

import json
import re
import runpy
import subprocess
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from accounts.models import Event
from tests.rig.machine import ROOT

GUIDE = (ROOT / "docs/jobs.md").read_text()


def block(heading: str, language: str) -> str:
    """Return the first block of code below a heading."""
    section = GUIDE.partition(f"# {heading}\n")[2]
    match = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert match
    return match[1]


@pytest.fixture
def command(tmp_path: Path) -> Any:
    source = tmp_path / "dailyreport.py"
    source.write_text(block("A scheduled job", "python"))
    return runpy.run_path(str(source))["Command"]()


def test_the_job_reports_the_events_of_one_day(command: Any, db: None) -> None:
    today = datetime.now(UTC)
    yesterday = today - timedelta(days=1)
    for kind, created_at in (("login", yesterday), ("login", yesterday), ("logout", today)):
        Event.objects.bulk_create([Event(kind=kind, created_at=created_at)])

    def report(*arguments: str) -> Any:
        output = StringIO()
        call_command(command, *arguments, stdout=output)
        return json.loads(output.getvalue())

    day = yesterday.date().isoformat()
    assert report() == report("--day", day) == {"day": day, "events": {"login": 2}}
    assert report("--day", today.date().isoformat())["events"] == {"logout": 1}
    assert report("--day", "2020-01-01")["events"] == {}


def test_the_compose_service_is_like_the_one_of_prunesessions() -> None:
    shipped = (ROOT / "docker-compose.prod.yml").read_text()
    text = shipped.replace("  prune:\n", f"{block('Docker Compose', 'yaml')}\n  prune:\n")

    services = yaml.safe_load(text)["services"]

    expected = json.loads(json.dumps(services["prune"]).replace("prunesessions", "dailyreport"))
    assert services["daily-report"] == expected


def test_the_cron_job_is_made_from_the_one_of_prunesessions(tmp_path: Path) -> None:
    (tmp_path / "deploy/kubernetes").mkdir(parents=True)
    shipped = (ROOT / "deploy/kubernetes/prune.yaml").read_text()
    (tmp_path / "deploy/kubernetes/prune.yaml").write_text(shipped)

    subprocess.run(["bash", "-ec", block("Kubernetes", "sh")], cwd=tmp_path, check=True)

    made = (tmp_path / "deploy/kubernetes/daily-report.yaml").read_text()
    job = yaml.safe_load(made)
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "manage.py", "dailyreport"]
    assert job["metadata"]["name"] == "latchkey-daily-report"
    assert "prune" not in made
    assert job["spec"]["schedule"] != yaml.safe_load(shipped)["spec"]["schedule"]
