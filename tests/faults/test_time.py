"""Clocks that differ or jump, by a library that shifts the clock of a process."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils.dateparse import parse_datetime

from conftest import API
from tests.faults.conftest import Figure
from tests.rig.client import Client, is_accepted
from tests.rig.gunicorn import NO_LIMITS, Server, serve
from tests.rig.postgres import Postgres
from tests.rig.redis import Redis, needs_redis

Wind = Callable[[str, int], dict[str, str]]
pytestmark = [
    needs_redis,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="macOS has no LD_PRELOAD"),
]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that shifts the clock."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def wound(clock: Path, tmp_path: Path) -> Wind:
    """Return a function that returns the variables for a shifted clock, or shifts it again."""

    def wind(name: str, seconds: int) -> dict[str, str]:
        (tmp_path / name).write_text(str(seconds))
        return {"LD_PRELOAD": str(clock), "CLOCK": str(tmp_path / name)}

    return wind


@pytest.fixture
def shared(postgres: Postgres, redis: Redis) -> dict[str, str]:
    redis.flush()  # Reset all rate limits.
    return {"DATABASE_URL": postgres.url, "CACHE_URL": redis.url, "WEB_CONCURRENCY": "2"}


def test_instances_whose_clocks_differ_by_30_seconds(
    shared: dict[str, str], wound: Wind, tmp_path: Path, figure: Figure
) -> None:
    shared |= NO_LIMITS
    with (
        serve(tmp_path / "late", **shared, **wound("late clock", -15)) as late,
        serve(tmp_path / "early", **shared, **wound("early clock", 15)) as early,
    ):
        rejected = 0
        for here, there in itertools.permutations([late, early]):
            for _ in range(5):
                device = Client(here.port).sign_in()
                for server in (there, here, there):
                    at = Client(server.port)
                    at.access, at.refresh_token = device.access, device.refresh_token
                    rejected += not is_accepted(lambda at=at: at.get(f"{API}/users/me"))
                    rejected += not is_accepted(at.refresh)
                    device = at
        health = [Client(s.port).get("/health").json["timestamp"] for s in (late, early)]
    early_by = parse_datetime(health[1]) - parse_datetime(health[0])
    assert 29 < early_by.total_seconds() < 32
    figure(
        "Clocks 30 s apart: fresh tokens rejected by the other instance",
        demanded="0 of 60",
        measured=f"{rejected} of 60",
        met=rejected == 0,
    )


def test_a_clock_that_jumps_ten_minutes_and_comes_back(
    shared: dict[str, str], wound: Wind, tmp_path: Path, figure: Figure
) -> None:
    with serve(tmp_path / "log", **shared, **wound("clock", 0)) as server:
        devices = [Client(server.port).sign_in() for _ in range(3)]
        waits: list[int] = []
        signed_in: list[bool] = []
        for jump in (600, 0, -600, 0):
            wound("clock", jump)
            signed_in += [device.is_signed_in() for device in devices]
            waits += longest_waits(server)
    figure(
        "A clock that jumps ten minutes ahead, back, behind, back: clients that can't go on; "
        "longest Retry-After under 5/m and 10/15m",
        demanded="0; a window's length",
        measured=f"{signed_in.count(False)} of {len(signed_in)}; {max(waits)} s",
        met=all(signed_in) and min(waits) >= 1 and max(waits) <= 900,
    )


def longest_waits(server: Server) -> list[int]:
    """Exceed the limits and return their Retry-After values."""
    client = Client(server.port)
    body = {"identity": "nobody", "password": "wrong"}
    responses = [client.post(f"{API}/auth/login", body) for _ in range(7)]
    return [int(a.headers["Retry-After"]) for a in responses if a.status == 429]
