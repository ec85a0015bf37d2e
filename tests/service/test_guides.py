"""The commands of the guides, and their responses compared with the printed ones."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands

from api.views import schema
from conftest import API
from tests.rig.clients import CLIENTS, needs_node
from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT
from tests.rig.smtp import worker

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.django_db(transaction=True),
]

MARK = "=== next ==="
# Fields with equal values; other fields need only the same type.
LITERAL = {"code", "status", "count", "expires_in", "refresh_expires_in", "event", "device"}
LITERAL |= {"token_type", "current", "new_device", "field", "detail", "title"}


@pytest.fixture
def server(db: None, tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path / "log", AUTH_RATE_LIMIT="1000/m") as server:
        yield server


def run(blocks: list[str], server: Server) -> list[str]:
    """Run blocks of commands in one shell and return the output of each."""
    script = f"\necho; echo '{MARK}'\n".join(blocks)
    script = script.replace("http://localhost:3000", f"http://127.0.0.1:{server.port}")
    command = ["bash", "-eo", "pipefail"]
    shell = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert shell.returncode == 0, shell.stderr
    return shell.stdout.split(MARK)


def assert_like(response: Any, printed: Any, name: str = "") -> None:
    """Assert that a response has the types of the printed one, and its `LITERAL` values."""
    assert type(response) is type(printed), name
    if isinstance(printed, dict):
        assert response.keys() == printed.keys(), name
        for key in printed:
            assert_like(response[key], printed[key], key)
    elif isinstance(printed, list):
        assert len(response) == len(printed), name
        for one, other in zip(response, printed, strict=True):
            assert_like(one, other, name)
    elif name in LITERAL:
        assert response == printed, name


VERIFIED = "## Registration by a proven address"


def compare(setup: str, text: str, server: Server) -> int:
    """Run the commands of a text after those of `setup`, and compare what it prints."""
    blocks = re.findall(r"```(sh|json)\n(.*?)```", text, re.DOTALL)
    commands = [block for language, block in blocks if language == "sh"]
    [_, *outputs] = run([setup, *commands], server)
    printed, output, compared = iter(outputs), "", 0
    for language, block in blocks:
        if language == "sh":
            output = next(printed)
        else:
            assert_like(json.loads(output), json.loads(block))
            compared += 1
    return compared


@pytest.mark.parametrize("registration", ["open", "verified"])
def test_the_guide_to_authentication(
    registration: str, transactional_db: None, tmp_path: Path
) -> None:
    text = (ROOT / "docs/AUTH_GUIDE.md").read_text()
    [setup] = re.findall(r"```sh\n(API=.*?)```", text, re.DOTALL)[:1]
    general, _, verified = text.replace(f"```sh\n{setup}```", "").partition(VERIFIED)
    variables = {
        "AUTH_RATE_LIMIT": "1000/m",
        "EMAIL_URL": f"filemail://{tmp_path}/mail",
        "REGISTRATION": registration,
        "REFRESH_COOKIE": "true",
    }
    with (
        serve(tmp_path / "log", **variables) as server,
        worker(tmp_path / "worker", **variables),
    ):
        compared = compare(setup, verified if registration == "verified" else general, server)

    assert compared >= {"open": 24, "verified": 2}[registration]


ASYNC_STORAGE = """
const items = new Map();
export default {
  getItem: async (key) => items.get(key) ?? null,
  setItem: async (key, value) => void items.set(key, value),
  removeItem: async (key) => void items.delete(key),
};
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with both clients, and with the storage module of React Native."""
    for client in CLIENTS.glob("latchkey.*"):
        shutil.copy(client, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    module = tmp_path / "node_modules/@react-native-async-storage/async-storage"
    module.mkdir(parents=True)
    (module / "index.js").write_text(ASYNC_STORAGE)
    (module / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    return tmp_path


def run_program(language: str, number: int, project: Path, server: Server) -> list[str]:
    """Run a program of the guide in this directory and return the lines that it prints."""
    alice = {"username": "alice", "email": "alice@example.com", "password": "a windy day in April"}
    assert server.post("/users", alice)[0] == 201
    guide = (ROOT / "docs/AUTH_GUIDE.md").read_text()
    program = re.findall(rf"```{language}\n(.*?)```", guide, re.DOTALL)[number]
    path = project / f"program.{language}"
    path.write_text(program.replace("http://localhost:3000", f"http://127.0.0.1:{server.port}"))
    command = [{"js": "node", "python": sys.executable}[language], str(path)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@needs_node
def test_the_example_of_the_javascript_client(project: Path, server: Server) -> None:
    device, *events, rejected = run_program("js", 0, project, server)

    assert (device, rejected) == ("node", "validation_error username")
    assert [event.split()[0] for event in events] == [
        "account_changed",
        "signed_in",
        "account_created",
    ]


@needs_node
def test_the_store_for_react_native(project: Path, server: Server) -> None:
    assert run_program("js", 1, project, server) == ["alice"]


def test_the_example_of_the_python_client(project: Path, server: Server) -> None:
    device, *events, rejected = run_program("python", 0, project, server)

    assert (device, rejected) == ("Python-urllib", "415 unsupported_media_type")
    assert [event.split()[0] for event in events] == ["signed_in", "account_created"]


def test_the_readme(server: Server) -> None:
    section = (ROOT / "README.md").read_text().partition("## Call the API")[2].partition("\n## ")[0]
    block = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    # One line of JSON for each response.
    [output] = run([re.sub(r"^(curl .*)", r"echo; \1", block, flags=re.MULTILINE)], server)
    responses = [json.loads(line) for line in output.splitlines() if line.startswith("{")]

    codes = [response.get("code") for response in responses]
    assert [response["id"] for response in responses[:2]] == [responses[0]["id"]] * 2
    assert len(codes) >= 6
    assert codes == [None] * (len(codes) - 2) + ["token_not_valid"] * 2


def test_the_readme_lists_every_route_of_accounts_and_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    routes = [path.removeprefix(API) for path in json.loads(schema())["paths"]]
    commands = [name for name, app in get_commands().items() if app in {"accounts", "ops"}]
    commands.remove("changepassword")  # Django's

    assert len(routes) > len(commands) > 8
    own = [route for route in routes if route.startswith(("/auth/", "/users"))]
    assert [route for route in own if f"`{route}`" not in readme] == []
    assert [name for name in commands if name not in readme] == []


def test_decisions_are_numbered_in_order() -> None:
    text = (ROOT / "docs/decisions.md").read_text()
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]

    assert numbers == [*range(1, len(numbers) + 1)]


def test_no_entry_of_the_changelog_stands_twice() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    entries = [line for line in lines if line.startswith("- ")]

    assert len(entries) == len(set(entries))


GUIDES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_have_targets(guide: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", guide.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = guide.parent / name if name else guide
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, target


def test_the_hooks_run_the_ruff_that_ci_runs() -> None:
    [pinned] = re.findall(
        r"^ruff==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE
    )

    assert f"rev: v{pinned}" in (ROOT / ".pre-commit-config.yaml").read_text()
