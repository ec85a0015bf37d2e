"""The rules by which the tests judge responses."""

import json

import pytest

from tests.rig.client import Response, is_accepted, seen

UNAVAILABLE = Response(
    503,
    0.01,
    {"Content-Type": "application/problem+json", "Retry-After": "1"},
    json.dumps({"code": "service_unavailable"}).encode(),
)


@pytest.mark.parametrize(("status", "accepted"), [(200, True), (401, False)])
def test_an_unavailable_service_neither_accepts_nor_rejects(status: int, accepted: bool) -> None:
    responses = iter([UNAVAILABLE, UNAVAILABLE, Response(status, 0.01)])

    assert is_accepted(lambda: next(responses)) == accepted


@pytest.mark.parametrize("response", [Response(0, 0.01), Response(500, 0.01), UNAVAILABLE])
def test_any_other_response_fails_and_is_named(response: Response) -> None:
    with pytest.raises(AssertionError, match=rf"{response.status}: \d+; Response\("):
        is_accepted(lambda: response, seconds=0.1)


def test_what_was_seen_counts_each_status() -> None:
    assert seen([Response(503, 0.01), Response(200, 0.01), Response(503, 0.01)]) == "200: 1, 503: 2"
