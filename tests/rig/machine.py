"""The checkout, free ports and waiting."""

import contextlib
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a free port below the ephemeral range, whose ports clients may use."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - not a secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(port: int, log: Path, host: str = "127.0.0.1") -> None:
    for _ in range(1000):
        time.sleep(0.02)
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
    pytest.fail(log.read_text())  # pragma: no cover


def wait_until(condition: Callable[[], bool], *, seconds: float) -> float:
    """Return the seconds until the condition holds, or infinity after `seconds`."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return float("inf")
