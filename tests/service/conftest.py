"""A user of served processes, and the clients of docs/clients against scripted responses."""

import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import User
from accounts.passwords import BoundedBCryptSHA256PasswordHasher
from tests.rig.clients import ALICE, CLIENTS, NODE, Run, Script, call_node, call_python, needs_node


@pytest.fixture
def alice(
    transactional_db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, make_user: Any
) -> User:
    """A user whose password the service can verify."""
    settings.PASSWORD_HASHERS = ["accounts.passwords.BoundedBCryptSHA256PasswordHasher"]
    monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 4)
    user: User = make_user("alice")
    return user


@pytest.fixture
def script() -> Iterator[Script]:
    with Script() as script:
        threading.Thread(target=script.serve_forever, args=(0.01,), daemon=True).start()
        yield script
        script.shutdown()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run an async function body in Node, with `api`."""
    directory = tmp_path_factory.mktemp("node")
    shutil.copy(CLIENTS / "latchkey.js", directory / "latchkey.mjs")
    (directory / "run.mjs").write_text(NODE)
    with subprocess.Popen(
        ["node", "run.mjs"],
        cwd=directory,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:

        def run(*call: Any) -> Any:
            process.stdin.write(f"{json.dumps(call)}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
        assert process.wait(timeout=10) == 0


@pytest.fixture(params=["python", pytest.param("node", marks=needs_node)])
def run(request: pytest.FixtureRequest, script: Script) -> Run:
    client: Run = call_python
    if request.param == "node":
        client = functools.partial(call_node, request.getfixturevalue("node"))

    def call(method: str, *args: Any, stored: tuple[Any, ...] = (ALICE,)) -> Any:
        return client(script.base, stored, method, args)

    return call
