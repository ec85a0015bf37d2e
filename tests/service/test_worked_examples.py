"""The worked examples of CONTRIBUTING.md, applied to a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.machine import ROOT

BLOCK = re.compile(r"^```diff\n(?P<file>\S+)\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLES = re.compile(r"^### (Add .+)$", re.MULTILINE)
COPIED = [path.parent.name for path in ROOT.glob("*/__init__.py")]
COPIED += ["conftest.py", "manage.py", "pyproject.toml", ".env.example"]
COPIED += ["docs/operations.md", "docs/clients"]


def blocks() -> list[tuple[str, list[str]]]:
    """Return the file and the lines of each change."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return [(block["file"], block["lines"].splitlines()) for block in BLOCK.finditer(text)]


def before_and_after(lines: list[str]) -> tuple[str, str]:
    """Return the whole lines that a change replaces, and those that it leaves."""
    before = [line[1:] for line in lines if not line.startswith("+")]
    after = [line[1:] for line in lines if not line.startswith("-")]
    return "\n".join(["", *before, ""]), "\n".join(["", *after, ""])


def run(project: Path, *command: str) -> None:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the examples change and of what their tests import."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path


def test_there_are_worked_examples() -> None:
    assert len(TITLES.findall((ROOT / "CONTRIBUTING.md").read_text())) >= 5


@pytest.mark.parametrize(("file", "lines"), blocks(), ids=lambda value: str(value)[:60])
def test_the_place_of_an_example_exists_once(file: str, lines: list[str]) -> None:
    before, after = before_and_after(lines)

    assert before != after
    assert (ROOT / file).read_text().count(before) == 1


def test_a_copy_with_the_worked_examples_has_what_they_add(project: Path) -> None:
    for file, lines in blocks():
        path = project / file
        path.write_text(path.read_text().replace(*before_and_after(lines)))

    settings = "--settings=config.tests.settings"
    run(project, "manage.py", "makemigrations", "accounts", "-n", "worked_examples", settings)

    run(project, "-m", "ruff", "check", "--quiet", ".")
    run(project, "-m", "ruff", "format", "--check", ".")
    added = [str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/worked_example*.py")]
    checks = (*added, "config/tests/test_checks.py")
    run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *checks)
