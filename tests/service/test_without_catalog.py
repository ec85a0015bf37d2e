"""The project works without the example, `catalog/` and its two lines in `config/`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.machine import ROOT

PACKAGES = ["accounts", "api", "config", "console", "health", "ops", "tests/service"]
LEFT_OUT = [".*", "catalog", "staticfiles", "__pycache__"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the checkout without the catalog."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in (".env.example", ".dockerignore", ".pre-commit-config.yaml"):
        shutil.copy(ROOT / name, copy)
    removed = 0
    for path in (copy / "config").glob("*.py"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if "catalog" not in line]
        removed += len(lines) - len(kept)
        path.write_text("".join(kept))
    assert removed == 2
    return copy


def run(project: Path, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]


def test_the_console_and_the_api_work_without_the_catalog(project: Path) -> None:
    run(project, "console/tests/test_middleware.py", "accounts/tests/test_users.py", "health")


def test_the_image_is_built_without_the_catalog(project: Path) -> None:
    run(project, "tests/deploy/test_containers.py", "-k", "TestImage")


@pytest.mark.slow
def test_every_test_but_those_of_the_catalog_passes_without_it(project: Path) -> None:
    run(project, *PACKAGES)
