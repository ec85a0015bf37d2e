"""The clients of docs/clients: waits, cancellation, lists and uploads, with scripted responses."""

import time
from typing import Any

import pyotp
import pytest

from tests.rig.clients import (
    ALICE,
    BOB,
    EXPIRED,
    LATER,
    OK,
    PAGE,
    Response,
    Run,
    Script,
    latchkey,
    needs_node,
    own,
    pair,
)

BUSY = own(503, "service_unavailable", **{"Retry-After": "1"})
LIMITED = own(429, "rate_limited", **{"Retry-After": "1"})


def test_one_call_waits_sixty_seconds_in_total(run: Run, script: Script) -> None:
    script.responses = [BUSY, own(429, "rate_limited", **{"Retry-After": "60"})]

    outcome = run("request", "POST", "/x", {})

    assert (outcome["status"], outcome["retry_after"]) == (429, 60)
    assert outcome["waits"] == [1, 0]


@pytest.mark.parametrize(
    ("method", "args"), [("login", ["alice", "word"]), ("register", [{"username": "alice"}])]
)
def test_a_wait_at_sign_in_and_registration_is_visible(
    run: Run, script: Script, method: str, args: list[Any]
) -> None:
    body = {**LATER, "user": {"id": 1}} if method == "login" else {"id": 1}
    script.responses = [BUSY, Response(200, body)]

    outcome = run(method, *args, stored=(None,))

    assert (outcome["result"], outcome["waits"]) == ({"id": 1}, [1, 0])
    assert outcome["stored"] == (LATER if method == "login" else None)


def test_registration_sends_no_token(run: Run, script: Script) -> None:
    """A token that has expired would be rejected there."""
    script.responses = [Response(201, {"id": 2})]

    assert run("register", {"username": "bob"})["result"] == {"id": 2}
    assert script.sent == [("POST", "/users", None)]


def test_a_refresh_that_is_limited_is_waited_out(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, LIMITED, EXPIRED, Response(200, LATER), OK]

    outcome = run("request", "POST", "/x", {})

    assert (outcome["result"], outcome["waits"]) == ({"ok": True}, [1, 0])
    assert outcome["stored"] == LATER


@pytest.mark.parametrize("now", [BOB, None])
def test_a_request_is_not_repeated_as_another_user_after_a_wait(
    run: Run, script: Script, now: Any
) -> None:
    script.responses = [BUSY, EXPIRED]

    outcome = run("request", "POST", "/x", {}, stored=(ALICE, now))

    assert (outcome["status"], outcome["stored"]) == (401, now)
    assert {token for _, _, token in script.sent} == {ALICE["access_token"]}


def test_a_refresh_that_a_proxy_lost_is_not_repeated(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, Response(502, PAGE)]

    outcome = run("request", "GET", "/x")

    assert (outcome["status"], outcome["stored"]) == (502, ALICE)
    assert [path for _, path, _ in script.sent] == ["/x", "/auth/refresh"]


def test_signing_out_everywhere_deletes_the_pair(run: Run, script: Script) -> None:
    script.responses = [Response(200, {"revoked": 3})]

    outcome = run("logout_all")

    assert (outcome["result"], outcome["stored"]) == (3, None)


def test_the_pair_is_kept_where_signing_out_everywhere_failed(run: Run, script: Script) -> None:
    """The other sessions are still active, so the user tries again."""
    script.responses = [Response(500, PAGE)]

    outcome = run("logout_all")

    assert (outcome["status"], outcome["stored"]) == (500, ALICE)


ANONYMOUS = [
    ("forgot_password", ["alice"], "/auth/password/forgot", {"identity": "alice"}),
    ("begin_registration", ["a@example.com"], "/auth/registration", {"email": "a@example.com"}),
    (
        "reset_password",
        ["ticket", "word"],
        "/auth/password/reset",
        {"token": "ticket", "new_password": "word"},
    ),
]
AUTHORIZED = [
    ("change_email", ["a@example.com"], "/users/me/email", {"email": "a@example.com"}),
    ("verify_email", ["ticket"], "/users/me/email/verify", {"token": "ticket"}),
    ("send_verification", [], "/users/me/email/verification", None),
    ("begin_totp", [], "/users/me/totp", None),
]


