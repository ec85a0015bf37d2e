"""Simultaneous and repeated calls."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make all calls at the same time, each in a thread, and return their results."""
    barrier = threading.Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:

        def wait_and(call: Callable[[], Any]) -> Any:
            barrier.wait()
            try:
                return call()
            finally:
                connections.close_all()

        return list(pool.map(wait_and, calls))


class Load:
    """Repeat calls in threads until the end of the `with` block; collect `results`."""

    def __init__(self, *calls: Callable[[], Any], pause: float = 0.0) -> None:
        self.results: list[Any] = []
        self.errors: list[Exception] = []
        self.stopped = threading.Event()
        self.pause = pause
        self.threads = [threading.Thread(target=self.repeat, args=(call,)) for call in calls]

    def repeat(self, call: Callable[[], Any]) -> None:
        while not self.stopped.is_set():
            try:
                self.results.append(call())
            except Exception as error:  # noqa: BLE001 - raised at the end of the block
                self.errors.append(error)
                return
            self.stopped.wait(self.pause)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return 1000 * ordered[int(len(ordered) * 0.99)]
