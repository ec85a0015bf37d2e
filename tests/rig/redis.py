"""A Redis server."""

import contextlib
import os
import shutil
import subprocess
import time
from typing import Self

import pytest
import redis

from tests.rig.machine import free_port

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


class Redis:
    """A separate Redis without persistence."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with redis.Redis(port=self.port) as client:
            for _ in range(100):  # pragma: no branch
                time.sleep(0.05)
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return

    def flush(self) -> None:
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.kill()