@pytest.mark.parametrize(("method", "args", "path", "body"), ANONYMOUS)
def test_a_call_for_someone_signed_out_sends_no_token(
    run: Run, script: Script, method: str, args: list[str], path: str, body: Any
) -> None:
    script.responses = [Response(202, {})]

    run(method, *args)

    assert script.sent == [("POST", path, None)]
    assert script.requests[0].body == body


@pytest.mark.parametrize(("method", "args", "path", "body"), AUTHORIZED)
def test_a_call_about_the_account_sends_the_token(
    run: Run, script: Script, method: str, args: list[str], path: str, body: Any
) -> None:
    script.responses = [Response(200, {"id": 1})]

    run(method, *args)

    assert script.sent == [("POST", path, ALICE["access_token"])]
    assert script.requests[0].body == body


def test_the_state_of_the_account_is_returned(run: Run, script: Script) -> None:
    script.responses = [Response(200, {"email_verified": True})]

    assert run("security")["result"] == {"email_verified": True}
    assert script.sent == [("GET", "/users/me/security", ALICE["access_token"])]


@pytest.mark.parametrize(
    ("method", "args", "path", "body", "codes"),
    [
        ("confirm_totp", ["123456"], "/users/me/totp/confirm", {"code": "123456"}, ["A", "B"]),
        ("confirm_totp", ["123456"], "/users/me/totp/confirm", {"code": "123456"}, None),
        ("replace_recovery_codes", [], "/users/me/recovery-codes", None, ["A", "B"]),
    ],
)
def test_recovery_codes_are_returned(
    run: Run, script: Script, method: str, args: list[str], path: str, body: Any, codes: Any
) -> None:
    script.responses = [Response(200, {"recovery_codes": codes})]

    assert run(method, *args)["result"] == codes
    assert script.sent == [("POST", path, ALICE["access_token"])]
    assert script.requests[0].body == body


def test_an_authenticator_app_is_removed(run: Run, script: Script) -> None:
    script.responses = [Response(204, None)]

    assert run("remove_totp")["result"] is None
    assert script.sent == [("DELETE", "/users/me/totp", ALICE["access_token"])]


def test_a_login_without_the_factor_states_what_continues_it(run: Run, script: Script) -> None:
    required = own(403, "mfa_required")
    script.responses = [Response(403, {**required.body, "mfa_token": "ticket"})]

    outcome = run("login", "alice", "word", stored=(None,))

    assert (outcome["status"], outcome["stored"]) == (403, None)


@needs_node
def test_the_second_step_of_a_login_signs_in(node: Run, script: Script) -> None:
    script.responses = [Response(200, {**LATER, "user": {"id": 1}})]

    outcome = node(script.base, [None], 'return api.completeLogin("ticket", { code: "123456" })')

    assert (outcome["result"], outcome["stored"]) == ({"id": 1}, LATER)
    assert script.sent == [("POST", "/auth/mfa", None)]
    assert script.requests[0].body == {"mfa_token": "ticket", "code": "123456"}


def test_the_second_step_of_a_login_signs_in_with_python(script: Script) -> None:
    api = latchkey.Latchkey(script.base)
    script.responses = [Response(200, {**LATER, "user": {"id": 1}})]

    assert api.complete_login("ticket", code="123456") == {"id": 1}
    assert api.pair == LATER
    assert script.requests[0].body == {"mfa_token": "ticket", "code": "123456"}


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_python_computes_the_codes_of_an_authenticator_app(step: int) -> None:
    secret = pyotp.random_base32()
    before = pyotp.TOTP(secret).at(int(time.time()), counter_offset=step)
    code = latchkey.totp(secret, step)
    after = pyotp.TOTP(secret).at(int(time.time()), counter_offset=step)

    assert code in {before, after}


