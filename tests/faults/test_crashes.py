"""Workers are killed while clients rotate their tokens, with a ledger of all tokens."""

import random
import signal
import time
from pathlib import Path

import jwt
import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client, is_accepted
from tests.rig.gunicorn import NO_LIMITS, serve, workers
from tests.rig.load import Load
from tests.rig.machine import wait_until
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
KILLS = 50


class Device:
    """A client that refreshes, and records all its tokens and lost sessions."""

    def __init__(self, port: int) -> None:
        self.client = Client(port).sign_in()
        self.sessions = [[self.client.refresh_token]]
        self.response_was_lost = False
        self.lost = {"by a lost response": 0, "for no reason": 0}

    def rotate(self) -> None:
        status = self.client.refresh().status
        if status == 200:
            self.sessions[-1].append(self.client.refresh_token)
        elif status == 0:
            self.response_was_lost = True
            time.sleep(0.05)
            return
        elif status == 401:
            self.lost["by a lost response" if self.response_was_lost else "for no reason"] += 1
            self.sign_in_again()
        self.response_was_lost = False

    def settle(self) -> None:
        """Repeat until a response arrives."""
        self.rotate()
        while self.response_was_lost:
            self.rotate()

    def sign_in_again(self) -> None:
        def succeeds() -> bool:
            body = {"identity": self.client.username, "password": PASSWORD}
            response = self.client.post(f"{API}/auth/login", body)
            if response.status == 200:
                self.client.take(response)
            return response.status == 200

        assert wait_until(succeeds, seconds=20) < 20
        self.sessions.append([self.client.refresh_token])


@pytest.mark.parametrize("grace", ["0", "10"])
def test_workers_are_killed_while_tokens_rotate(
    postgres: Postgres, redis: Redis, tmp_path: Path, figure: Figure, grace: str
) -> None:
    variables = NO_LIMITS | {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url}
    variables |= {"WEB_CONCURRENCY": "2", "REFRESH_GRACE_SECONDS": grace}
    with serve(tmp_path / "log", **variables) as server:
        devices = [Device(server.port) for _ in range(12)]
        with Load(*[device.rotate for device in devices], pause=0.01) as load:
            for _ in range(KILLS):
                wait_until(lambda: len(workers(server)) == 2, seconds=10)
                time.sleep(0.3)
                random.choice(workers(server)).send_signal(signal.SIGKILL)  # noqa: S311 - no secret
        for device in devices:
            device.settle()
        handed_out = sum(len(tokens) for device in devices for tokens in device.sessions)
        two_live = sum(
            live_tokens(postgres, tokens) > 1 for device in devices for tokens in device.sessions
        )
        undead = sum(
            works(server.port, tokens[-1]) for device in devices for tokens in device.sessions[:-1]
        )
        revived = sum(revives(server.port, device.sessions[-1]) for device in devices)

    lost = sum(device.lost["by a lost response"] for device in devices)
    for_no_reason = sum(device.lost["for no reason"] for device in devices)
    figure(
        f"{KILLS} workers killed, grace {grace} s: sessions with two live tokens; ended ones that "
        "work; lost for no reason; lost by a lost response",
        demanded=f"0; 0; 0; {'0' if grace != '0' else 'some'}",
        measured=f"{two_live}; {undead + revived}; {for_no_reason}; {lost} (of {handed_out:,} "
        f"tokens, {len(load.results):,} attempts)",
        met=two_live == undead == revived == for_no_reason == 0 and (grace == "0" or lost == 0),
    )


def live_tokens(postgres: Postgres, tokens: list[str]) -> int:
    """Count those that the session's row names as live."""
    claims = [jwt.decode(token, options={"verify_signature": False}) for token in tokens]
    identifiers = ", ".join(f"'{claim['jti']}'" for claim in claims)
    statement = "SELECT count(*) FROM accounts_session WHERE ended_at IS NULL"
    statement += f" AND id = '{claims[0]['sid']}' AND token_id IN ({identifiers})"
    ((count,),) = postgres.execute(statement, dbname="latchkey")
    return int(count)


def works(port: int, refresh_token: str) -> bool:
    client = Client(port)
    client.refresh_token = refresh_token
    return is_accepted(client.refresh)


def revives(port: int, tokens: list[str]) -> bool:
    """Return whether a live session's newest token fails, or any token works after a replay."""
    newest = Client(port)
    newest.refresh_token = tokens[-1]
    assert is_accepted(newest.refresh)
    replayed = works(port, tokens[0])
    return replayed or newest.is_signed_in()
