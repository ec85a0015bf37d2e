"""`make bench`: compare this project with a stock one, on one PostgreSQL, in one run."""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import report, sides
from bench.world import Comparison, Postgres, Service, compare, drive, postgres_server
from tests.rig.redis import Redis

# The project's targets: CPU time of the application per request, stock's divided by Latchkey's.
TARGETS = {
    "product list": 1.5,
    "product by id": 1.3,
    "the caller": 1.4,
    "create a product": 1.3,
    "refresh": 4.0,
    "session list": 0.9,
}
HASH = """
import bcrypt, sys, time
until, salt, count, began = time.monotonic() + float(sys.argv[1]), bcrypt.gensalt(14), 0, time.monotonic()
while time.monotonic() < until:
    bcrypt.hashpw(b"a sunny day in May", salt)
    count += 1
print(count / (time.monotonic() - began))
"""


def endpoints(ours: Service, theirs: Service) -> list[Any]:
    """Pair equal requests; the session list is compared with the caller, as stock has no sessions."""
    both: list[Any] = [
        (sides.get("product list", "/product"), sides.get("product list", "/product/")),
        (sides.get("product by id", "/product/500"), sides.get("product by id", "/product/500/")),
        (sides.get("the caller", "/users/me"), sides.get("the caller", "/users/me/")),
        (sides.get("session list", "/auth/sessions"), sides.get("the caller", "/users/me/")),
        (sides.create(""), sides.create("/")),
        (
            sides.refresh("", ("refresh_token", "refresh_token")),
            sides.refresh("/", ("refresh", "refresh")),
        ),
    ]
    return [((ours, one), (theirs, other)) for one, other in both]


def hashes(places: int, seconds: float) -> float:
    """Return how many passwords per second one process per hashing slot can hash."""
    command = [sys.executable, "-c", HASH, str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(places)]
    return sum(float(process.communicate()[0]) for process in running)


def login_against_hashing(
    postgres: Postgres, ours: Service, *, rounds: int, seconds: float
) -> dict[str, float]:
    """
    Compare logins per second with the capacity of the hashing slots, in alternation.

    A hash that is unfinished when a turn ends is not counted; long turns keep that error small.
    """
    ceilings, logins = [], []
    for _ in range(rounds):
        ceilings.append(hashes(sides.WORKERS, seconds / 3))
        # Enough clients that no slot is free while the others wait in the queue.
        logins.append(
            drive(postgres, ours, sides.login(), seconds, patient=True, connections_each=2)
        )
    ratios = [done.rate / possible for done, possible in zip(logins, ceilings, strict=True)]
    return {
        "ceiling": statistics.median(ceilings),
        "logins": statistics.median(done.rate for done in logins),
        "ratio": statistics.median(ratios),
        "cpu": statistics.median(done.cpu for done in logins),
        "hash_cpu": 1000 * sides.WORKERS / statistics.median(ceilings),
    }


def starts(service: Service, times: int) -> float:
    """Return the median of the seconds from the command to the first response."""
    found = []
    for _ in range(times):
        service.stop()
        found.append(service.start())
    return statistics.median(found)


def memory(service: Service) -> float:
    """Return the median resident memory of a worker, in MiB."""
    return statistics.median(p.memory_info().rss for p in service.workers()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--plot", type=Path, help="where to write a plot of them, as SVG")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    # Many short turns, so that other load on the machine affects both equally.
    rounds, seconds = (3, 0.5) if quick else (15, 1.0)
    large = 50_000 if quick else 1_000_000
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        redis = stack.enter_context(Redis()) if sides.WORKERS > 1 else None
        ours, theirs = sides.ours(postgres, redis), sides.stock(postgres)
        sides.fill_ours(postgres, ours, sessions=1000, events=1000, products=1000)
        sides.fill_stock(postgres, theirs, 1000)
        for service in (ours, theirs):
            stack.callback(service.stop)
            service.start()
        comparisons: list[Comparison] = []

        def run(pair: Any, name: str = "") -> None:
            comparisons.append(compare(postgres, pair, rounds=rounds, seconds=seconds))
            comparisons[-1].name = name or comparisons[-1].name
            report.line(comparisons[-1], TARGETS)

        report.heading(sides.WORKERS, sides.THREADS, redis is not None)
        for pair in endpoints(ours, theirs):
            run(pair)
        footprint = {"memory": {s.name: memory(s) for s in (ours, theirs)}}
        login = login_against_hashing(
            postgres, ours, rounds=1 if quick else 3, seconds=6 if quick else 30
        )
        footprint["start"] = {s.name: starts(s, 1 if quick else 3) for s in (ours, theirs)}
        sides.fill_ours(postgres, ours, products=large - 1000)
        sides.fill_stock(postgres, theirs, large - 1000)
        run(endpoints(ours, theirs)[0], f"product list at {large:,}")
        results = report.results(comparisons, TARGETS, login, footprint)
    report.summary(results, time.monotonic() - began)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.plot:
        arguments.plot.write_text(report.plot(results))


if __name__ == "__main__":
    main()