@needs_node
def test_the_tokens_of_a_reauthentication_are_stored(node: Run, script: Script) -> None:
    newest = pair("alice", 3)
    script.responses = [EXPIRED, Response(200, LATER), Response(200, newest)]

    outcome = node(script.base, [ALICE], 'return api.reauthenticate({ password: "word" })')

    assert outcome["stored"] == newest
    assert [(path, token) for _, path, token in script.sent] == [
        ("/auth/reauthenticate", ALICE["access_token"]),
        ("/auth/refresh", None),
        ("/auth/reauthenticate", LATER["access_token"]),
    ]
    assert script.requests[-1].body == {"password": "word"}


@needs_node
def test_a_reauthentication_does_not_replace_the_pair_of_another_user(
    node: Run, script: Script
) -> None:
    """Bob signs in, in another tab, while Alice proves her password."""
    script.responses = [Response(200, LATER)]

    code = 'return api.reauthenticate({ password: "word" })'
    outcome = node(script.base, [ALICE, BOB], code)

    assert outcome["stored"] == BOB


@pytest.mark.parametrize(("now", "stored"), [(ALICE, LATER), (BOB, BOB), (None, None)])
def test_python_stores_the_tokens_of_a_reauthentication_of_the_same_session(
    script: Script, now: Any, stored: Any
) -> None:
    api = latchkey.Latchkey(script.base)
    api.pair = ALICE
    script.responses = [BUSY, Response(200, LATER)]
    api.on_wait = lambda seconds: setattr(api, "pair", now)

    api.reauthenticate(password="word")

    assert api.pair == stored


def page(rows: list[int], following: str | None) -> Response:
    return Response(200, {"results": rows, "next": following})


def test_an_iterator_follows_next_to_the_end(run: Run, script: Script) -> None:
    host = "http://other.example/api/v1"
    script.responses = [
        page([1, 2], f"{host}/x?limit=2&page=2"),
        EXPIRED,
        Response(200, LATER),
        page([3, 4], f"{host}/x?limit=2&cursor=a%2Bb"),
        page([5], None),
    ]

    assert run("paginate", "/x?limit=2")["result"] == [1, 2, 3, 4, 5]

    paths = [path for method, path, _ in script.sent if method == "GET"]
    assert paths == ["/x?limit=2", *["/x?limit=2&page=2"] * 2, "/x?limit=2&cursor=a%2Bb"]


def test_an_iterator_over_an_empty_list_ends(run: Run, script: Script) -> None:
    script.responses = [page([], None)]

    assert run("events")["result"] == []
    assert script.sent == [("GET", "/auth/events", ALICE["access_token"])]


PNG = b"\x89PNG\r\n--x"


def test_python_repeats_an_upload_as_multipart(script: Script) -> None:
    script.responses = [BUSY, OK]
    api = latchkey.Latchkey(script.base)

    files = {"photo": ('a "lamp"\r\n.png', PNG)}
    assert api.request("POST", "/x", {"title": "Lamp"}, files=files) == {"ok": True}

    assert len(script.requests) == 2
    for request in script.requests:
        fields, sent = request.form
        assert (fields, sent["photo"].read()) == ({"title": "Lamp"}, PNG)
        assert (sent["photo"].name, sent["photo"].content_type) == (
            "a %22lamp%22%0D%0A.png",
            "image/png",
        )


def test_python_sends_a_file_of_an_unknown_type_alone(script: Script) -> None:
    script.responses = [OK]

    latchkey.Latchkey(script.base).request("POST", "/x", files={"photo": ("lamp", b"1")})

    fields, sent = script.requests[0].form
    assert (fields, sent["photo"].name) == ({}, "lamp")
    assert sent["photo"].content_type == "application/octet-stream"


