"""The TypeScript types of docs/clients: generated, complete, and checked by the compiler."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.clients import CLIENTS, needs_node
from tests.rig.machine import ROOT

needs_tsc = pytest.mark.skipif(shutil.which("tsc") is None, reason="tsc is not installed")

HEAD = """
import {
  ApiError, Latchkey, memoryStore, indexedDBStore, sharedMemoryStore, type Store,
} from "./latchkey.js";
import type { Event, Session, User } from "./schema.js";

const store: Store = memoryStore();
const api = new Latchkey("http://localhost:3000/api/v1", {
  store, onWait: (seconds: number) => {}, onSignedOut: () => {}, maximumWait: 30,
});
declare const signal: AbortSignal;
declare const id: number;
export async function use() {
"""
VALID = """
const quiet = new Latchkey("/api/v1", { cookie: true, store: sharedMemoryStore("shop") });
const user = await api.register({ username: "bob", email: "bob@example.com", password: "…" });
const name: string = (await api.login("bob", "…", { signal })).username;
const read: User = await api.request("GET", "/users/me", undefined, { signal });
const patched: User = await api.request("PATCH", `/users/${id}`, { names: "Bob Brown" });
const deleted: null = await api.request("DELETE", `/users/${id}`);
const uploaded: User = await api.request("PATCH", `/users/${id}`, new FormData());
const page: Session[] = (await api.request("GET", "/auth/sessions?limit=3")).results;
const me: string = (await api.request("GET", "/users/me")).email;
const other: string | undefined = (await api.request("GET", `/users/${id}`)).email;
for await (const event of api.paginate("/auth/events?limit=3")) { const row: Event = event; }
for await (const session of api.sessions({ signal })) { const row: Session = session; }
for await (const event of api.events()) { const row: Event = event; }
const passkey: boolean = (await api.addPasskey("Laptop", { signal })).synced;
for await (const row of api.passkeys()) await api.removePasskey(row.id);
const found: User = await api.loginWithPasskey({ mediation: "conditional", signal });
await api.reauthenticateWithPasskey();
const revoked: number = await api.logoutAll();
const pair = await store.get();
if (pair) await api.refresh(pair);
const error = new Error();
if (error instanceof ApiError) {
  const after: number | undefined = error.retryAfter;
  const code: string | undefined = error.problem.errors?.[0]?.code;
  const completed: User = await api.completeLoginWithPasskey(error.problem);
}
"""
INVALID = {
    "an unknown route": 'await api.request("GET", "/userz")',
    "a method that the route does not have": 'await api.request("PUT", `/users/${id}`, {})',
    "no body": 'await api.request("POST", "/users")',
    "a body without a required field": 'await api.request("POST", "/users", { names: "" })',
    "a field of another type": 'await api.request("PATCH", `/users/${id}`, { names: 3 })',
    "an unknown field": 'await api.request("PATCH", `/users/${id}`, { colour: "red" })',
    "a field that is not in the response": '(await api.request("GET", "/users/me")).password',
    "an iterator over one object": "for await (const x of api.paginate('/users/me')) x.username",
    "a cookie that is no flag": "new Latchkey('', { cookie: 'refresh' })",
    "a store without clear": "new Latchkey('', { store: { get: store.get, set: store.set } })",
}


def compile_program(directory: Path, body: str) -> str:
    """Type-check the body of a function that uses the client; return the compiler's errors."""
    for path in CLIENTS.glob("*.ts"):
        shutil.copy(path, directory)
    (directory / "program.ts").write_text(f"{HEAD}{body}\n}}")
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "es2022"]
    options += ["--moduleResolution", "node", "--lib", "es2022,dom,dom.iterable"]
    command = ["tsc", *options, "program.ts"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert bool(done.stdout) == bool(done.returncode), done.stderr
    return done.stdout


def test_the_types_of_the_api_are_current() -> None:
    command = [sys.executable, "manage.py", "clienttypes"]
    project = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    generated = subprocess.check_output(command, cwd=ROOT, env=project, text=True)

    assert (CLIENTS / "schema.d.ts").read_text() == generated, (
        "Run `manage.py clienttypes > docs/clients/schema.d.ts`."
    )


@needs_tsc
def test_correct_calls_compile(tmp_path: Path) -> None:
    assert compile_program(tmp_path, VALID) == ""


@needs_tsc
def test_wrong_calls_do_not_compile(tmp_path: Path) -> None:
    errors = compile_program(tmp_path, ";\n".join(INVALID.values()))

    lines = {int(line) for line in re.findall(r"^program\.ts\((\d+),", errors, re.MULTILINE)}
    first = HEAD.count("\n") + 1
    assert lines == set(range(first, first + len(INVALID))), errors


@needs_node
def test_the_types_name_what_the_client_has(tmp_path: Path) -> None:
    shutil.copy(CLIENTS / "latchkey.js", tmp_path / "latchkey.mjs")
    program = """
        import * as client from "./latchkey.mjs";
        const methods = Object.getOwnPropertyNames(client.Latchkey.prototype);
        const names = [new client.Latchkey("x"), new client.ApiError(400, {})].map(Object.keys);
        console.log(JSON.stringify([Object.keys(client), methods, ...names]));
    """
    node = ["node", "--input-type=module", "--eval", program]
    exports, methods, fields, error = json.loads(subprocess.check_output(node, cwd=tmp_path))

    types = (CLIENTS / "latchkey.d.ts").read_text()
    assert set(re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE)) == set(exports)
    members = dict(re.findall(r"(?ms)^export class (\w+).*?\{\n(.*?)^\}", types))
    declared = re.findall(r"^  (\w+)[(<]", members["Latchkey"], re.MULTILINE)
    assert declared == methods
    readonly = {name: re.findall(r"readonly (\w+)", body) for name, body in members.items()}
    assert (readonly["Latchkey"], readonly["ApiError"]) == (fields, error)
