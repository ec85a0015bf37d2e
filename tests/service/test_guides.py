"""The commands of the guides, run as they stand, and their answers held against what is printed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.gunicorn import Server, serve
from tests.rig.machine import ROOT

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.django_db(transaction=True),
]

MARK = "=== next ==="
# What an answer has to say word for word; of the rest, that it is there and of its kind.
LITERAL = {"code", "status", "count", "expires_in", "refresh_expires_in", "event", "device"}
LITERAL |= {"token_type", "current", "new_device", "field", "detail", "title"}


@pytest.fixture
def server(db: None, tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path / "log", AUTH_RATE_LIMIT="1000/m") as server:
        yield server


def run(blocks: list[str], server: Server) -> list[str]:
    """Run blocks of commands in one shell; return what each printed."""
    script = f"\necho; echo '{MARK}'\n".join(blocks)
    script = script.replace("http://localhost:3000", f"http://127.0.0.1:{server.port}")
    command = ["bash", "-eo", "pipefail"]
    shell = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert shell.returncode == 0, shell.stderr
    return shell.stdout.split(MARK)


def assert_like(answer: Any, printed: Any, name: str = "") -> None:
    """An answer has the printed one's shape, and its words where clients act on them."""
    assert type(answer) is type(printed), name
    if isinstance(printed, dict):
        assert answer.keys() == printed.keys(), name
        for key in printed:
            assert_like(answer[key], printed[key], key)
    elif isinstance(printed, list):
        assert len(answer) == len(printed), name
        for one, other in zip(answer, printed, strict=True):
            assert_like(one, other, name)
    elif name in LITERAL:
        assert answer == printed, name


def test_the_guide_to_authentication(server: Server) -> None:
    text = (ROOT / "docs/AUTH_GUIDE.md").read_text()
    blocks = re.findall(r"```(sh|json)\n(.*?)```", text, re.DOTALL)
    commands = [block for language, block in blocks if language == "sh"]
    printed = iter(run(commands, server))
    output, compared = "", 0
    for language, block in blocks:
        if language == "sh":
            output = next(printed)
        else:
            assert_like(json.loads(output), json.loads(block))
            compared += 1

    assert compared == len([language for language, _ in blocks if language == "json"]) >= 10


def test_the_readme(server: Server) -> None:
    section = (ROOT / "README.md").read_text().partition("## Call the API")[2]
    [block, *_] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    # One line of JSON for each call whose answer is shown.
    [output] = run([re.sub(r"^(curl .*)", r"echo; \1", block, flags=re.MULTILINE)], server)
    answers = [json.loads(line) for line in output.splitlines() if line.startswith("{")]

    codes = [answer.get("code") for answer in answers]
    assert [answer["id"] for answer in answers[:2]] == [answers[0]["id"]] * 2
    assert answers[4]["results"][0]["title"] == "Brass lamp"
    assert codes == [None] * 6 + ["token_not_valid"] * 2


GUIDES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(guide: Path) -> None:
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