def test_python_cancels_a_wait_with_an_exception(script: Script) -> None:
    script.responses = [BUSY]

    def cancel(seconds: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        latchkey.Latchkey(script.base, on_wait=cancel).request("GET", "/x")
    assert len(script.requests) == 1


def test_other_threads_of_python_continue_during_a_wait(script: Script) -> None:
    script.responses = [EXPIRED, LIMITED, EXPIRED, Response(200, LATER), OK]
    locked = []
    api = latchkey.Latchkey(script.base)
    api.on_wait = lambda seconds: locked.append(api.lock.locked())
    api.pair = ALICE

    api.request("GET", "/x")

    assert locked == [False, False]


@needs_node
class TestNode:
    def test_an_upload_is_repeated_as_multipart(self, node: Run, script: Script) -> None:
        script.responses = [BUSY, EXPIRED, Response(200, LATER), OK]

        code = """
            const form = new FormData();
            form.set("title", "Lamp");
            form.set("photo", new File(["1"], "lamp.png", { type: "image/png" }));
            return api.request("POST", "/x", form);
        """
        assert node(script.base, [ALICE], code)["result"] == {"ok": True}

        uploads = [request for request in script.requests if request.path == "/x"]
        assert len(uploads) == 3
        for request in uploads:
            fields, files = request.form
            assert (fields, files["photo"].read()) == ({"title": "Lamp"}, b"1")

    def test_a_wait_is_cancelled(self, node: Run, script: Script) -> None:
        script.responses = [own(503, "service_unavailable", **{"Retry-After": "30"})]
        started = time.monotonic()

        code = 'return api.request("GET", "/x", undefined, { signal: AbortSignal.timeout(100) });'
        outcome = node(script.base, [ALICE], code)

        assert time.monotonic() - started < 10
        assert (outcome["name"], outcome["waits"]) == ("DOMException", [30, 0])
        assert len(script.requests) == 1

    def test_a_request_is_cancelled(self, node: Run, script: Script) -> None:
        script.responses = [Response(200, {}, delay=2)]
        started = time.monotonic()

        code = 'return api.request("GET", "/x", undefined, { signal: AbortSignal.timeout(100) });'

        assert node(script.base, [ALICE], code)["name"] == "DOMException"
        assert time.monotonic() - started < 2

    def test_nothing_is_sent_with_a_cancelled_signal(self, node: Run, script: Script) -> None:
        code = 'return api.request("GET", "/x", undefined, { signal: AbortSignal.abort() });'

        assert node(script.base, [ALICE], code)["name"] == "DOMException"
        assert script.requests == []

    def test_a_cancelled_request_does_not_cancel_its_refresh(
        self, node: Run, script: Script
    ) -> None:
        """The response has the only valid refresh token of the session."""
        script.responses = [EXPIRED, Response(200, LATER, delay=0.5)]

        code = """
            const error = await api
                .request("GET", "/x", undefined, { signal: AbortSignal.timeout(200) })
                .catch((error) => error.name);
            await new Promise((resolve) => setTimeout(resolve, 800));
            return error;
        """
        outcome = node(script.base, [ALICE], code)

        assert (outcome["result"], outcome["stored"]) == ("TimeoutError", LATER)
        assert [path for _, path, _ in script.sent] == ["/x", "/auth/refresh"]

    def test_one_call_has_a_callback_of_its_own(self, node: Run, script: Script) -> None:
        script.responses = [BUSY, OK]

        code = """
            const waits = [];
            await api.request("GET", "/x", undefined, { onWait: (n) => waits.push(n) });
            return waits;
        """
        outcome = node(script.base, [ALICE], code)

        assert (outcome["result"], outcome["waits"]) == ([1, 0], [])

    def test_a_refresh_succeeds_while_another_call_waits(self, node: Run, script: Script) -> None:
        script.responses = [EXPIRED, LIMITED, Response(200, LATER), OK]

        code = """
            let during;
            const onWait = (seconds) => { if (seconds) during = api.refresh(pair); };
            const pair = await api.store.get();
            await api.request("GET", "/x", undefined, { onWait });
            return during;
        """
        outcome = node(script.base, [ALICE], code)

        assert (outcome["result"], outcome["stored"]) == (LATER, LATER)

    def test_tokens_are_kept_in_memory_by_default(self, node: Run, script: Script) -> None:
        script.responses = [Response(200, {**ALICE, "user": {"id": 1}}), OK, Response(204)]

        code = """
            const own = new api.constructor(api.base);
            await own.login("alice", "word");
            await own.request("GET", "/x");
            await own.logout();
            return own.store.get();
        """
        outcome = node(script.base, [None], code)

        assert (outcome["result"], outcome["stored"]) == (None, None)
        assert script.requests[1].token == ALICE["access_token"]
