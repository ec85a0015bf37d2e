"""A project of an owner: renamed, without the example, with own apps, and with later releases."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from config.management.commands.generatesecrets import NAMES, good_secret
from ops.management.commands.removeexample import REMOVED, mentions
from ops.management.commands.renameproject import KEPT, NAME, TITLE, Names, rename
from tests.rig.machine import ROOT

HIDDEN = [".ci", ".github", ".dockerignore", ".env.example", ".pre-commit-config.yaml"]
OLD_NAME = re.compile(f"{NAME}|{TITLE}|{NAME.upper()}")
# The tests of the new apps, and of what finds apps and names by itself.
TESTS = [
    *("orders", "stock_items", "tests/service/test_project.py"),
    *("tests/deploy/test_observability.py", "console/tests/test_middleware.py"),
]
# What an owner does next: own errors, orders and uploads, a scheduled job, fields and events.
NEXT = [
    *(f"tests/service/guest/test_{name}.py" for name in ("errors", "lists", "uploads")),
    *("tests/service/test_jobs.py", "tests/service/test_worked_examples.py"),
]
COMMITS = 40


class Copy:
    """A copy of the checkout, with a database of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for name in HIDDEN:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, directory / name)
        variables = {"DEBUG": "true", "DATABASE_URL": "embedded://", "PYTHONDONTWRITEBYTECODE": "1"}
        secrets = {name: good_secret() for name in NAMES}
        self.environment = os.environ | variables | secrets
        self.environment["DJANGO_SETTINGS_MODULE"] = "config.settings"

    def run(self, *command: str) -> str:
        """Return the output of a program beside Python, which must succeed."""
        program = Path(sys.executable).with_name(command[0])
        result = subprocess.run(
            [program, *command[1:]],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout

    def manage(self, *arguments: str) -> str:
        return self.run("python", "manage.py", *arguments)

    def test(self, *arguments: str) -> None:
        module = "--ds=config.tests.settings"
        self.run("python", "-m", "pytest", module, "-q", "-p", "no:cacheprovider", *arguments)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy after all three commands, each of them run twice if that is allowed."""
    copy = Copy(tmp_path_factory.mktemp("own") / "project")
    copy.manage("migrate", "--verbosity=0")
    for _ in range(2):
        if settings.SERVICE_NAME == NAME:
            copy.manage("renameproject", "Acme Shop", "acme_shop")
        copy.manage("removeexample")
    copy.manage("startresource", "orders", "--owner")
    copy.manage("startresource", "stock_items")
    copy.manage("migrate", "--verbosity=0")
    return copy


def old_names(directory: Path) -> list[Path]:
    """Return the files that have the template's name in their content or in their own name."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    own = [path for path in files if not {".git", ".data", "__pycache__"} & {*path.parts}]
    return [
        path.relative_to(directory)
        for path in own
        if path.name not in KEPT
        and (OLD_NAME.search(path.read_bytes().decode(errors="replace")) or NAME in path.name)
    ]


def test_neither_the_old_name_nor_the_example_is_left(own: Copy) -> None:
    assert old_names(own.directory) == []
    assert mentions(own.directory) == []
    assert not [name for name in REMOVED if (own.directory / name).exists()]


def test_the_checks_pass(own: Copy) -> None:
    own.run("ruff", "check", ".")
    own.run("ruff", "format", "--check", ".")
    own.run("lint-imports")
    own.manage("makemigrations", "--check", "--dry-run")
    own.manage("check")


def test_the_suite_passes(own: Copy) -> None:
    own.test(*TESTS)


def test_an_app_in_the_style_of_the_tutorial_and_the_worked_examples_pass(own: Copy) -> None:
    own.test(*NEXT)


def test_the_image_is_built_with_the_new_apps(own: Copy) -> None:
    own.test("tests/deploy/test_containers.py", "-k", "test_it_holds_the_service")
    patterns = "from tests.deploy.contained import context; from pathlib import Path; import sys"
    listed = own.run("python", "-c", f"{patterns}; print(*context(Path.cwd()), sep='\\n')")

    assert "/orders/migrations/0001_initial.py" in listed
    assert "/stock_items/views.py" in listed
    assert "/orders/tests/" not in listed


class Repository:
    """A clone of this repository, from some commits ago."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(directory)], check=True)
        self.git("config", "user.name", "owner")
        self.git("config", "user.email", "owner@example.com")

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    def rename(self) -> None:
        list(rename(self.directory, Names("Acme Shop", "acme_shop")))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Rename")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    count = ["git", "rev-list", "--count", "--first-parent", "HEAD"]
    found = subprocess.run(count, cwd=ROOT, capture_output=True, text=True).stdout
    if int(found or 0) <= COMMITS:
        pytest.skip(f"the history has less than {COMMITS} commits")
    return Repository(tmp_path / "repository")


def test_upgrades_of_a_renamed_project_have_no_conflict_and_leave_no_old_name(
    repository: Repository,
) -> None:
    """The commands of docs/upgrading.md."""
    newest = repository.git("rev-parse", "HEAD")
    repository.git("switch", "--quiet", "--create", "own", f"HEAD~{COMMITS}")
    repository.rename()
    repository.git("branch", "template")
    with (repository.directory / "config/urls.py").open("a") as file:
        file.write("# of the owner\n")
    repository.git("commit", "--quiet", "--all", "--message", "Change")

    repository.git("switch", "--quiet", "template")
    repository.git("read-tree", "--reset", "-u", newest)
    repository.rename()
    repository.git("switch", "--quiet", "own")
    repository.git("merge", "--quiet", "template")

    assert old_names(repository.directory) == []
    changed = repository.git("diff", "--name-only", "template").splitlines()
    assert changed == ["config/urls.py"]
