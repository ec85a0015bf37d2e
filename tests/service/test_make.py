"""The targets of the Makefile, in a copy of the project."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands

from tests.rig.client import Client
from tests.rig.machine import ROOT, free_port, wait_until

ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A copy in a path with a space, with a leading dash, and of 150 characters."""
    path = tmp_path / "a shop" / "-latchkey"
    path = path.with_name(path.name + "y" * max(0, 150 - len(str(path))))
    skipped = shutil.ignore_patterns(".*", "__pycache__", "docs")
    shutil.copytree(ROOT, path, ignore=skipped, symlinks=True)
    yield path
    make(path, "clean")


def make(path: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["make", *arguments],
        cwd=path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_run_works_in_any_path_and_reloads_the_configuration(clone: Path) -> None:
    # The packages of this environment, so that nothing is downloaded.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    [packages] = (clone / ".venv").glob("lib/python*/site-packages")
    (packages / "these.pth").write_text(sysconfig.get_path("purelib"))
    (clone / ".venv" / "runtime").touch()
    client = Client(port := free_port())

    with (clone / "log").open("w") as log:
        process = subprocess.Popen(
            ["make", "run", f"PORT={port}"],
            cwd=clone, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        took = wait_until(lambda: client.get("/health").status == 200, seconds=60)
        changed = clone / "config" / "logs.py"
        changed.write_text(changed.read_text().replace("{message} [", "{message} changed ["))

        def is_reloaded() -> bool:
            changed.touch()  # The reloader may not have seen the file before its first change.
            client.get("/health")
            return "changed [" in (clone / "log").read_text()

        reloaded = wait_until(is_reloaded, seconds=30)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=40)

    assert (took < 60, reloaded < 30) == (True, True), (clone / "log").read_text()
    assert not (clone / ".data" / "postgres" / "postmaster.pid").exists()


def test_run_installs_no_development_tools(clone: Path) -> None:
    def installed(target: str) -> list[str]:
        return re.findall(r"install .* -r (\S+) 2>", make(clone, "--dry-run", target))

    assert installed("run") == [".venv/uv.txt", "requirements-run.txt"]
    assert installed("test") == [*installed("run"), "requirements-dev.txt"]


def test_the_readme_runs_without_make_what_make_runs(clone: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("Without make:")[2]
    install, *start = re.findall(r"^[^`\n]+$", section.partition("```sh\n")[2], re.MULTILINE)[:3]

    assert install.endswith("pip install -r requirements-run.txt")
    assert [line in make(clone, "--dry-run", "run") for line in start] == [True, True]


def test_the_guides_name_targets_and_commands_that_exist(clone: Path) -> None:
    targets = set(re.findall(r"^(\w+)\s", make(clone, "help"), re.MULTILINE))
    for guide in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        code = "\n".join(re.findall(r"`[^`]+`|```.*?```", guide.read_text(), re.DOTALL))
        assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets, guide.name
        named = set(re.findall(r"\bmanage\.py ([a-z]+)", code)) - {"dailyreport"}
        assert named <= get_commands().keys(), guide.name


def test_the_three_lock_files_pin_the_same_versions() -> None:
    service, run, development = (
        set(re.findall(r"^([\w.-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-run.txt", "requirements-dev.txt")
    )

    assert service < run < development
