"""Whether a stranger can tell by a response, or by its time, which accounts exist."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client, Response
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.postgres import Postgres

pytestmark = pytest.mark.slow
PAIRS = 500
WARM_UP = 50
# What differs between any two responses.
OWN = {"date", "x-request-id", "ratelimit"}


def seen(response: Response) -> tuple[int, bytes, frozenset[tuple[str, str]]]:
    """Return all of a response that a stranger compares, but for its time."""
    headers = frozenset(
        (name.lower(), value) for name, value in response.headers.items() if name.lower() not in OWN
    )
    return response.status, response.body, headers


def chance_to_guess(known: list[float], unknown: list[float]) -> float:
    """Return how often the slower response of any two is that of the known identity."""
    ordered = sorted([(s, 1) for s in known] + [(s, 0) for s in unknown])
    slower = below = 0
    for _, is_known in ordered:
        slower += below * is_known
        below += 1 - is_known
    return slower / (len(known) * len(unknown))


@pytest.mark.parametrize(
    ("path", "field", "known", "unknown"),
    [
        ("/auth/password/forgot", "identity", "{}", "{}-not"),
        ("/auth/password/forgot", "identity", "{}@example.com", "{}@example.net"),
        ("/auth/registration", "email", "{}@example.com", "{}@example.net"),
    ],
)
def test_nobody_can_tell_which_accounts_exist(
    postgres: Postgres,
    tmp_path: Path,
    figure: Figure,
    path: str,
    field: str,
    known: str,
    unknown: str,
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "TRUSTED_PROXY_COUNT": "1"}
    names = [f"{path.rpartition('/')[2]}{field}{len(known)}n{n:03d}" for n in range(100)]
    with serve(tmp_path / "open", **variables) as server:
        for name in names:
            user = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            assert Client(server.port).post(f"{API}/users", user).status == 201
    with serve(tmp_path / "verified", **variables, REGISTRATION="verified") as server:
        client = Client(server.port)

        def send(identity: str) -> Response:
            # Each request from another network: no bound of a network is reached.
            network = ".".join(str(random.randrange(1, 255)) for _ in range(4))  # noqa: S311
            body, headers = {field: identity}, {"X-Forwarded-For": network}
            return client.request("POST", f"{API}{path}", body, **headers)

        responses = measure(send, [(known.format(n), unknown.format(n)) for n in names])

    assert {response.status for pair in responses for response in pair} == {202}
    different = sum(seen(first) != seen(second) for first, second in responses)
    times: Any = zip(*[(a.seconds, b.seconds) for a, b in responses], strict=True)
    chance = chance_to_guess(*map(list, times))
    figure(
        f"`{path}` for {known.format('a user')} and {unknown.format('a user')}, {PAIRS} pairs: "
        "responses that differ; chance to tell them apart by time",
        demanded="0; 0.50 ± 0.05",
        measured=f"{different}; {chance:.2f}",
        met=different == 0 and abs(chance - 0.5) <= 0.05,
    )


def measure(
    send: Callable[[str], Response], identities: list[tuple[str, str]]
) -> list[tuple[Response, Response]]:
    """Send interleaved pairs, each in a random order, and return them as known and unknown."""
    pairs = []
    for number in range(WARM_UP + PAIRS):
        pair = identities[number % len(identities)]
        order = random.sample(range(2), 2)
        sent = {place: send(pair[place]) for place in order}
        pairs.append((sent[0], sent[1]))
    return pairs[WARM_UP:]
