"""The clients of docs/clients: responses of proxies, and concurrent sign-ins of other users."""

import json
import time
from typing import Any

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
    needs_node,
    own,
)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "service_unavailable")])
def test_the_services_own_429_and_503_are_waited_out_for_any_method(
    run: Run, script: Script, method: str, status: int, code: str
) -> None:
    script.responses = [own(status, code, **{"Retry-After": "1"}), OK]
    started = time.monotonic()

    outcome = run("request", method, "/x", {"n": 1})

    assert time.monotonic() - started >= 1
    assert (outcome["result"], outcome["waits"]) == ({"ok": True}, [1, 0])
    assert [request.body for request in script.requests] == [{"n": 1}] * 2


NOT_REPEATED = {
    "a proxy's 503": Response(503, PAGE, {"Retry-After": "1", "Content-Type": "text/html"}),
    "a proxy's 503 in JSON": Response(503, {"message": "no"}, {"Retry-After": "1"}),
    "a proxy's 429": Response(429, PAGE, {"Retry-After": "1"}),
    "a 503 without Retry-After": own(503, "service_unavailable"),
    "a date": own(503, "service_unavailable", **{"Retry-After": "Wed, 25 Nov 2026 10:00:00 GMT"}),
    "too long a wait": own(429, "rate_limited", **{"Retry-After": "61"}),
    "another error with Retry-After": own(500, "server_error", **{"Retry-After": "1"}),
    "a code at another status": own(502, "service_unavailable", **{"Retry-After": "1"}),
    "a 502": Response(502, PAGE),
    "a 504": Response(504, PAGE, {"Retry-After": "1"}),
    "a 502 of the shipped nginx": own(502, "server_error"),
}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("response", NOT_REPEATED.values(), ids=NOT_REPEATED)
def test_what_may_have_been_processed_is_sent_once(
    run: Run, script: Script, response: Response, method: str
) -> None:
    script.responses = [response]

    outcome = run("request", method, "/x", {})

    assert (outcome["name"], outcome["status"]) == ("ApiError", response.status)
    assert (len(script.requests), outcome["waits"]) == (1, [])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("status", [502, 504])
def test_an_idempotent_request_that_a_proxy_lost_is_repeated(
    run: Run, script: Script, method: str, status: int
) -> None:
    script.responses = [Response(status, PAGE), OK]

    assert run("request", method, "/x")["result"] == {"ok": True}


def test_it_is_repeated_three_times_at_most(run: Run, script: Script) -> None:
    script.responses = [Response(502, PAGE)] * 4

    assert run("request", "GET", "/x")["status"] == 502
    assert len(script.requests) == 4


@pytest.mark.parametrize("status", [200, 400, 404, 413, 500, 502])
@pytest.mark.parametrize("body", [PAGE, '{"half": ', "[1]", '"text"', "7", "null", ""])
def test_a_body_of_another_type_is_an_api_error_with_its_status(
    run: Run, script: Script, status: int, body: str
) -> None:
    script.responses = [Response(status, body)]

    outcome = run("request", "POST", "/x", {})

    if status == 200 and body not in {PAGE, '{"half": '}:
        assert outcome["result"] == json.loads(body or "null")
    else:
        assert (outcome["name"], outcome["status"]) == ("ApiError", status)
        assert outcome["code"] is None


def test_an_expired_token_is_refreshed_and_the_request_sent_again(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, Response(200, LATER), OK]

    outcome = run("request", "POST", "/x", {"n": 1})

    assert outcome == {"result": {"ok": True}, "waits": [], "stored": LATER}
    assert script.sent == [
        ("POST", "/x", ALICE["access_token"]),
        ("POST", "/auth/refresh", None),
        ("POST", "/x", LATER["access_token"]),
    ]
    assert script.requests[1].body == {"refresh_token": ALICE["refresh_token"]}


def test_a_pair_that_another_tab_refreshed_is_used(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, OK]

    outcome = run("request", "POST", "/x", {}, stored=(ALICE, LATER))

    assert (outcome["result"], outcome["stored"]) == ({"ok": True}, LATER)
    assert [token for _, _, token in script.sent] == [ALICE["access_token"], LATER["access_token"]]


@pytest.mark.parametrize("now", [BOB, None])
def test_a_request_is_not_repeated_as_another_user(run: Run, script: Script, now: Any) -> None:
    """Bob signs in, in another tab, during a request of Alice."""
    script.responses = [EXPIRED]

    outcome = run("request", "POST", "/x", {}, stored=(ALICE, now))

    assert (outcome["name"], outcome["status"]) == ("ApiError", 401)
    assert outcome["stored"] == now
    assert script.sent == [("POST", "/x", ALICE["access_token"])]


@needs_node
@pytest.mark.parametrize("refreshed", [Response(200, LATER), EXPIRED])
def test_a_refresh_does_not_replace_the_pair_of_another_user(
    node: Run, script: Script, refreshed: Response
) -> None:
    """Bob signs in, in another tab, while Alice's token is refreshed; threads share a lock."""
    script.responses = [EXPIRED, refreshed, OK]

    outcome = node(script.base, [ALICE, ALICE, BOB], 'return api.request("POST", "/x", {})')

    assert outcome["stored"] == BOB


def test_a_sign_out_does_not_sign_out_another_user(run: Run, script: Script) -> None:
    script.responses = [Response(204)]

    # The client reads the pair twice before the request and once after it.
    assert run("logout", stored=(ALICE, ALICE, BOB))["stored"] == BOB


def test_a_sign_out_deletes_the_pair_after_any_response(run: Run, script: Script) -> None:
    script.responses = [Response(500, PAGE)]

    assert run("logout", stored=(ALICE,))["stored"] is None


def test_an_ended_session_is_deleted(run: Run, script: Script) -> None:
    script.responses = [EXPIRED, EXPIRED]

    outcome = run("request", "GET", "/x")

    assert (outcome["status"], outcome["code"], outcome["stored"]) == (401, "token_not_valid", None)
